# ruff: noqa: ANN001, ANN201, ANN205 (Triton's Python backend has no types to annotate with)
"""Waits until its request is cancelled, and writes down when it noticed."""

import json
import time
from pathlib import Path

import triton_python_backend_utils as pb

_POLL_SECONDS = 0.001
_LONGEST_SECONDS = 60


class TritonPythonModel:
    """One request at a time. The parameter ``note`` names the file for the time, ``note`` and ``.began`` its start."""

    def execute(self, requests):
        """Answer each with an error, once it is cancelled."""
        return [self._wait(request) for request in requests]

    @staticmethod
    def _wait(request):
        note = json.loads(request.parameters())["note"]
        Path(note + ".began").touch()
        give_up = time.monotonic() + _LONGEST_SECONDS
        while not request.is_cancelled() and time.monotonic() < give_up:
            time.sleep(_POLL_SECONDS)
        Path(note + ".new").write_text(repr(time.monotonic()))
        Path(note + ".new").rename(note)
        return pb.InferenceResponse(error=pb.TritonError("noticed", pb.TritonError.CANCELLED))
