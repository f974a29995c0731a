"""Operators and models that fail, and the processes that they run in."""

from __future__ import annotations

from tridist.errors.root import TridistError
from tridist.errors.text import describe


class OperatorError(TridistError):
    """An operator raised while it worked on a request.

    Attributes:
        operator: which one.
        exception: the exception's type, as text; the exception itself stays in the worker's log.
    """

    code = "OPERATOR_FAILED"
    operator: str
    exception: str

    def __init__(self, operator: str, exception: BaseException) -> None:
        name = type(exception).__name__
        text = f"operator {operator!r} raised {name}: {describe(exception)}"
        super().__init__(text, operator=operator, exception=name)


class OperatorLoadError(TridistError):
    """An operator could not be set up.

    Attributes:
        operator: which one.
        reason: why.
    """

    code = "OPERATOR_LOAD_FAILED"
    operator: str
    reason: str

    def __init__(self, operator: str, reason: str) -> None:
        super().__init__(f"operator {operator!r} could not be set up: {reason}", operator=operator, reason=reason)


class ModelError(TridistError):
    """Triton reported an error for a model.

    Attributes:
        model: the model's name.
        triton_code: Triton's own code in words (``"Invalid argument"``, ``"Unavailable"``, …, as
            ``TRITONSERVER_ErrorCodeString`` gives it).
    """

    code = "MODEL_FAILED"
    model: str
    triton_code: str

    def __init__(self, model: str, triton_code: str, text: str) -> None:
        super().__init__(f"model {model!r}: {triton_code}: {text}", model=model, triton_code=triton_code)


class DeploymentError(TridistError):
    """A deployment could not be started or kept running.

    Attributes:
        process: the worker or server at fault.
        reason: what happened, with the end of its log where that helps.
    """

    code = "DEPLOYMENT_FAILED"
    process: str
    reason: str

    def __init__(self, process: str, reason: str) -> None:
        super().__init__(f"{process}: {reason}", process=process, reason=reason)
