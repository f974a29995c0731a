"""Encodes: every bit inverted, the order reversed."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The interface that Triton's Python backend asks for."""

    def execute(self, requests):
        """Answer each request of the batch."""
        return [pb_utils.InferenceResponse([self._encode(request)]) for request in requests]

    def _encode(self, request):
        values = pb_utils.get_input_tensor_by_name(request, "input").as_numpy()
        return pb_utils.Tensor("encoded", np.ascontiguousarray(np.invert(values)[::-1]))
