"""What both ends of the wire share beyond speech.proto: metadata, request ids, channel options, the ready line.

Knows no gRPC: names are strings, options are pairs.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

SPEECH_SERVICE = "stt.v1.SpeechToText"
OPERATIONS_SERVICE = "stt.v1.Operations"

# Metadata of requests.
AUTHORIZATION = "authorization"
"""`Bearer KEY`."""
X_FORWARDED_FOR = "x-forwarded-for"
X_REQ_ID = "x-req-id"
"""In requests and in trailing metadata."""

# Trailing metadata of errors.
X_ERROR_TYPE = "x-error-type"
X_ERROR_MESSAGE = "x-error-message"
RETRY_AFTER_MS = "retry-after-ms"
GRPC_STATUS_DETAILS = "grpc-status-details-bin"
"""A serialized `google.rpc.Status` with `ErrorInfo`; `RetryInfo` where retrying helps; `BadRequest` where a field of
the request is invalid."""
GRPC_RETRY_PUSHBACK = "grpc-retry-pushback-ms"
"""-1 keeps the caller's gRPC library from retrying by itself."""

# Trailing metadata of `Transcribe`.
X_QUEUE_WAIT_MS = "x-queue-wait-ms"
X_PRIMARY_INFER_MS = "x-primary-infer-ms"
X_FALLBACK_INFER_MS = "x-fallback-infer-ms"
X_TOTAL_MS = "x-total-ms"
X_FALLBACK_USED = "x-fallback-used"
X_CONF_BELOW = "x-conf-below"
X_LANG_CHECK_APPLICABLE = "x-lang-check-applicable"
X_FINAL_MODEL = "x-final-model"
X_ROUTE_REASON = "x-route-reason"
X_FALLBACK_ERROR = "x-fallback-error"

TRAILER_HEADERS: Mapping[str, str] = {
    X_QUEUE_WAIT_MS: "X-Queue-Wait-ms",
    X_PRIMARY_INFER_MS: "X-Primary-Infer-ms",
    X_FALLBACK_INFER_MS: "X-Fallback-Infer-ms",
    X_TOTAL_MS: "X-Total-ms",
    X_FALLBACK_USED: "X-Fallback-Used",
    X_CONF_BELOW: "X-Conf-Below",
    X_LANG_CHECK_APPLICABLE: "X-Lang-Check-Applicable",
    X_FINAL_MODEL: "X-Final-Model",
    X_ROUTE_REASON: "X-Route-Reason",
    X_FALLBACK_ERROR: "X-Fallback-Error",
}
"""Trailing metadata of `Transcribe`, and the HTTP header in which the gateway repeats each value."""

REQUEST_ID_PATTERN = "[A-Za-z0-9._-]{1,64}"
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)


def is_request_id(text: str) -> bool:
    """Whether `text` is usable as a request id: safe in headers, logs and file names."""
    return _REQUEST_ID.fullmatch(text) is not None


def new_request_id() -> str:
    """A random id of 32 hexadecimal digits."""
    return uuid.uuid4().hex


_READY = re.compile(
    r"ready service=(\w+)(?: grpc=(\S+:\d+))? http=(\S+:\d+|off)(?: target=(\S+))?(?: wyoming=(\S+:\d+))?"
)

_RETRY_SLACK_BYTES = 1024 * 1024
"""The retry buffer counts a message's framing as well."""

_INT32_MAX = 2**31 - 1


def service_config(*, max_backoff_s: int, balance: bool) -> str:
    """The gRPC service config (JSON): one retry of a unary call that ends with UNAVAILABLE.

    Args:
        max_backoff_s: longest wait before the retry, in seconds.
        balance: spread calls over all addresses of the target whose health is SERVING.
    """
    retry_policy = {
        "maxAttempts": 2,
        "initialBackoff": "0.2s",
        "maxBackoff": f"{max_backoff_s}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config: dict[str, object] = {
        "methodConfig": [
            {"name": [{"service": SPEECH_SERVICE}], "retryPolicy": retry_policy},
            # No retry policy: gRPC would buffer the whole stream. The client's `resume` resends what is needed.
            {"name": [{"service": SPEECH_SERVICE, "method": "StreamTranscribe"}]},
        ]
    }
    if balance:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        # A server that shuts down turns NOT_SERVING before it refuses calls.
        config["healthCheckConfig"] = {"serviceName": SPEECH_SERVICE}
    return json.dumps(config)


def channel_options(max_message_bytes: int, *, max_backoff_s: int, balance: bool) -> list[tuple[str, str | int]]:
    """Options of every channel to a service.

    Args:
        max_message_bytes: largest message to send or to receive.
        max_backoff_s: longest wait before a retry or a reconnection attempt, in seconds.
        balance: as in `service_config`.
    """
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", service_config(max_backoff_s=max_backoff_s, balance=balance)),
        # By default (256 KiB) gRPC silently skips the retry of larger requests.
        ("grpc.per_rpc_retry_buffer_size", min(max_message_bytes + _RETRY_SLACK_BYTES, _INT32_MAX)),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", max_backoff_s * 1000),
        # Time limit of one connection attempt. While packets are lost the kernel resends its SYN after 1, 2, 4, ...
        # seconds, so that a longer attempt notices later that the network is back.
        ("grpc.min_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]


def host_port(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class ReadyLine:
    """The one line on standard output by which a process says that it serves.

    `ready service=primary grpc=127.0.0.1:50051 http=127.0.0.1:8081`
    """

    service: str
    """`primary`, `fallback` or `gateway`."""
    grpc: str | None = None
    """`host:port`; None for a gateway."""
    http: str | None = None
    """`host:port`; None: HTTP is off."""
    target: str | None = None
    """The service behind a gateway; None for a service."""
    wyoming: str | None = None
    """`host:port`; None: the Wyoming protocol is off, and the line doesn't name it."""

    def __str__(self) -> str:
        fields = {
            "service": self.service,
            "grpc": self.grpc,
            "http": self.http or "off",
            "target": self.target,
            "wyoming": self.wyoming,
        }
        return " ".join(["ready", *(f"{name}={value}" for name, value in fields.items() if value is not None)])

    @classmethod
    def parse(cls, line: str) -> ReadyLine:
        """Inverse of `str`. Raises ValueError if `line` is not a ready line."""
        found = _READY.fullmatch(line.strip())
        if found is None:
            raise ValueError(f"not a ready line: {line!r}")
        service, grpc, http, target, wyoming = found.groups()
        return cls(service, grpc, None if http == "off" else http, target, wyoming)

    @property
    def grpc_port(self) -> int:
        """Raises ValueError for a gateway."""
        return _port(self.grpc)

    @property
    def http_port(self) -> int:
        """Raises ValueError if HTTP is off."""
        return _port(self.http)

    @property
    def wyoming_port(self) -> int:
        """Raises ValueError if the Wyoming protocol is off."""
        return _port(self.wyoming)


def _port(address: str | None) -> int:
    if address is None:
        raise ValueError("the process has no such port")
    return int(address.rpartition(":")[2])
