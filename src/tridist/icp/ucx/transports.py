"""Which transports a UCX endpoint uses, asked from UCX itself.

ucxx has no call for ``ucp_ep_query``, so that one is called through ctypes on the libucp that ucxx has loaded.
Layouts are those of ``ucp.h`` 1.12 and later; ``field_mask`` and ``entry_size`` keep them valid when UCX adds fields.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

_FIELD_TRANSPORTS = 1 << 3  # UCP_EP_ATTR_FIELD_TRANSPORTS
_ENTITY_NAME_MAX = 32
_SOCKADDR_STORAGE = 128
_MAX_LANES = 32


class _TransportEntry(ctypes.Structure):
    """``ucp_transport_entry_t``."""

    _fields_ = (("transport_name", ctypes.c_char_p), ("device_name", ctypes.c_char_p))


class _Transports(ctypes.Structure):
    """``ucp_transports_t``: the caller brings the array and says how long it is."""

    _fields_ = (
        ("entries", ctypes.POINTER(_TransportEntry)),
        ("num_entries", ctypes.c_uint),
        ("entry_size", ctypes.c_size_t),
    )


class _SockaddrStorage(ctypes.Structure):
    """``struct sockaddr_storage``: only its size and alignment matter here."""

    _fields_ = (("words", ctypes.c_uint64 * (_SOCKADDR_STORAGE // 8)),)


class _EndpointAttributes(ctypes.Structure):
    """``ucp_ep_attr_t``."""

    _fields_ = (
        ("field_mask", ctypes.c_uint64),
        ("name", ctypes.c_char * _ENTITY_NAME_MAX),
        ("local_sockaddr", _SockaddrStorage),
        ("remote_sockaddr", _SockaddrStorage),
        ("transports", _Transports),
        ("user_data", ctypes.c_void_p),
    )


def endpoint_transports(endpoint: int) -> frozenset[str]:
    """Names of the transports behind an endpoint's lanes (``posix``, ``cma``, ``tcp``, ``cuda_ipc``, …).

    Args:
        endpoint: a live ``ucp_ep_h``, as an integer.

    Returns:
        The names; empty when UCX cannot tell.
    """
    entries = (_TransportEntry * _MAX_LANES)()
    attributes = _EndpointAttributes(
        field_mask=_FIELD_TRANSPORTS,
        transports=_Transports(entries, _MAX_LANES, ctypes.sizeof(_TransportEntry)),
    )
    if _libucp().ucp_ep_query(endpoint, ctypes.byref(attributes)) != 0:
        return frozenset()
    found = entries[: attributes.transports.num_entries]
    return frozenset(entry.transport_name.decode() for entry in found if entry.transport_name)


@cache
def _libucp() -> ctypes.CDLL:
    # NOLOAD: the library that ucxx uses, or none; a second copy would not know the endpoint.
    library = ctypes.CDLL("libucp.so.0", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    library.ucp_ep_query.argtypes = [ctypes.c_void_p, ctypes.POINTER(_EndpointAttributes)]
    library.ucp_ep_query.restype = ctypes.c_int8  # ucs_status_t is a packed enum
    return library
