"""References as text: ``ucp://host:port/<id>``, or ``memory://<plane>/<id>`` inside one process."""

from __future__ import annotations

import os
import re

from msgspec import Struct

from tridist.errors import InvalidArgumentError

MAX_URI_LENGTH = 512
_PATTERN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?)\]|(?P<host>[A-Za-z0-9_.-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"/(?P<id>[0-9a-f]{32})"
)
_MAX_PORT = 65535


def new_tensor_id() -> str:
    """An unguessable id: 128 random bits from the system's generator, as 32 hexadecimal digits."""
    return os.urandom(16).hex()


class TensorUri(Struct, frozen=True, gc=False):
    """A parsed reference.

    Attributes:
        scheme: which data plane serves it.
        host: the producer's host name or address (an IPv6 address without brackets).
        port: its port; None where the scheme has none.
        id: 32 hexadecimal digits that name the tensor there.
    """

    scheme: str
    host: str
    port: int | None
    id: str

    @classmethod
    def parse(cls, text: str) -> TensorUri:
        """Read a reference.

        Raises:
            InvalidArgumentError: it is not ``scheme://host[:port]/<32 hexadecimal digits>``.
        """
        match = _PATTERN.fullmatch(text) if len(text) <= MAX_URI_LENGTH else None
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port <= _MAX_PORT):
            raise InvalidArgumentError("uri", text, "is not scheme://host[:port]/<32 hexadecimal digits>")
        return cls(match["scheme"], match["ipv6"] or match["host"], port, match["id"])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}/{self.id}"
