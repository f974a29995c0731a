"""Certificates for tests, made with openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SECONDS = 60


class Authority:
    """Signs certificates for this machine.

    Args:
        directory: where the files go.

    Attributes:
        certificate: what to trust.
    """

    def __init__(self, directory: Path) -> None:
        found = shutil.which("openssl")
        assert found, "these tests make certificates with openssl"
        self._openssl = found
        self._directory = directory
        self.certificate, self._key = directory / "ca.pem", directory / "ca-key.pem"
        made = ("-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", self._key, "-out", self.certificate)
        self._run("req", "-newkey", "rsa:2048", "-nodes", *made)

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key: ``<name>-cert.pem`` and ``<name>-key.pem``."""
        certificate, key, asked, extensions = (
            self._directory / f"{name}{suffix}" for suffix in ("-cert.pem", "-key.pem", ".csr", ".ext")
        )
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._run("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", asked)
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        self._run("x509", "-req", "-in", asked, *signer, "-extfile", extensions, "-out", certificate)
        return certificate, key

    def _run(self, *arguments: object) -> None:
        command = [self._openssl, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
