"""What a gateway is told when it is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stt_client import Tls


@dataclass(frozen=True)
class HttpTls:
    """Certificate of the HTTP side. PEM files."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    """Set: callers must show a certificate that this CA signed."""


@dataclass(frozen=True)
class GatewayOptions:
    target: str
    """Where the service is: `host:port`, `unix:/path` or another gRPC target."""
    host: str = "0.0.0.0"
    port: int = 8081
    """0 takes a free one."""
    tls: Tls | None = None
    """TLS to the service; None: plain text."""
    http_tls: HttpTls | None = None
    """TLS for callers; None: plain HTTP."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call; empty: pages of the same origin only."""
    body_timeout_s: float = 30.0
    """Seconds that a body may stand still, and that one of a few bytes may take in all; see `body.Patience`."""
    default_timeout_s: float = 3600.0
    """Seconds that the service has for an answer unless `X-Timeout-Ms` says otherwise."""
    service_logs_here: bool = False
    """The service shares this process and its log: what it has told of there isn't told again."""
