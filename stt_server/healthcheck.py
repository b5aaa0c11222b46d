"""`python -m stt_server.healthcheck`: asks a running service on this machine whether it is SERVING.

For a container's HEALTHCHECK, an exec probe, a timer: exit status 0 or 1 and one line of text. It reads, from the
service's own configuration, where to ask and how (plain or TLS), then calls `grpc.health.v1.Health/Check`. It needs no
key, loads no model, and touches nothing else in the file: a mistake elsewhere in it must not make a healthy service
look ill.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stt_server.config import KEYS, ConfigError, Role, config_path
from stt_server.config.envfile import Entry, read_entries

DEFAULT_TIMEOUT_S = 2.0
"""Seconds for the whole check: below the 3 s that a container's HEALTHCHECK is given."""

_EVERY_ADDRESS = ("0.0.0.0", "::", "[::]", "*")
_SERVICES: tuple[Role, ...] = ("primary", "fallback")
_KEYS = {key.name: key for key in KEYS}


class Unhealthy(Exception):
    """The service is not SERVING, or can't be asked; the message is the line to print."""


@dataclass(frozen=True)
class Endpoint:
    """Where a service answers on this machine."""

    host: str
    port: int
    tls_cert: Path | None
    """The server's certificate, PEM; None: no TLS."""
    tls_key: Path | None
    shows_certificate: bool
    """The server asks callers for a certificate (mTLS)."""

    @property
    def target(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def service_of(entries: Mapping[str, Entry], path: Path) -> Role:
    """Whose file this is: by the model it names, else by its name; the primary's where neither tells."""
    if "CT2_SMALL_PATH" in entries or "CT2_MEDIUM_PATH" in entries:
        return "primary" if "CT2_SMALL_PATH" in entries else "fallback"
    return "fallback" if "fallback" in path.name else "primary"


def endpoint_of(path: Path, service: Role | None) -> Endpoint:
    """Where the service configured by the file at `path` answers. Raises Unhealthy if the file doesn't say."""
    try:
        entries = read_entries(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise Unhealthy(f"{path}: can't read the configuration: {reason}") from None
    except ConfigError as error:
        raise Unhealthy(str(error)) from None
    whose = service or service_of(entries, path)

    def value(name: str) -> Any:
        written = entries[name].value if name in entries else ""
        try:
            return _KEYS[name].cast(written or (_KEYS[name].default_for(whose) or ""))
        except ValueError:
            raise Unhealthy(f"{path}: {name}: takes {_KEYS[name].cast.takes}") from None

    if value("GRPC_PORT") == 0:
        raise Unhealthy(f"{path}: GRPC_PORT=0 takes a free port, which this check can't know: set one")
    host = "127.0.0.1" if value("HOST") in _EVERY_ADDRESS else value("HOST")
    shows = value("TLS_CLIENT_CA") is not None
    return Endpoint(host, value("GRPC_PORT"), value("TLS_CERT"), value("TLS_KEY"), shows)


def check(endpoint: Endpoint, timeout_s: float = DEFAULT_TIMEOUT_S, name: str = "") -> None:
    """Returns if the health service `name` is SERVING; raises Unhealthy if not, or without an answer in time."""
    with _channel(endpoint, timeout_s) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s, wait_for_ready=False)
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
            raise Unhealthy(f"{endpoint.target}: no answer: {code}") from None
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
        raise Unhealthy(f"{endpoint.target}: {status}")


def _channel(endpoint: Endpoint, timeout_s: float) -> grpc.Channel:
    if endpoint.tls_cert is None:
        return grpc.insecure_channel(endpoint.target)
    try:
        # What the server has on disk is what it serves, so that is all that this check trusts.
        cert = endpoint.tls_cert.read_bytes()
        key = endpoint.tls_key.read_bytes() if endpoint.shows_certificate and endpoint.tls_key else None
        name = _name_in_certificate(endpoint, timeout_s)
    except OSError as error:
        raise Unhealthy(f"{endpoint.target}: TLS: {error.strerror or error}") from None
    credentials = grpc.ssl_channel_credentials(cert, key, cert if key else None)
    return grpc.secure_channel(endpoint.target, credentials, [("grpc.ssl_target_name_override", name)])


def _name_in_certificate(endpoint: Endpoint, timeout_s: float) -> str:
    """A name that the server's certificate is for: callers know the server by it, not by 127.0.0.1.

    Raises OSError (ssl.SSLError among them) if the server doesn't present the certificate that is on disk.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The file may hold a certificate without the authority that signed it: then that certificate is the anchor.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(endpoint.tls_cert)
    if endpoint.shows_certificate and endpoint.tls_cert and endpoint.tls_key:
        context.load_cert_chain(endpoint.tls_cert, endpoint.tls_key)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((endpoint.host, endpoint.port), timeout_s) as plain,
        context.wrap_socket(plain) as secured,
    ):
        certificate: Any = secured.getpeercert() or {}
    names = [value for _kind, value in certificate.get("subjectAltName", ())]
    if not names:
        raise OSError("the certificate names no host (subjectAltName)")
    return str(names[0]).replace("*", "stt", 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one line; returns 0 if the service is SERVING, else 1."""
    parser = argparse.ArgumentParser(prog="python -m stt_server.healthcheck", description="Is the service SERVING?")
    parser.add_argument("--config", type=Path, help="the service's .env file (else CONFIG_PATH)")
    parser.add_argument("--service", choices=_SERVICES, help="else the file tells")
    parser.add_argument("--name", default="", help="a service name of grpc.health.v1; empty: the whole server")
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, metavar="SECONDS")
    options = parser.parse_args(argv)
    path = options.config or config_path(options.service or "primary", os.environ)
    try:
        endpoint = endpoint_of(path, options.service)
        check(endpoint, options.timeout, options.name)
    except Unhealthy as problem:
        print(f"unhealthy: {problem}")
        return 1
    print(f"SERVING: {endpoint.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
