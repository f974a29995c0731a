"""Units of work: the base contract, plain Python functions, and Triton models."""

from tridist.operators.base import Operator, OperatorContext, OperatorRequest, OperatorResponse
from tridist.operators.function import FunctionOperator, operator
from tridist.operators.resources import SharedResources
from tridist.operators.triton_operator import TritonOperator

__all__ = [
    "FunctionOperator",
    "Operator",
    "OperatorContext",
    "OperatorRequest",
    "OperatorResponse",
    "SharedResources",
    "TritonOperator",
    "operator",
]
