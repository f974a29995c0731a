"""Decodes: the order reversed back, every bit inverted back."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The interface that Triton's Python backend asks for."""

    def execute(self, requests):
        """Answer each request of the batch."""
        return [pb_utils.InferenceResponse([self._decode(request)]) for request in requests]

    def _decode(self, request):
        values = pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy()
        return pb_utils.Tensor("decoded", np.invert(values[::-1]))
