"""The gateway as a service sees it. The entry points bring the implementation, which the service may not import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stt_server.config import Settings


class Gateway(Protocol):
    """The HTTP server in front of a service, in the same process."""

    @property
    def port(self) -> int: ...

    @property
    def wyoming_port(self) -> int | None:
        """None: without the Wyoming protocol."""
        ...

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...

    def announce_shutdown(self) -> None:
        """Close each connection after its current response, so that clients connect elsewhere."""
        ...

    def use_wyoming_key(self, api_key: str) -> None:
        """Make the calls of the Wyoming protocol with another key."""
        ...

    def renew_certificate(self) -> None:
        """Load the TLS files again. Raises OSError and keeps the old ones if they can't be used."""
        ...


MakeGateway = Callable[[str, Settings], Gateway]
"""Makes the gateway in front of a gRPC target."""
