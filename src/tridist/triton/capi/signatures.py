"""Signatures of the C functions and callbacks that the binding uses, as data.

Function names lack their ``TRITONSERVER_`` prefix. Three tables, because a call is made in one of three ways:

``QUICK``
    touches only the object that it is given, takes no lock and returns within about a microsecond. Called with the GIL
    held: giving it up and taking it back around each of a request's twenty setters and getters costs more than they do,
    and under load hands the interpreter to another thread each time.
``BLOCKING``
    may take a lock of the core, wait for a model, or run callbacks of ours on other threads. Called without the GIL;
    with it, a core thread that waits for the GIL inside a callback while it holds the lock would deadlock with us.
``PLAIN``
    does not return a ``TRITONSERVER_Error*``; the value is its return type.

Every function of the first two returns a ``TRITONSERVER_Error*`` that the loader turns into an exception and deletes.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p

API_VERSION_MAJOR = 1
"""The major version of the C API that these tables describe; another one is another interface."""

OLDEST_API_VERSION_MINOR = 30
"""The oldest minor version that has every function named here (double parameters are the newest of them)."""

Handle = c_void_p
"""Any opaque object of the core."""

# Declared without a return type where the C type is ``void``. c_void_p arguments arrive as int, or None for nullptr.
RequestReleaseFn = ctypes.CFUNCTYPE(None, Handle, c_uint32, c_void_p)
ResponseCompleteFn = ctypes.CFUNCTYPE(None, Handle, c_uint32, c_void_p)
AllocatorAllocFn = ctypes.CFUNCTYPE(
    c_void_p,
    Handle,
    c_char_p,
    c_size_t,
    c_int,
    c_int64,
    c_void_p,
    POINTER(c_void_p),
    POINTER(c_void_p),
    POINTER(c_int),
    POINTER(c_int64),
)
AllocatorReleaseFn = ctypes.CFUNCTYPE(c_void_p, Handle, c_void_p, c_void_p, c_size_t, c_int, c_int64)
AllocatorStartFn = ctypes.CFUNCTYPE(c_void_p, Handle, c_void_p)
AllocatorQueryFn = ctypes.CFUNCTYPE(
    c_void_p, Handle, c_void_p, c_char_p, POINTER(c_size_t), POINTER(c_int), POINTER(c_int64)
)

_Out = POINTER(Handle)
_Text = POINTER(c_char_p)

PLAIN: dict[str, tuple[object, tuple[object, ...]]] = {
    "ErrorNew": (Handle, (c_int, c_char_p)),
    "ErrorDelete": (None, (Handle,)),
    "ErrorCode": (c_int, (Handle,)),
    "ErrorCodeString": (c_char_p, (Handle,)),
    "ErrorMessage": (c_char_p, (Handle,)),
    "ParameterNew": (Handle, (c_char_p, c_int, c_void_p)),
    "ParameterBytesNew": (Handle, (c_char_p, c_void_p, c_uint64)),
    "ParameterDelete": (None, (Handle,)),
    # Its error belongs to the response and must not be deleted, so it is not raised by the loader.
    "InferenceResponseError": (Handle, (Handle,)),
}

QUICK: dict[str, tuple[object, ...]] = {
    "ApiVersion": (POINTER(c_uint32), POINTER(c_uint32)),
    "ResponseAllocatorNew": (_Out, AllocatorAllocFn, AllocatorReleaseFn, AllocatorStartFn),
    "ResponseAllocatorSetQueryFunction": (Handle, AllocatorQueryFn),
    "ResponseAllocatorDelete": (Handle,),
    "MessageDelete": (Handle,),
    "MessageSerializeToJson": (Handle, _Text, POINTER(c_size_t)),
    "MetricsDelete": (Handle,),
    "InferenceRequestDelete": (Handle,),
    "InferenceRequestSetId": (Handle, c_char_p),
    "InferenceRequestSetFlags": (Handle, c_uint32),
    "InferenceRequestSetCorrelationId": (Handle, c_uint64),
    "InferenceRequestSetCorrelationIdString": (Handle, c_char_p),
    "InferenceRequestSetPriorityUInt64": (Handle, c_uint64),
    "InferenceRequestSetTimeoutMicroseconds": (Handle, c_uint64),
    "InferenceRequestAddInput": (Handle, c_char_p, c_int, POINTER(c_int64), c_uint64),
    "InferenceRequestAppendInputData": (Handle, c_char_p, c_void_p, c_size_t, c_int, c_int64),
    "InferenceRequestAddRequestedOutput": (Handle, c_char_p),
    "InferenceRequestSetReleaseCallback": (Handle, RequestReleaseFn, c_void_p),
    "InferenceRequestSetResponseCallback": (Handle, Handle, c_void_p, ResponseCompleteFn, c_void_p),
    "InferenceRequestSetStringParameter": (Handle, c_char_p, c_char_p),
    "InferenceRequestSetIntParameter": (Handle, c_char_p, c_int64),
    "InferenceRequestSetBoolParameter": (Handle, c_char_p, c_bool),
    "InferenceRequestSetDoubleParameter": (Handle, c_char_p, c_double),
    "InferenceResponseModel": (Handle, _Text, POINTER(c_int64)),
    "InferenceResponseId": (Handle, _Text),
    "InferenceResponseParameterCount": (Handle, POINTER(c_uint32)),
    "InferenceResponseParameter": (Handle, c_uint32, _Text, POINTER(c_int), POINTER(c_void_p)),
    "InferenceResponseOutputCount": (Handle, POINTER(c_uint32)),
    "InferenceResponseOutput": (
        Handle,
        c_uint32,
        _Text,
        POINTER(c_int),
        POINTER(POINTER(c_int64)),
        POINTER(c_uint64),
        POINTER(c_void_p),
        POINTER(c_size_t),
        POINTER(c_int),
        POINTER(c_int64),
        POINTER(c_void_p),
    ),
    "ServerOptionsNew": (_Out,),
    "ServerOptionsDelete": (Handle,),
    "ServerOptionsSetServerId": (Handle, c_char_p),
    "ServerOptionsSetModelRepositoryPath": (Handle, c_char_p),
    "ServerOptionsSetModelControlMode": (Handle, c_int),
    "ServerOptionsSetStartupModel": (Handle, c_char_p),
    "ServerOptionsSetStrictModelConfig": (Handle, c_bool),
    "ServerOptionsSetRateLimiterMode": (Handle, c_int),
    "ServerOptionsAddRateLimiterResource": (Handle, c_char_p, c_size_t, c_int),
    "ServerOptionsSetPinnedMemoryPoolByteSize": (Handle, c_uint64),
    "ServerOptionsSetCudaMemoryPoolByteSize": (Handle, c_int, c_uint64),
    "ServerOptionsSetCacheConfig": (Handle, c_char_p, c_char_p),
    "ServerOptionsSetCacheDirectory": (Handle, c_char_p),
    "ServerOptionsSetMinSupportedComputeCapability": (Handle, c_double),
    "ServerOptionsSetExitOnError": (Handle, c_bool),
    "ServerOptionsSetStrictReadiness": (Handle, c_bool),
    "ServerOptionsSetExitTimeout": (Handle, c_uint),
    "ServerOptionsSetBufferManagerThreadCount": (Handle, c_uint),
    "ServerOptionsSetModelLoadThreadCount": (Handle, c_uint),
    "ServerOptionsSetModelLoadRetryCount": (Handle, c_uint),
    "ServerOptionsSetModelNamespacing": (Handle, c_bool),
    "ServerOptionsSetEnablePeerAccess": (Handle, c_bool),
    "ServerOptionsSetLogFile": (Handle, c_char_p),
    "ServerOptionsSetLogInfo": (Handle, c_bool),
    "ServerOptionsSetLogWarn": (Handle, c_bool),
    "ServerOptionsSetLogError": (Handle, c_bool),
    "ServerOptionsSetLogFormat": (Handle, c_int),
    "ServerOptionsSetLogVerbose": (Handle, c_int),
    "ServerOptionsSetMetrics": (Handle, c_bool),
    "ServerOptionsSetGpuMetrics": (Handle, c_bool),
    "ServerOptionsSetCpuMetrics": (Handle, c_bool),
    "ServerOptionsSetMetricsInterval": (Handle, c_uint64),
    "ServerOptionsSetBackendDirectory": (Handle, c_char_p),
    "ServerOptionsSetRepoAgentDirectory": (Handle, c_char_p),
    "ServerOptionsSetModelLoadDeviceLimit": (Handle, c_int, c_int, c_double),
    "ServerOptionsSetBackendConfig": (Handle, c_char_p, c_char_p, c_char_p),
    "ServerOptionsSetHostPolicy": (Handle, c_char_p, c_char_p, c_char_p),
    "ServerOptionsSetMetricsConfig": (Handle, c_char_p, c_char_p, c_char_p),
}

BLOCKING: dict[str, tuple[object, ...]] = {
    "InferenceRequestNew": (_Out, Handle, c_char_p, c_int64),
    "InferenceRequestCancel": (Handle,),
    "InferenceResponseDelete": (Handle,),
    "MetricsFormatted": (Handle, c_int, _Text, POINTER(c_size_t)),
    "ServerNew": (_Out, Handle),
    "ServerDelete": (Handle,),
    "ServerStop": (Handle,),
    "ServerRegisterModelRepository": (Handle, c_char_p, POINTER(Handle), c_uint32),
    "ServerUnregisterModelRepository": (Handle, c_char_p),
    "ServerPollModelRepository": (Handle,),
    "ServerIsLive": (Handle, POINTER(c_bool)),
    "ServerIsReady": (Handle, POINTER(c_bool)),
    "ServerModelIsReady": (Handle, c_char_p, c_int64, POINTER(c_bool)),
    "ServerModelBatchProperties": (Handle, c_char_p, c_int64, POINTER(c_uint32), POINTER(c_void_p)),
    "ServerModelTransactionProperties": (Handle, c_char_p, c_int64, POINTER(c_uint32), POINTER(c_void_p)),
    "ServerMetadata": (Handle, _Out),
    "ServerModelMetadata": (Handle, c_char_p, c_int64, _Out),
    "ServerModelStatistics": (Handle, c_char_p, c_int64, _Out),
    "ServerModelConfig": (Handle, c_char_p, c_int64, c_uint32, _Out),
    "ServerModelIndex": (Handle, c_uint32, _Out),
    "ServerLoadModel": (Handle, c_char_p),
    "ServerLoadModelWithParameters": (Handle, c_char_p, POINTER(Handle), c_uint64),
    "ServerUnloadModel": (Handle, c_char_p),
    "ServerUnloadModelAndDependents": (Handle, c_char_p),
    "ServerMetrics": (Handle, _Out),
    "ServerInferAsync": (Handle, Handle, Handle),
}
