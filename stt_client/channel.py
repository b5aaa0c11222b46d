"""Channels: targets, TLS and channel options."""

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
_BALANCED = ("dns:", "ipv4:", "ipv6:")
"""Targets that may resolve to several addresses."""
_HOST_PORT = re.compile(r"^(?:(?P<scheme>grpcs?)://)?(?P<host>\[[^\]/]+\]|[^\[\]:/?#@\s]+)(?::(?P<port>\d{1,5}))?/?$")


@dataclass(frozen=True)
class Tls:
    """TLS settings: bytes in PEM format."""

    ca: bytes | None = None
    """Root certificates to trust; None: the system's."""
    cert: bytes | None = None
    """The client's certificate, for mutual TLS; requires `key`."""
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Channel credentials with these settings.

        Raises:
            ValueError: `cert` without `key`, or the reverse.
        """
        if (self.cert is None) != (self.key is None):
            raise ValueError("TLS client certificate and key must be given together; one of them is missing")
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


@dataclass(frozen=True)
class Target:
    """Address of a service."""

    address: str
    """gRPC target: `host:port`, `dns:///name:port`, `unix:/path`, ..."""
    secure: bool | None
    """Whether the scheme requires TLS; None if it doesn't say."""


def parse_target(text: str) -> Target:
    """Parse `host:port`, `grpc://host:port`, `grpcs://host:port` (TLS), or any gRPC target. The default port is 50051.

    Raises:
        ValueError: `text` is none of these.
    """
    text = text.strip()
    if text.startswith(_RESOLVER_SCHEMES):
        return Target(text, None)
    if text.lower().startswith(("http://", "https://")):
        plain = "grpcs://" if text.lower().startswith("https") else "grpc://"
        raise ValueError(
            f"{text}: HTTP address of a gRPC service; write {plain}HOST:PORT, such as {plain}localhost:50051"
        )
    match = _HOST_PORT.match(text)
    port = int((match and match["port"]) or DEFAULT_PORT)
    if match is None or not 0 < port < 65536:
        raise ValueError(
            f"{text!r}: invalid address; write HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT or unix:/PATH"
        )
    secure = {"grpc": False, "grpcs": True}.get(match["scheme"] or "")
    return Target(f"{match['host']}:{port}", secure)


def channel_options(address: str, max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, str | int]]:
    """Options of every channel of the client.

    Args:
        address: gRPC target.
        max_message_bytes: largest message to send or to receive.
    """
    balance = address.startswith(_BALANCED)
    return [
        *wire.channel_options(max_message_bytes, max_backoff_s=MAX_BACKOFF_S, balance=balance),
        # Ignore service configs in DNS TXT records.
        ("grpc.service_config_disable_resolution", 1),
        # A health watch may be idle for hours; keepalive pings still detect a dead peer.
        ("grpc.http2.max_pings_without_data", 0),
    ]


def resolve(target: str, tls: Tls | None) -> tuple[str, grpc.ChannelCredentials | None]:
    """Resolve a target to its gRPC address and credentials; None for plain text.

    Raises:
        ValueError: invalid target, or TLS settings that contradict it or each other.
    """
    found = parse_target(target)
    if tls is not None and found.secure is False:
        raise ValueError(f"{target}: grpc:// is plain text but TLS settings were given; write grpcs://")
    if tls is None and not found.secure:
        return found.address, None
    return found.address, (tls or Tls()).credentials()


def open_channel(target: str, tls: Tls | None, max_message_bytes: int) -> grpc.aio.Channel:
    """Create a channel to `target`, which connects on its first call. Call it in the event loop that uses the channel.

    Raises:
        ValueError: see `resolve`.
    """
    address, credentials = resolve(target, tls)
    options = channel_options(address, max_message_bytes)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)
