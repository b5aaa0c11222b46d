"""TLS settings from PEM files, validated before the first connection."""

from __future__ import annotations

import ssl
from pathlib import Path

from stt_client.channel import Tls


def tls_from_files(ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """Read the files of the options `--ca`, `--cert` and `--key`; None if none is given.

    Args:
        ca: root certificates to trust; None: the system's.
        cert: the client's certificate, for mutual TLS.
        key: its private key, without a password.

    Raises:
        ValueError: a file is unreadable or not PEM, or the key doesn't belong to the certificate; names the option.
    """
    if ca is None and cert is None and key is None:
        return None
    if (cert is None) != (key is None):
        raise ValueError("--cert and --key must be given together")
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
            raise ValueError(f"{option}: {path} contains no certificate in PEM format") from None
    return data


def _check_pair(cert: Path, key: Path) -> None:
    try:
        # Without a password function, OpenSSL prompts for the password of an encrypted key on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError):  # OSError includes ssl.SSLError
        raise ValueError(f"--key: {key} is not the unencrypted private key of {cert} in PEM format") from None


def _read(option: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ValueError(f"{option}: can't read {path}: {error.strerror}") from None
