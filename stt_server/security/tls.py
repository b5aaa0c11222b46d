"""TLS from the files that the settings name: the server's side, and the primary's side towards its fallback."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from stt_server.config import ConfigError, Settings

Read = Callable[[Path], bytes]


@dataclass(frozen=True)
class ServerPems:
    """What a server shows and asks for. Equal to another one if a handshake is."""

    certificate: bytes
    """With its chain."""
    key: bytes = field(repr=False)
    authorities: bytes | None
    """Callers must show a certificate that one of these signed; None: they need none."""


@dataclass(frozen=True)
class ChannelPems:
    """What a caller shows and asks for."""

    authorities: bytes | None
    """None: gRPC's own list of public ones."""
    certificate: bytes | None
    key: bytes | None = field(repr=False)

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC makes of it."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)


def server_pems(settings: Settings, read: Read = Path.read_bytes) -> ServerPems | None:
    """TLS_CERT, TLS_KEY and TLS_CLIENT_CA; None: without TLS.

    Raises:
        ConfigError: a file can't be read, isn't PEM, or the key isn't the certificate's.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificate, key = _key_pair(settings.tls_cert, "TLS_CERT", settings.tls_key, "TLS_KEY", read)
    authorities = None
    if settings.tls_client_ca is not None:
        authorities = _certificates(settings.tls_client_ca, "TLS_CLIENT_CA", read)
    return ServerPems(certificate, key, authorities)


def channel_pems(settings: Settings, read: Read = Path.read_bytes) -> ChannelPems | None:
    """FALLBACK_CA, FALLBACK_CERT and FALLBACK_KEY; None: the fallback is called without TLS.

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
    """What a gRPC server shows each new connection; connections that are open keep what they were made with."""

    def __init__(self, pems: ServerPems) -> None:
        self.pems = pems
        self._told: ServerPems | None = pems

    def credentials(self) -> grpc.ServerCredentials:
        """For one port."""
        first, asks = _configuration(self.pems), self.pems.authorities is not None
        # The stubs leave out that None is an answer.
        return grpc.dynamic_ssl_server_credentials(first, self._news, asks)  # type: ignore[arg-type]

    def renew(self, pems: ServerPems) -> None:
        """Shows `pems` from the next handshake on. Whether callers need a certificate stays as it was."""
        self.pems = pems

    def _news(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks at each handshake, from a thread of its own; None: nothing is new."""
        pems = self.pems
        if pems is self._told:
            return None
        self._told = pems
        return _configuration(pems)


def _configuration(pems: ServerPems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], pems.authorities)


def _key_pair(cert_path: Path, cert_name: str, key_path: Path, key_name: str, read: Read) -> tuple[bytes, bytes]:
    """A certificate chain and its key. gRPC itself says only later, and not which file, what is wrong with them."""
    certificate = _certificates(cert_path, cert_name, read)
    key = _read(key_path, key_name, read)
    try:
        # Without a password function, OpenSSL would ask for an encrypted key's password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path, password=lambda: b"")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        problem = f"is not the private key of {cert_name} in PEM without a password"
        raise ConfigError(str(key_path), problem, key=key_name) from None
    # OpenSSL reads from paths alone, so what it found to be a pair may be newer than what was read here.
    if (certificate, key) != (_read(cert_path, cert_name, Path.read_bytes), _read(key_path, key_name, Path.read_bytes)):
        raise ConfigError(str(key_path), f"was replaced, or {cert_name} was, while it was read", key=key_name)
    return certificate, key


def _certificates(path: Path, name: str, read: Read) -> bytes:
    data = _read(path, name, read)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (OSError, ValueError):
        raise ConfigError(str(path), "holds no certificate in PEM", key=name) from None
    return data


def _read(path: Path, name: str, read: Read) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise ConfigError(str(path), f"can't be read: {error.strerror}", key=name) from None
