"""How the client connects: targets, TLS, and the channel options with their one declared retry."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import grpc
import grpc.aio

DEFAULT_PORT = 50051
MIB = 1024 * 1024
MAX_MESSAGE_BYTES = 64 * MIB

# A message carries more than its audio, and the retry buffer also counts the framing.
_RETRY_SLACK_BYTES = MIB
_INT32_MAX = 2**31 - 1

_RESOLVER_SCHEMES = ("dns:", "unix:", "unix-abstract:", "vsock:", "ipv4:", "ipv6:", "xds:", "passthrough:")
_SEVERAL = ("dns:", "ipv4:", "ipv6:")
"""Targets that can name several addresses."""
_OURS = re.compile(r"^(?:(?P<scheme>grpcs?)://)?(?P<host>\[[^\]/]+\]|[^\[\]:/?#@\s]+)(?::(?P<port>\d{1,5}))?/?$")

_RETRY_POLICY = {
    "maxAttempts": 2,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


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


def service_config(address: str) -> str:
    """The gRPC service config (JSON): one retry of UNAVAILABLE, and of several addresses those in turn that serve."""
    service = "stt.v1.SpeechToText"
    config: dict[str, object] = {
        "methodConfig": [
            {"name": [{"service": service}], "retryPolicy": _RETRY_POLICY},
            # Its retry would keep all of a stream that nobody answers yet; `resume` knows better what to send again.
            {"name": [{"service": service, "method": "StreamTranscribe"}]},
        ]
    }
    if address.startswith(_SEVERAL):
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        # One that stops says so before it refuses, and is left out in time.
        config["healthCheckConfig"] = {"serviceName": service}
    return json.dumps(config)


def channel_options(address: str, max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, str | int]]:
    """The options of every channel.

    Args:
        address: the target as gRPC takes it.
        max_message_bytes: largest message to send or to receive.
    """
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", service_config(address)),
        # Ours, not one that somebody put into DNS.
        ("grpc.service_config_disable_resolution", 1),
        # gRPC quietly doesn't retry a request that is larger than this buffer (256 KiB by default).
        ("grpc.per_rpc_retry_buffer_size", min(max_message_bytes + _RETRY_SLACK_BYTES, _INT32_MAX)),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 2000),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
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
