"""The gateway inside a service's process."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions, HttpTls, WyomingOptions


class GatewaySettings(Protocol):
    """Settings of a service that concern its gateway; docs/configuration.md has the keys of the same names."""

    @property
    def host(self) -> str: ...

    @property
    def http_port(self) -> int | None: ...

    @property
    def wyoming_port(self) -> int | None: ...

    @property
    def wyoming_api_key(self) -> str: ...

    @property
    def cors_origins(self) -> tuple[str, ...]: ...

    @property
    def otlp_endpoint(self) -> str: ...

    @property
    def tls_cert(self) -> Path | None: ...

    @property
    def tls_key(self) -> Path | None: ...

    @property
    def tls_client_ca(self) -> Path | None: ...


def make_gateway(target: str, settings: GatewaySettings) -> GatewayServer:
    """Build the gateway of the service at `target`, with the host and port of its settings."""
    return GatewayServer(
        GatewayOptions(
            target=target,
            host=settings.host,
            port=settings.http_port or 0,
            http_tls=_http_tls(settings),
            wyoming=_wyoming(settings),
            cors_origins=settings.cors_origins,
            otlp_endpoint=settings.otlp_endpoint,
            service_logs_here=True,
        )
    )


def _wyoming(settings: GatewaySettings) -> WyomingOptions | None:
    if settings.wyoming_port is None:
        return None
    return WyomingOptions(settings.wyoming_port, settings.wyoming_api_key)


def _http_tls(settings: GatewaySettings) -> HttpTls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return HttpTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
