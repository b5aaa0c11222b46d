"""Opening the ports of the gateway."""

from __future__ import annotations

import asyncio
import socket

from protos.stt.v1.wire import host_port

BACKLOG = 256
"""Length of the accept queue. asyncio accepts this number of connections before it does anything else."""


class PortError(OSError):
    """A port can't be opened; the text says which, and why."""


async def listen(protocol: str, host: str, port: int) -> socket.socket:
    """Listening socket; IPv4 and IPv6 for `::`.

    Args:
        protocol: for the error's text.
        port: 0: any free port.

    Raises:
        PortError: the port is in use, or the host is unknown.
    """
    try:
        return await _listen(host, port)
    except OSError as error:
        raise PortError(f"{protocol} can't listen on {host_port(host, port)}: {error.strerror or error}") from error


async def _listen(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        # Listen at once: two sockets with SO_REUSEADDR may share a port until one of them listens.
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
