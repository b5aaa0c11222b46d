"""TLS from the files that the settings name: the server's side, and the primary's side towards its fallback.

Each function reads the files anew, so calling it again takes up files that were replaced.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from stt_server.config import ConfigError, Settings


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """What the server listens with, from TLS_CERT and TLS_KEY; None: without TLS.

    With TLS_CLIENT_CA, callers must show a certificate that one of its authorities signed.
    Raises ConfigError for a file that can't be read, isn't PEM, or a key that isn't the certificate's.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificate, key = _key_pair(settings.tls_cert, "TLS_CERT", settings.tls_key, "TLS_KEY")
    authorities = None
    if settings.tls_client_ca is not None:
        authorities = _certificates(settings.tls_client_ca, "TLS_CLIENT_CA")
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authorities, require_client_auth=authorities is not None
    )


def channel_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """What the primary calls its fallback with, from FALLBACK_CA, FALLBACK_CERT and FALLBACK_KEY; None: without TLS.

    Raises ConfigError as `server_credentials` does.
    """
    if settings.fallback is None or not settings.fallback.tls:
        return None
    authorities = None if settings.fallback_ca is None else _certificates(settings.fallback_ca, "FALLBACK_CA")
    certificate = key = None
    if settings.fallback_cert is not None and settings.fallback_key is not None:
        certificate, key = _key_pair(settings.fallback_cert, "FALLBACK_CERT", settings.fallback_key, "FALLBACK_KEY")
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def _key_pair(cert_path: Path, cert_name: str, key_path: Path, key_name: str) -> tuple[bytes, bytes]:
    """A certificate chain and its key. gRPC itself says only later, and not which file, what is wrong with them."""
    certificate = _certificates(cert_path, cert_name)
    key = _read(key_path, key_name)
    try:
        # Without a password function, OpenSSL would ask for an encrypted key's password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path, password=lambda: b"")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        problem = f"is not the private key of {cert_name} in PEM without a password"
        raise ConfigError(str(key_path), problem, key=key_name) from None
    return certificate, key


def _certificates(path: Path, name: str) -> bytes:
    data = _read(path, name)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (OSError, ValueError):
        raise ConfigError(str(path), "holds no certificate in PEM", key=name) from None
    return data


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), f"can't be read: {error.strerror}", key=name) from None
