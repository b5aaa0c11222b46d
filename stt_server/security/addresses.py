"""Where a call comes from, as far as it can be believed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

from stt_server.config.values import Network

_UNIX = "unix"
_UNKNOWN = "unknown"
_WITH_PORT = re.compile(r"(?P<bare>[0-9.]+)(:[0-9]+)?|\[(?P<bracketed>[^\]]*)\](:[0-9]+)?")
_IPV6_PREFIX = 64
"""What one IPv6 subscriber has at least (RFC 6177): limiting single addresses would limit nobody."""


def client_address(peer: str, forwarded_for: str | None, trusted: Iterable[Network]) -> str:
    """The client whose address a rate limit counts: an IPv4 address, or the /64 network of an IPv6 address.

    Starts at the peer. As long as whoever said so is trusted, the rightmost address of `forwarded_for` not read yet is
    believed; what stands left of the first address that isn't trusted is the caller's own invention.

    Args:
        peer: as `grpc.ServicerContext.peer()` has it: `ipv4:1.2.3.4:567`, `ipv6:%5B::1%5D:567`, `unix:` (trusted).
        forwarded_for: X-Forwarded-For; where there are several, joined with commas in their order.
        trusted: the proxies that are believed.

    Returns:
        `"1.2.3.4"`, `"2001:db8:1:2::/64"`, `"::1"`; `"unix"` for a unix peer that forwarded nothing readable;
        `"unknown"` for a peer of another kind.
    """
    proxies = tuple(trusted)
    hop = _peer_host(peer)
    for entry in reversed((forwarded_for or "").split(",")):
        if hop != _UNIX and not _is_in(hop, proxies):
            break
        address = _parse(entry)
        if address is None:
            # Nobody can tell who that is. The last hop that is known answers for it.
            break
        hop = address
    return _bucket(hop)


def _peer_host(peer: str) -> IPv4Address | IPv6Address | str:
    """The peer's address, or `"unix"`, or `"unknown"` for what can't be read."""
    kind, _, rest = peer.partition(":")
    if kind in ("unix", "unix-abstract"):
        return _UNIX
    if kind not in ("ipv4", "ipv6"):
        return _UNKNOWN
    return _parse(unquote(rest)) or _UNKNOWN


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address with or without port and brackets; None for anything else."""
    text = text.strip().strip('"')
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match["bare"] or match["bracketed"]) if match else text)
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 clients as ::ffff:1.2.3.4.
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(hop: IPv4Address | IPv6Address | str, proxies: tuple[Network, ...]) -> bool:
    return not isinstance(hop, str) and any(hop in network for network in proxies)


def _bucket(hop: IPv4Address | IPv6Address | str) -> str:
    if isinstance(hop, IPv6Address) and not hop.is_loopback:
        return str(IPv6Network((int(hop), _IPV6_PREFIX), strict=False))
    return str(hop)
