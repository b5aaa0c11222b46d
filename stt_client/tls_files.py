"""TLS settings from the PEM files that a command is given, checked before anything connects with them."""

from __future__ import annotations

import ssl
from pathlib import Path

from stt_client.channel import Tls


def tls_from_files(ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """What the files of the options `--ca`, `--cert` and `--key` hold; None where none is given.

    Args:
        ca: roots to trust; None: the machine's own.
        cert: the client's certificate, for a service that asks for one.
        key: its key, without a password.

    Raises:
        ValueError: a file can't be read or isn't PEM, or the key isn't the certificate's; one line that names it.
    """
    if ca is None and cert is None and key is None:
        return None
    if (cert is None) != (key is None):
        raise ValueError("--cert and --key go together")
    tls = Tls(_certificates("--ca", ca), _certificates("--cert", cert), _read("--key", key))
    if cert is not None and key is not None:
        _check_pair(cert, key)
    return tls


def _certificates(option: str, path: Path | None) -> bytes | None:
    data = _read(option, path)
    if data is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise ValueError(f"{option}: {path} holds no certificate in PEM") from None
    return data


def _check_pair(cert: Path, key: Path) -> None:
    try:
        # Without a password function, OpenSSL would ask for an encrypted key's password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise ValueError(f"--key: {key} is not the private key of {cert} in PEM without a password") from None


def _read(option: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ValueError(f"{option}: can't read {path}: {error.strerror}") from None
