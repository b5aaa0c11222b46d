"""Options of a gateway."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stt_client import Tls


@dataclass(frozen=True)
class HttpTls:
    """PEM files for HTTPS."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    """If set, callers must present a certificate signed by this CA."""


@dataclass(frozen=True)
class WyomingOptions:
    """The TCP port of the Wyoming protocol, which has neither TLS nor keys of its own."""

    port: int
    """0: a free port."""
    api_key: str = field(default="", repr=False)
    """Key of the calls that it makes; empty: none."""


@dataclass(frozen=True)
class GatewayOptions:
    target: str
    """gRPC target of the service: `host:port`, `unix:/path`, `dns:///name:port`, ..."""
    host: str = "0.0.0.0"
    port: int = 8081
    """0: a free port."""
    tls: Tls | None = None
    """TLS to the service; None: plain text."""
    http_tls: HttpTls | None = None
    """TLS for callers; None: plain HTTP."""
    wyoming: WyomingOptions | None = None
    """None: the protocol is off."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call. Empty: only pages of the same origin."""
    body_timeout_s: float = 30.0
    """Longest pause in a request body, in seconds; see `uploads.BodyDeadline`."""
    default_timeout_s: float = 3600.0
    """Deadline of a transcription in seconds, unless `X-Timeout-Ms` sets a shorter one."""
    otlp_endpoint: str = ""
    """URL of a collector for spans, such as `http://collector:4317`; empty: none."""
    service_logs_here: bool = False
    """The service writes to the same log, so requests that it logs are not logged again."""
