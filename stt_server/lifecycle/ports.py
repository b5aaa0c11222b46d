"""Where a service listens: its port for everybody, and a socket of its own for its gateway."""

from __future__ import annotations

from pathlib import Path

import grpc

from stt_server.config import Settings
from stt_server.lifecycle.gateway import address_of
from stt_server.lifecycle.process_limits import why_not_listen, why_not_listen_at
from stt_server.security.tls import ServerCertificate


def listen(server: grpc.aio.Server, settings: Settings, certificate: ServerCertificate | None) -> int:
    """Opens the service's port; which it is.

    Args:
        certificate: None: without TLS.

    Raises:
        OSError: it can't be had; the text says why.
    """
    address = address_of(settings.host, settings.grpc_port)
    if reason := why_not_listen(settings.host, settings.grpc_port):
        raise OSError(f"gRPC can't listen on {address}: {reason}")
    try:
        if certificate is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificate.credentials())
    except RuntimeError as error:
        raise OSError(f"gRPC can't listen on {address}: the port is taken, or the address isn't ours") from error


def listen_for_gateway(server: grpc.aio.Server, folder: Path) -> str:
    """Opens a socket in `folder` for the gateway in front of the service; its target.

    The gateway's way in is a file that only this user can open: it needs no certificate, and what it says of its
    callers' addresses can be believed.

    Raises:
        OSError: the folder can't hold it.
    """
    path = folder / "grpc.sock"
    if reason := why_not_listen_at(path):
        raise OSError(f"{folder} can't hold the gateway's socket: {reason}; TMPDIR says where it may be")
    server.add_insecure_port(f"unix:{path}")
    return f"unix:{path}"
