# ruff: noqa: ANN001, ANN201, ANN202 (Triton's Python backend has no types to annotate with)
"""``x`` as ``y``."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The interface that Triton's Python backend asks for."""

    def execute(self, requests):
        """Answer each request of the batch."""
        return [pb_utils.InferenceResponse([self._same(request)]) for request in requests]

    def _same(self, request):
        return pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(request, "x").as_numpy())
