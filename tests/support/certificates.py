"""Certificates for tests, made with the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


def authority(folder: Path, name: str) -> Pair:
    """Make a certificate authority."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    files = ("-keyout", str(pair.key), "-out", str(pair.cert))
    _openssl("req", "-x509", *_NEW_KEY, *files, "-days", "2", "-subj", f"/CN={name}")
    return pair


def signed(
    folder: Path, name: str, by: Pair, *, names: str = "DNS:localhost,IP:127.0.0.1", expired: bool = False
) -> Pair:
    """Make a certificate for `names`, for servers and clients."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    _openssl("req", *_NEW_KEY, "-keyout", str(pair.key), "-out", str(request), "-subj", f"/CN={name}")
    extensions.write_text(f"subjectAltName={names}\n")
    files = ("-in", str(request), "-out", str(pair.cert), "-extfile", str(extensions))
    signer = ("-CA", str(by.cert), "-CAkey", str(by.key), "-CAcreateserial")
    # A negative number of days makes a certificate that has expired.
    days = "-1" if expired else "2"
    _openssl("x509", "-req", *files, *signer, "-days", days)
    return pair


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
