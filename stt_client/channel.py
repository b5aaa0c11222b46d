"""How the client connects: targets, TLS, and the channel options with their one declared retry."""

from __future__ import annotations

import re
from dataclasses import dataclass

import grpc
import grpc.aio

from protos.stt.v1 import wire

DEFAULT_PORT = 50051
MIB = 1024 * 1024
MAX_MESSAGE_BYTES = 64 * MIB

MAX_BACKOFF_S = 2
"""Longest wait before the retry, and before a reconnection attempt. Seconds."""

_RESOLVER_SCHEMES = ("dns:", "unix:", "unix-abstract:", "vsock:", "ipv4:", "ipv6:", "xds:", "passthrough:")
_SEVERAL = ("dns:", "ipv4:", "ipv6:")
"""Targets that can name several addresses."""
_OURS = re.compile(r"^(?:(?P<scheme>grpcs?)://)?(?P<host>\[[^\]/]+\]|[^\[\]:/?#@\s]+)(?::(?P<port>\d{1,5}))?/?$")


@dataclass(frozen=True)
class Tls:
    """PEM bytes of a TLS connection."""

    ca: bytes | None = None
    """Roots that the server's certificate must lead to; None: the machine's own."""
    cert: bytes | None = None
    """The client's certificate, where the server asks for one (mTLS); needs `key`."""
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC makes of it.

        Raises:
            ValueError: one of `cert` and `key` is missing.
        """
        if (self.cert is None) != (self.key is None):
            raise ValueError("TLS takes a client certificate and its key together; one of them is missing")
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


@dataclass(frozen=True)
class Target:
    """Where a service is."""

    address: str
    """As gRPC takes it: `host:port`, `dns:///name:port`, `unix:/path`, ..."""
    secure: bool | None
    """What the scheme says about TLS; None where it says nothing."""


def parse_target(text: str) -> Target:
    """Reads `host:port`, `grpc://host:port`, `grpcs://host:port` (TLS), or any target of gRPC's own.

    A host without a port is taken to mean port 50051.

    Raises:
        ValueError: it is none of these; the message says what to write.
    """
    text = text.strip()
    if text.startswith(_RESOLVER_SCHEMES):
        return Target(text, None)
    if text.lower().startswith(("http://", "https://")):
        plain = "grpcs://" if text.lower().startswith("https") else "grpc://"
        raise ValueError(f"{text}: the service speaks gRPC; write {plain}HOST:PORT, such as {plain}localhost:50051")
    match = _OURS.match(text)
    port = int((match and match["port"]) or DEFAULT_PORT)
    if match is None or not 0 < port < 65536:
        raise ValueError(f"{text!r} is no address; write HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT or unix:/PATH")
    secure = {"grpc": False, "grpcs": True}.get(match["scheme"] or "")
    return Target(f"{match['host']}:{port}", secure)


def channel_options(address: str, max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, str | int]]:
    """The options of every channel.

    Args:
        address: the target as gRPC takes it.
        max_message_bytes: largest message to send or to receive.
    """
    balance = address.startswith(_SEVERAL)
    return [
        *wire.channel_options(max_message_bytes, max_backoff_s=MAX_BACKOFF_S, balance=balance),
        # Ours, not one that somebody put into DNS.
        ("grpc.service_config_disable_resolution", 1),
        # A health watch is silent for hours; it must still notice that its peer is gone.
        ("grpc.http2.max_pings_without_data", 0),
    ]


def resolve(target: str, tls: Tls | None) -> tuple[str, grpc.ChannelCredentials | None]:
    """The address as gRPC takes it, and the credentials; None for plain text.

    Raises:
        ValueError: no such kind of target, or TLS settings that don't go together.
    """
    found = parse_target(target)
    if tls is not None and found.secure is False:
        raise ValueError(f"{target}: grpc:// is plain text, yet TLS settings were given; write grpcs://")
    if tls is None and not found.secure:
        return found.address, None
    return found.address, (tls or Tls()).credentials()


def open_channel(target: str, tls: Tls | None, max_message_bytes: int) -> grpc.aio.Channel:
    """A channel to `target`; it connects on its first call. To be called in the event loop that will use it.

    Raises:
        ValueError: see `resolve`.
    """
    address, credentials = resolve(target, tls)
    options = channel_options(address, max_message_bytes)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)
