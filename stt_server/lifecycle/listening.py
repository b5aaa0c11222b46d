"""Opens the ports of a service: gRPC for callers, a Unix socket for its gateway, HTTP."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc

from protos.stt.v1.wire import host_port
from stt_server.config import Settings
from stt_server.security.tls import ServerCertificate


def listen(server: grpc.aio.Server, settings: Settings, certificate: ServerCertificate | None) -> int:
    """Open the gRPC port and return its number.

    Args:
        certificate: None: without TLS.

    Raises:
        OSError: the port can't be opened; says why.
    """
    address = host_port(settings.host, settings.grpc_port)
    if reason := _why_not_port(settings.host, settings.grpc_port):
        raise OSError(f"gRPC can't listen on {address}: {reason}")
    try:
        if certificate is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificate.credentials())
    except RuntimeError as error:
        raise OSError(f"gRPC can't listen on {address}: the port is taken, or the address isn't ours") from error


def listen_for_gateway(server: grpc.aio.Server, folder: Path) -> str:
    """Open a Unix socket in `folder` for the gateway and return it as a gRPC target.

    Only this user can open the socket, so the gateway needs no certificate, and the caller addresses that it forwards
    can be trusted.

    Raises:
        OSError: the folder can't hold a socket.
    """
    path = folder / "grpc.sock"
    if reason := _why_not_bind(socket.AF_UNIX, str(path)):
        raise OSError(f"{folder} can't hold the gateway's socket: {reason}; set TMPDIR to another folder")
    path.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{path}")
    return f"unix:{path}"


def _why_not_port(host: str, port: int) -> str:
    """Why a TCP port can't be opened; empty if it can.

    gRPC's own exception doesn't say, and its C core logs to standard error.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error.strerror or str(error)
    reasons = [_why_not_bind(family, address) for family, _, _, _, address in found]
    return "" if "" in reasons else reasons[0]


def _why_not_bind(family: int, address: tuple[object, ...] | str) -> str:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""
