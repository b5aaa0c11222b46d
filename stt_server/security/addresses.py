"""The client address of a call, from its peer and the X-Forwarded-For of trusted proxies."""

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
"""Prefix length of the network counted as one client. A subscriber has at least a /64 (RFC 6177), so that a limit per
address would have no effect."""


def client_address(peer: str, forwarded_for: str | None, trusted: Iterable[Network]) -> str:
    """The client that a rate limit counts: an IPv4 address, or the /64 network of an IPv6 address.

    Walks from the peer through `forwarded_for`, right to left, as long as the current hop is a trusted proxy. Entries
    left of the first untrusted hop are ignored: the client can forge them.

    Args:
        peer: as returned by `grpc.ServicerContext.peer()`: `ipv4:1.2.3.4:567`, `ipv6:%5B::1%5D:567`, or `unix:`, which
            is always trusted.
        forwarded_for: X-Forwarded-For; several headers are joined with commas, in order.
        trusted: networks of the trusted proxies.

    Returns:
        `"1.2.3.4"`, `"2001:db8:1:2::/64"`, `"::1"`; `"unix"` for a Unix socket without a readable forwarded address;
        `"unknown"` for any other kind of peer.
    """
    proxies = tuple(trusted)
    hop = _peer_host(peer)
    for entry in reversed((forwarded_for or "").split(",")):
        if hop != _UNIX and not _is_in(hop, proxies):
            break
        address = _parse(entry)
        if address is None:
            break  # unreadable entry: the last known hop counts
        hop = address
    return _bucket(hop)


def is_trusted(peer: str, trusted: Iterable[Network]) -> bool:
    """Whether a peer is a trusted proxy; arguments as of `client_address`."""
    hop = _peer_host(peer)
    return hop == _UNIX or _is_in(hop, tuple(trusted))


def _peer_host(peer: str) -> IPv4Address | IPv6Address | str:
    """The peer's address, `"unix"`, or `"unknown"` if it can't be parsed."""
    kind, _, rest = peer.partition(":")
    if kind in ("unix", "unix-abstract"):
        return _UNIX
    if kind not in ("ipv4", "ipv6"):
        return _UNKNOWN
    return _parse(unquote(rest)) or _UNKNOWN


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address, with or without port and brackets; None if it isn't one."""
    text = text.strip().strip('"')
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match["bare"] or match["bracketed"]) if match else text)
    except ValueError:
        return None
    # Dual-stack sockets report IPv4 clients as ::ffff:1.2.3.4.
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(hop: IPv4Address | IPv6Address | str, proxies: tuple[Network, ...]) -> bool:
    return not isinstance(hop, str) and any(hop in network for network in proxies)


def _bucket(hop: IPv4Address | IPv6Address | str) -> str:
    if isinstance(hop, IPv6Address) and not hop.is_loopback:
        return str(IPv6Network((int(hop), _IPV6_PREFIX), strict=False))
    return str(hop)
