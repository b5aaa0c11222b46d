"""The values of a configuration that are more than a number or a word."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

Role = Literal["primary", "fallback"]
"""Which service of the pair."""

Network = IPv4Network | IPv6Network
"""A single address is a network of its full length (/32, /128)."""


@dataclass(frozen=True)
class ApiKey:
    """A key that callers may send as Bearer. Its `repr` holds the name alone."""

    name: str
    """For logs and metrics: letters, digits, `.`, `_`, `-`."""
    key: str = field(repr=False)
    """The secret: printable ASCII without spaces."""


@dataclass(frozen=True)
class FallbackTarget:
    """Where the primary finds its fallback."""

    target: str
    """As gRPC takes it, such as `dns:///stt-fallback:50052`."""
    tls: bool
    """Whether the channel is encrypted."""
