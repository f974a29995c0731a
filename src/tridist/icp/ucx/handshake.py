"""How two peers greet: both prove that they know the secret before UCX sees a byte of the other.

    consumer -> producer   HELLO  nonce c
    consumer <- producer   HELLO  nonce p
    consumer -> producer   PROOF  address a, HMAC(secret, "consumer", c, p, a)
    consumer <- producer   PROOF  address b, HMAC(secret, "producer", c, p, b, a)

The nonces are random and used once, so a greeting that was overheard is worth nothing later. The roles are part of what
is proved, so a proof cannot be sent back to whoever made it. So are the addresses, so nobody between the two can put in
one of their own. The one who connects proves itself first: a stranger who connects to us learns nothing to guess the
secret from, and makes us allocate nothing.

Without a secret the key is empty. Then the proofs say only that no byte of an address has changed on its way: UCX ends
the process over an address that is none.

What the handshake does not do is in docs/security.md.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
from enum import Enum

from tridist.icp.ucx.config import SECRET_VARIABLE
from tridist.icp.ucx.control import NONCE_SIZE, PROTOCOL_VERSION, Hello, Proof, Reason

_PURPOSE = b"tridist data plane"
_LENGTH = struct.Struct("<I")

_THEIRS = {
    Reason.SECRET_WANTED: f"the peer wants a secret, and none is set here ({SECRET_VARIABLE})",
    Reason.SECRET_UNWANTED: f"the peer has no secret, and one is set here ({SECRET_VARIABLE})",
    Reason.SECRET_DIFFERS: f"the peer wants another secret ({SECRET_VARIABLE})",
    Reason.BUSY: "the peer is connected to as many others as it may be",
}
_OURS = {
    Reason.SECRET_WANTED: "it has no secret",
    Reason.SECRET_UNWANTED: f"it has a secret, and none is set here ({SECRET_VARIABLE})",
    Reason.SECRET_DIFFERS: "it has another secret",
    Reason.BUSY: "too many are connected",
}


class Role(Enum):
    """Who made the connection (the consumer), and who took it."""

    CONSUMER = b"consumer"
    PRODUCER = b"producer"

    @property
    def other(self) -> Role:
        """The peer's."""
        return Role.PRODUCER if self is Role.CONSUMER else Role.CONSUMER


class RefusedError(Exception):
    """A peer must not be let in.

    Attributes:
        reason: why.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(_OURS[reason])
        self.reason = reason


def refused_by_peer(reason: Reason) -> str:
    """What a refusal means for the one who gets it, for people."""
    return _THEIRS[reason]


class Handshake:
    """One side's part of a greeting; it knows no sockets.

    Args:
        role: which side.
        secret: what peers share, or None.

    Attributes:
        hello: the frame to begin with.
    """

    def __init__(self, role: Role, secret: str | None) -> None:
        self.hello = Hello(secrets.token_bytes(NONCE_SIZE), secret is not None, f"{socket.gethostname()}/{os.getpid()}")
        self._role = role
        # Environment variables that are not UTF-8 come with surrogates in them.
        self._key = b"" if secret is None else secret.encode(errors="surrogatepass")
        self._peer: Hello | None = None

    def meet(self, hello: Hello) -> None:
        """Take the peer's hello.

        Raises:
            RefusedError: one of the two has a secret and the other has none.
        """
        if hello.keyed != self.hello.keyed:
            raise RefusedError(Reason.SECRET_WANTED if self.hello.keyed else Reason.SECRET_UNWANTED)
        self._peer = hello

    def prove(self, address: bytes, peers_address: bytes = b"") -> Proof:
        """This side's proof; the producer names the consumer's address as well, which it knows by then."""
        return Proof(address, self._mac(self._role, address, peers_address))

    def verify(self, proof: Proof, own_address: bytes = b"") -> bytes:
        """The peer's address, once it is known to be from somebody who knows the secret.

        Raises:
            RefusedError: it is not.
        """
        if not hmac.compare_digest(proof.mac, self._mac(self._role.other, proof.address, own_address)):
            raise RefusedError(Reason.SECRET_DIFFERS)
        return proof.address

    def _mac(self, role: Role, *addresses: bytes) -> bytes:
        assert self._peer is not None  # noqa: S101 (frames come in order; for the type checker)
        nonces = (self.hello.nonce, self._peer.nonce)
        parts = (_PURPOSE, bytes((PROTOCOL_VERSION,)), role.value, *self._in_order(nonces), *addresses)
        # Each part with its length, so that no two lists of parts read alike.
        return hmac.digest(self._key, b"".join(_LENGTH.pack(len(part)) + part for part in parts), "sha256")

    def _in_order(self, ours_theirs: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        ours, theirs = ours_theirs
        return (ours, theirs) if self._role is Role.CONSUMER else (theirs, ours)
