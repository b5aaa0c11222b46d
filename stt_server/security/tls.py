"""TLS from the configured PEM files, for the servers and for the primary's channel to its fallback."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from stt_server.config import ConfigError, FileChangedError, Settings

Read = Callable[[Path], bytes]


@dataclass(frozen=True)
class ServerPems:
    """A server's certificate and key, and the authorities of its clients."""

    certificate: bytes
    """Certificate chain."""
    key: bytes = field(repr=False)
    authorities: bytes | None
    """Clients must present a certificate signed by one of these; None: no client certificate needed."""


@dataclass(frozen=True)
class ChannelPems:
    """A channel's trusted authorities and client certificate."""

    authorities: bytes | None
    """None: gRPC's default list of public authorities."""
    certificate: bytes | None
    """None: no client certificate."""
    key: bytes | None = field(repr=False)

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)


def server_pems(settings: Settings, read: Read = Path.read_bytes) -> ServerPems | None:
    """Read TLS_CERT, TLS_KEY and TLS_CLIENT_CA; None: TLS is off.

    Raises:
        ConfigError: a file is unreadable or not PEM, or the key doesn't match the certificate.
        FileChangedError: a file was replaced after `read` returned it.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificate, key = _key_pair(settings.tls_cert, "TLS_CERT", settings.tls_key, "TLS_KEY", read)
    authorities = None
    if settings.tls_client_ca is not None:
        authorities = _certificates(settings.tls_client_ca, "TLS_CLIENT_CA", read)
    return ServerPems(certificate, key, authorities)


def channel_pems(settings: Settings, read: Read = Path.read_bytes) -> ChannelPems | None:
    """Read FALLBACK_CA, FALLBACK_CERT and FALLBACK_KEY; None: the fallback is called without TLS.

    Raises:
        ConfigError: as `server_pems` does.
    """
    if settings.fallback is None or not settings.fallback.tls:
        return None
    authorities = None if settings.fallback_ca is None else _certificates(settings.fallback_ca, "FALLBACK_CA", read)
    certificate = key = None
    if settings.fallback_cert is not None and settings.fallback_key is not None:
        paths = (settings.fallback_cert, "FALLBACK_CERT", settings.fallback_key, "FALLBACK_KEY")
        certificate, key = _key_pair(*paths, read)
    return ChannelPems(authorities, certificate, key)


class ServerCertificate:
    """The certificate of a gRPC server, replaceable while it runs. Open connections keep the one they started with."""

    def __init__(self, pems: ServerPems) -> None:
        self.pems = pems
        self._passed_to_grpc = pems

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials of one port, which follow `renew`."""
        initial, needs_client_certificate = _configuration(self.pems), self.pems.authorities is not None
        return grpc.dynamic_ssl_server_credentials(
            initial,
            self._fetch,  # type: ignore[arg-type]  # the stubs don't allow None, which gRPC does
            needs_client_certificate,
        )

    def renew(self, pems: ServerPems) -> None:
        """Use `pems` from the next handshake on. Whether clients need a certificate doesn't change."""
        self.pems = pems

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """New configuration, or None if unchanged. gRPC calls this at each handshake, from its own thread."""
        pems = self.pems
        if pems is self._passed_to_grpc:
            return None
        self._passed_to_grpc = pems
        return _configuration(pems)


def _configuration(pems: ServerPems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], pems.authorities)


def _key_pair(cert_path: Path, cert_name: str, key_path: Path, key_name: str, read: Read) -> tuple[bytes, bytes]:
    """Read and check a certificate chain and its key. gRPC itself reports problems only later and without the file."""
    certificate = _certificates(cert_path, cert_name, read)
    key = _read(key_path, key_name, read)
    try:
        # Without a password function, OpenSSL prompts for an encrypted key's password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path, password=lambda: b"")
        fits = True
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        fits = False
    # OpenSSL reads from paths only, so the pair that it checked may be newer than the bytes read above.
    if (certificate, key) != (_read(cert_path, cert_name, Path.read_bytes), _read(key_path, key_name, Path.read_bytes)):
        raise FileChangedError(str(key_path), f"changed while it was read, or {cert_name} did; retry", key=key_name)
    if not fits:
        problem = f"is not the private key of {cert_name} (PEM without a password expected)"
        raise ConfigError(str(key_path), problem, key=key_name)
    return certificate, key


def _certificates(path: Path, name: str, read: Read) -> bytes:
    data = _read(path, name, read)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (OSError, ValueError):
        raise ConfigError(str(path), "contains no PEM certificate", key=name) from None
    return data


def _read(path: Path, name: str, read: Read) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise ConfigError(str(path), f"can't be read: {error.strerror}", key=name) from None
