"""Users of a NATS server that trusts an operator's key instead of keeping passwords: JWTs, and ``.creds`` files.

An operator signs accounts and an account signs users, each in a JSON web token of nkeys' own algorithm; the server
knows the operator and the accounts, and a user brings its token along and signs what the server asks it to.
"""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nkeys

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_VERSION = 2
_UNLIMITED = -1
_CONNECTION = dict.fromkeys(("subs", "data", "payload"), _UNLIMITED)
_ACCOUNT = dict.fromkeys(("conn", "leaf", "imports", "exports"), _UNLIMITED) | {"wildcards": True}
_JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), _UNLIMITED)


class Key:
    """A fresh key pair of one kind: `nkeys.PREFIX_BYTE_OPERATOR`, ``…_ACCOUNT`` or ``…_USER``."""

    def __init__(self, kind: int) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), kind).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self._pair.public_key.decode()

    def token(self, subject: Key, name: str, claims: dict[str, Any], expires: float | None = None) -> str:
        """A JWT about ``subject``, signed by this key; ``expires`` is a Unix time."""
        body = {"jti": os.urandom(16).hex(), "iat": int(time.time()), "iss": self.public, "sub": subject.public}
        body |= {"name": name, "nats": {**claims, "version": _VERSION}}
        body |= {} if expires is None else {"exp": int(expires)}
        signed = f"{_part(json.dumps(_HEADER).encode())}.{_part(json.dumps(body).encode())}"
        return f"{signed}.{_part(self._pair.sign(signed.encode()))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Account:
    """An account, and who signs its users."""

    key: Key = field(default_factory=lambda: Key(nkeys.PREFIX_BYTE_ACCOUNT))

    def token(self, operator: Key, name: str, *, jetstream: bool) -> str:
        """What the server is told about the account."""
        limits = _CONNECTION | _ACCOUNT | (_JETSTREAM if jetstream else {})
        return operator.token(self.key, name, {"type": "account", "limits": limits})

    def credentials(
        self, path: Path, *, seed: str | None = None, expires: float | None = None, **permissions: Any
    ) -> Path:
        """Write a ``.creds`` file of a new user.

        Args:
            path: where to.
            seed: of another key than the one that the token is about.
            expires: Unix time at which the token ends.
            permissions: ``pub`` and ``sub``, each with ``allow`` or ``deny``.
        """
        user = Key(nkeys.PREFIX_BYTE_USER)
        claims = {"type": "user", "pub": {}, "sub": {}, **_CONNECTION, **permissions}
        token = self.key.token(user, path.stem, claims, expires)
        parts = (("NATS USER JWT", token), ("USER NKEY SEED", seed or user.seed))
        path.write_text("".join(f"-----BEGIN {what}-----\n{text}\n------END {what}------\n\n" for what, text in parts))
        return path


class Operator:
    """Who is trusted by a server, with one account for tests and the system's.

    Attributes:
        account: whose users may use JetStream.
    """

    def __init__(self) -> None:
        self._key = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self._system = Account()
        self.account = Account()

    def server_configuration(self) -> str:
        """What makes a server trust it, for `NatsServerConfig.extra`."""
        system = self._system.key.public
        trusted = self._key.token(self._key, "tests", {"type": "operator", "system_account": system})
        accounts = {
            system: self._system.token(self._key, "SYS", jetstream=False),
            self.account.key.public: self.account.token(self._key, "tests", jetstream=True),
        }
        known = "\n".join(f"  {public}: {token}" for public, token in accounts.items())
        return f"operator: {trusted}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload {{\n{known}\n}}"
