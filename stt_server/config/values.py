"""Structured values of configuration keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

Role = Literal["primary", "fallback"]
"""A service of the pair."""

Network = IPv4Network | IPv6Network
"""A single address is a /32 or /128 network."""


@dataclass(frozen=True)
class ApiKey:
    """API key accepted as a Bearer token. `repr` shows its name only."""

    name: str
    """Name in logs and metrics: letters, digits, `.`, `_`, `-`."""
    key: str = field(repr=False)
    """Secret: printable ASCII without spaces."""


@dataclass(frozen=True)
class FallbackTarget:
    """Address of the fallback."""

    target: str
    """gRPC target, such as `dns:///stt-fallback:50052`."""
    tls: bool
    """Whether to use TLS."""
