"""The HTTP side of a service as the service sees it: made, and joined with it, by whoever starts both."""

from __future__ import annotations

from typing import Protocol


class Gateway(Protocol):
    """The HTTP face of a service, made by whoever starts it."""

    @property
    def port(self) -> int: ...

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...

    def announce_shutdown(self) -> None:
        """Tells callers with each answer that their next request belongs on another connection."""
        ...

    def renew_certificate(self) -> None:
        """Reads its TLS files again. Raises OSError, and goes on with what it has."""
        ...


def address_of(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
