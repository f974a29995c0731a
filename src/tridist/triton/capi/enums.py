"""The enumerations of ``tritonserver.h`` that cross the binding, with the official Python API's names."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class DataType(IntEnum):
    """Tensor element types (``TRITONSERVER_DataType``)."""

    INVALID = 0
    BOOL = 1
    UINT8 = 2
    UINT16 = 3
    UINT32 = 4
    UINT64 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FP16 = 10
    FP32 = 11
    FP64 = 12
    BYTES = 13
    BF16 = 14


class MemoryType(IntEnum):
    """Where a buffer lies (``TRITONSERVER_MemoryType``)."""

    CPU = 0
    CPU_PINNED = 1
    GPU = 2


class ParameterType(IntEnum):
    """Types of request, response and load parameters (``TRITONSERVER_ParameterType``)."""

    STRING = 0
    INT = 1
    BOOL = 2
    DOUBLE = 3
    BYTES = 4


class InstanceGroupKind(IntEnum):
    """Kinds of instance groups (``TRITONSERVER_InstanceGroupKind``)."""

    AUTO = 0
    CPU = 1
    GPU = 2
    MODEL = 3


class LogLevel(IntEnum):
    """Log levels (``TRITONSERVER_LogLevel``)."""

    INFO = 0
    WARN = 1
    ERROR = 2
    VERBOSE = 3


class LogFormat(IntEnum):
    """Log line formats (``TRITONSERVER_LogFormat``)."""

    DEFAULT = 0
    ISO8601 = 1


class ErrorCode(IntEnum):
    """Error codes (``TRITONSERVER_Error_Code``)."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7


class ModelControlMode(IntEnum):
    """Who decides which models are loaded (``TRITONSERVER_ModelControlMode``)."""

    NONE = 0
    POLL = 1
    EXPLICIT = 2


class RateLimitMode(IntEnum):
    """Rate limiting of model instances (``TRITONSERVER_RateLimitMode``)."""

    OFF = 0
    EXEC_COUNT = 1


class MetricFormat(IntEnum):
    """Formats of the metrics text (``TRITONSERVER_MetricFormat``)."""

    PROMETHEUS = 0


class ModelBatchFlag(IntFlag):
    """How a model batches (``TRITONSERVER_ModelBatchFlag``)."""

    UNKNOWN = 1
    FIRST_DIM = 2


class ModelTxnPropertyFlag(IntFlag):
    """How many responses a model gives per request (``TRITONSERVER_ModelTxnPropertyFlag``)."""

    ONE_TO_ONE = 1
    DECOUPLED = 2


class ModelIndexFlag(IntFlag):
    """Which models an index lists (``TRITONSERVER_ModelIndexFlag``)."""

    READY = 1


class RequestFlag(IntFlag):
    """Where in its sequence a request stands (``TRITONSERVER_RequestFlag``)."""

    SEQUENCE_START = 1
    SEQUENCE_END = 2


class RequestReleaseFlag(IntFlag):
    """What a release callback gets back (``TRITONSERVER_RequestReleaseFlag``)."""

    ALL = 1
    RESCHEDULE = 2


class ResponseCompleteFlag(IntFlag):
    """Whether more responses follow (``TRITONSERVER_ResponseCompleteFlag``)."""

    FINAL = 1
