"""`python -m stt_server.healthcheck`: checks whether the service on this machine is SERVING.

For a container's HEALTHCHECK, an exec probe or a timer: prints one line and exits with 0 or 1. Calls
`grpc.health.v1.Health/Check` on the port, and with the TLS files, that the service's configuration names. Reads no
other key of it, so that a mistake elsewhere doesn't make a running service look unhealthy.
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

from protos.stt.v1.wire import host_port
from stt_server.config import KEYS, ConfigError, Role, config_path
from stt_server.config.envfile import Entry, read_entries

DEFAULT_TIMEOUT_S = 2.0
"""Seconds for the whole check: less than the 3 s of our containers' HEALTHCHECK."""

_EVERY_ADDRESS = ("0.0.0.0", "::", "[::]", "*")
_ROLES: tuple[Role, ...] = ("primary", "fallback")
_KEYS = {key.name: key for key in KEYS}


class Unhealthy(Exception):
    """The service is not SERVING or unreachable. The message is the line to print."""


@dataclass(frozen=True)
class Endpoint:
    """Address and TLS files of a service on this machine."""

    host: str
    port: int
    tls_cert: Path | None
    """PEM file of the server's certificate; None: no TLS."""
    tls_key: Path | None
    mutual_tls: bool
    """The server requires client certificates; the check presents the server's own."""

    @property
    def target(self) -> str:
        return host_port(self.host, self.port)


def role_of(entries: Mapping[str, Entry], path: Path) -> Role:
    """The service that a file configures, by its model key or else its name; by default the primary."""
    if "CT2_SMALL_PATH" in entries or "CT2_MEDIUM_PATH" in entries:
        return "primary" if "CT2_SMALL_PATH" in entries else "fallback"
    return "fallback" if "fallback" in path.name else "primary"


def endpoint_of(path: Path, role: Role | None) -> Endpoint:
    """The endpoint that the file at `path` configures.

    Args:
        role: None: judged by the file.

    Raises:
        Unhealthy: the file can't be read, or the port can't be known from it.
    """
    try:
        entries = read_entries(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise Unhealthy(f"{path}: can't read the configuration: {reason}") from None
    except ConfigError as error:
        raise Unhealthy(str(error)) from None
    role = role or role_of(entries, path)

    def value(name: str) -> Any:
        written = entries[name].value if name in entries else ""
        try:
            return _KEYS[name].cast(written or (_KEYS[name].default_for(role) or ""))
        except ValueError:
            raise Unhealthy(f"{path}: {name}: expected {_KEYS[name].cast.expected}") from None

    if value("GRPC_PORT") == 0:
        raise Unhealthy(f"{path}: GRPC_PORT=0 takes a free port, which this check can't know: set a port")
    host = "127.0.0.1" if value("HOST") in _EVERY_ADDRESS else value("HOST")
    mutual_tls = value("TLS_CLIENT_CA") is not None
    return Endpoint(host, value("GRPC_PORT"), value("TLS_CERT"), value("TLS_KEY"), mutual_tls)


def check(endpoint: Endpoint, timeout_s: float = DEFAULT_TIMEOUT_S, name: str = "") -> None:
    """Raises Unhealthy if the service `name` is not SERVING, or doesn't answer within `timeout_s`."""
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
        # Trust only the certificate on disk, which is the one that the server presents.
        cert = endpoint.tls_cert.read_bytes()
        key = endpoint.tls_key.read_bytes() if endpoint.mutual_tls and endpoint.tls_key else None
        name = _name_in_certificate(endpoint, timeout_s)
    except OSError as error:
        raise Unhealthy(f"{endpoint.target}: TLS: {error.strerror or error}") from None
    credentials = grpc.ssl_channel_credentials(cert, key, cert if key else None)
    return grpc.secure_channel(endpoint.target, credentials, [("grpc.ssl_target_name_override", name)])


def _name_in_certificate(endpoint: Endpoint, timeout_s: float) -> str:
    """A host name of the server's certificate, to check it against: the certificate is not for 127.0.0.1.

    Raises:
        OSError: the server doesn't present the certificate on disk (ssl.SSLError), or it names no host.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The file may lack the signing authority: accept the certificate itself as the trust anchor.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(endpoint.tls_cert)
    if endpoint.mutual_tls and endpoint.tls_cert and endpoint.tls_key:
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
    """Print one line; return 0 if the service is SERVING, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m stt_server.healthcheck", description="Check whether the service is SERVING."
    )
    parser.add_argument("--config", type=Path, help="the service's .env file (default: CONFIG_PATH)")
    parser.add_argument("--service", choices=_ROLES, help="default: judged by the file")
    parser.add_argument("--name", default="", help="service name of grpc.health.v1; empty: the whole server")
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
