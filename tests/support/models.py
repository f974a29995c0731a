"""Small Triton models for the Python backend, written into a test's own model repository."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

FIXED_SIZE_TYPES = (
    "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BF16".split()  # noqa: SIM905  # reads better
)


@dataclass(frozen=True)
class Source:
    """A model: its configuration without its name, and its code (without the import of the backend's utilities)."""

    config: str
    code: str


def write_model(repository: Path, name: str, source: Source, version: int = 1) -> Path:
    """Write a model; returns its folder."""
    folder = repository / name
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(f'name: "{name}"\nbackend: "python"\n{textwrap.dedent(source.config)}')
    code = "import triton_python_backend_utils as pb\n" + textwrap.dedent(source.code)
    (folder / str(version) / "model.py").write_text(code)
    return folder


def repository_of(server: Any) -> Path:
    """The first model repository of a server."""
    return Path(server.options.repositories()[0])


def _tensors(kind: str, entries: list[tuple[str, str]], *, optional: bool = False) -> str:
    flag = " optional: true" if optional else ""
    return "\n".join(f'{kind} [{{ name: "{n}" data_type: TYPE_{t} dims: [-1]{flag} }}]' for n, t in entries)


def identity(data_type: str = "FP32", dims: str = "[-1]", extra: str = "") -> Source:
    """``x`` comes back as ``y``."""
    return Source(
        f"""
        max_batch_size: 0
        input [{{ name: "x" data_type: TYPE_{data_type} dims: {dims} }}]
        output [{{ name: "y" data_type: TYPE_{data_type} dims: {dims} }}]
        {extra}
        """,
        """
        class TritonPythonModel:
            def execute(self, requests):
                return [
                    pb.InferenceResponse([pb.Tensor("y", pb.get_input_tensor_by_name(request, "x").as_numpy())])
                    for request in requests
                ]
        """,
    )


_ECHO_TYPES = [*FIXED_SIZE_TYPES, "STRING"]

ECHO = Source(
    "max_batch_size: 0\n"
    + _tensors("input", [(f"x{t}", t) for t in _ECHO_TYPES], optional=True).replace("dims: [-1]", "dims: [-1, -1]")
    + "\n"
    + _tensors("output", [(f"y{t}", t) for t in _ECHO_TYPES]).replace("dims: [-1]", "dims: [-1, -1]")
    + '\noutput [{ name: "meta" data_type: TYPE_STRING dims: [1] }]\n',
    """
    import json
    import numpy as np

    class TritonPythonModel:
        def execute(self, requests):
            return [self.answer(request) for request in requests]

        def answer(self, request):
            outputs = []
            for tensor in request.inputs():
                name = "y" + tensor.name()[1:]
                if name == "yBF16":  # numpy has no such type
                    outputs.append(pb.Tensor.from_dlpack(name, tensor.to_dlpack()))
                else:
                    outputs.append(pb.Tensor(name, tensor.as_numpy()))
            meta = {
                "request_id": request.request_id(),
                "correlation_id": request.correlation_id(),
                "parameters": json.loads(request.parameters()) if request.parameters() else {},
                "timeout": request.timeout(),
                "flags": request.flags(),
                "requested": sorted(request.requested_output_names()),
            }
            outputs.append(pb.Tensor("meta", np.array([json.dumps(meta).encode()], dtype=np.object_)))
            return pb.InferenceResponse(outputs)
    """,
)
"""Every given input comes back (``xFP32`` as ``yFP32``), and what the request said in ``meta``."""

BATCH = Source(
    """
    max_batch_size: 64
    input [{ name: "x" data_type: TYPE_INT32 dims: [1] }]
    output [{ name: "y" data_type: TYPE_INT32 dims: [1] }, { name: "together" data_type: TYPE_INT32 dims: [1] }]
    dynamic_batching {
      max_queue_delay_microseconds: 20000
      priority_levels: 2
      default_priority_level: 2
      default_queue_policy {
        timeout_action: REJECT default_timeout_microseconds: 30000000 allow_timeout_override: true
      }
    }
    """,
    """
    import pathlib
    import time
    import numpy as np

    class TritonPythonModel:
        def initialize(self, args):
            self.folder = pathlib.Path(args["model_repository"])

        def execute(self, requests):
            responses = []
            for request in requests:
                x = pb.get_input_tensor_by_name(request, "x").as_numpy()
                if x[0, 0] < 0:
                    self.hold()
                together = np.full_like(x, len(requests))
                responses.append(pb.InferenceResponse([pb.Tensor("y", x), pb.Tensor("together", together)]))
            return responses

        def hold(self):
            (self.folder / "held").touch()
            deadline = time.monotonic() + 60
            while (self.folder / "hold").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            (self.folder / "held").unlink()
    """,
)
"""Batches dynamically; ``together`` is how many requests ran at once. A negative ``x`` first waits, see `Hold`."""


class Hold:
    """Keeps a `BATCH` model at a request with a negative ``x``, from the ``with`` on until `release` or its end.

    Attributes:
        holds: the model has got to it.
    """

    def __init__(self, repository: Path, name: str = "batch") -> None:
        self._folder = repository / name

    def __enter__(self) -> Self:
        (self._folder / "hold").touch()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def holds(self) -> bool:
        return (self._folder / "held").exists()

    def release(self) -> None:
        (self._folder / "hold").unlink(missing_ok=True)


STREAM = Source(
    """
    max_batch_size: 0
    model_transaction_policy { decoupled: true }
    input [{ name: "count" data_type: TYPE_INT32 dims: [1] }]
    output [{ name: "index" data_type: TYPE_INT32 dims: [1] }]
    """,
    """
    import time
    import numpy as np

    class TritonPythonModel:
        def execute(self, requests):
            for request in requests:
                count = int(pb.get_input_tensor_by_name(request, "count").as_numpy()[0])
                self.stream(request.get_response_sender(), request, count)

        def stream(self, sender, request, count):
            if count < 0:
                self.wait_for_cancel(sender, request)
                return
            for index in range(count):
                if index == 100:
                    sender.send(pb.InferenceResponse(error=pb.TritonError("a hundred is enough")))
                    break
                sender.send(pb.InferenceResponse([pb.Tensor("index", np.array([index], dtype=np.int32))]))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        def wait_for_cancel(self, sender, request):
            sender.send(pb.InferenceResponse([pb.Tensor("index", np.array([-1], dtype=np.int32))]))
            deadline = time.monotonic() + 60
            while not request.is_cancelled() and time.monotonic() < deadline:
                time.sleep(0.01)
            cancelled = request.is_cancelled()
            error = pb.TritonError("noticed", pb.TritonError.CANCELLED) if cancelled else pb.TritonError("not noticed")
            sender.send(pb.InferenceResponse(error=error), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    """,
)
"""Decoupled: ``count`` responses, the hundredth an error; a negative count gives one and waits to be cancelled."""

FAULTY = Source(
    """
    max_batch_size: 0
    input [{ name: "what" data_type: TYPE_STRING dims: [1] }]
    output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]
    """,
    """
    import os
    import signal
    import time
    import numpy as np

    class TritonPythonModel:
        def execute(self, requests):
            return [getattr(self, self.name(request))() for request in requests][0]

        def name(self, request):
            return pb.get_input_tensor_by_name(request, "what").as_numpy()[0].decode()

        def good(self):
            return [pb.InferenceResponse([pb.Tensor("y", np.zeros(2, dtype=np.float32))])]

        def raises(self):
            raise ValueError("the model raised this")

        def refuses(self):
            return [pb.InferenceResponse(error=pb.TritonError("not today", pb.TritonError.UNAVAILABLE))]

        def wrong_shape(self):
            return [pb.InferenceResponse([pb.Tensor("y", np.zeros((3, 3), dtype=np.float32))])]

        def wrong_type(self):
            return [pb.InferenceResponse([pb.Tensor("y", np.zeros(2, dtype=np.int64))])]

        def too_few(self):
            return []

        def exits(self):
            os._exit(3)

        def crashes(self):
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(10)
    """,
)
"""Does what ``what`` says: everything that a model can do wrong."""

SEQUENCE = Source(
    """
    max_batch_size: 4
    input [{ name: "x" data_type: TYPE_INT32 dims: [1] }]
    output [{ name: "sum" data_type: TYPE_INT32 dims: [1] }]
    sequence_batching {
      max_sequence_idle_microseconds: 5000000
      oldest { max_candidate_sequences: 4 }
      control_input [
        { name: "START" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] },
        { name: "CORRID" control [{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }] }
      ]
    }
    """,
    """
    import numpy as np

    class TritonPythonModel:
        def initialize(self, args):
            self.sums = {}

        def execute(self, requests):
            return [self.add(request) for request in requests]

        def add(self, request):
            value = {name: pb.get_input_tensor_by_name(request, name).as_numpy().ravel()[0]
                     for name in ("x", "START", "CORRID")}
            key = int(value["CORRID"])
            self.sums[key] = int(value["x"]) + (0 if value["START"] else self.sums[key])
            return pb.InferenceResponse([pb.Tensor("sum", np.array([[self.sums[key]]], dtype=np.int32))])
    """,
)
"""Adds up the ``x`` of each sequence."""

FAILS_TO_INITIALIZE = Source(
    identity().config,
    """
    class TritonPythonModel:
        def initialize(self, args):
            raise RuntimeError("no weights here")

        def execute(self, requests):
            return []
    """,
)
