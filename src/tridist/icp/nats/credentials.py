"""``.creds`` files: a user's token (a JWT), and the seed of the key that it is about."""

from __future__ import annotations

import re
from pathlib import Path

from tridist.errors import ConfigurationError

_TOKEN = re.compile(rb"-BEGIN NATS USER JWT-+\s+([\w.-]+)(?!\S)")
_SEED = re.compile(rb"-BEGIN USER NKEY SEED-+\s+(SU[A-Z2-7]{56})(?!\S)")
"""A user's seed: two bytes of kind, 32 of the key and two of a checksum, in base32."""


def check_credentials(path: Path) -> None:
    """Look whether a file can be used before it is.

    Raises:
        ConfigurationError: it cannot be read, or holds no token or no seed. The error repeats nothing of what it holds.
    """
    try:
        read_token(path)
        read_seed(path)
    except OSError as error:
        raise ConfigurationError("credentials_file", str(path), str(error)) from error


def read_token(path: Path) -> bytearray:
    """The token.

    Raises:
        OSError: the file cannot be read, or holds none.
    """
    return _part(path, _TOKEN, "token below BEGIN NATS USER JWT")


def read_seed(path: Path) -> bytearray:
    """The seed.

    Raises:
        OSError: the file cannot be read, or holds none.
    """
    return _part(path, _SEED, "user's seed below BEGIN USER NKEY SEED")


def _part(path: Path, pattern: re.Pattern[bytes], what: str) -> bytearray:
    found = pattern.search(path.read_bytes())
    if found is None:
        raise OSError(f"holds no {what}")
    return bytearray(found[1])
