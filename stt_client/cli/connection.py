"""Options of all commands for the connection: services, key, timeout and TLS."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from stt_client.channel import Tls, resolve
from stt_client.cli.errors import UsageError
from stt_client.client import ClientOptions
from stt_client.tls_files import tls_from_files

DEFAULT_SERVER = "localhost:50051"
KEY_VARIABLE = "STT_API_KEY"


def add_connection(parser: argparse.ArgumentParser, *, timeout: float | None, timeout_help: str) -> None:
    """Add `--server`, `--api-key`, `--timeout` and the TLS options."""
    group = parser.add_argument_group("service")
    group.add_argument(
        "--server",
        action="append",
        metavar="ADDRESS",
        help=f"service: HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT (TLS) or unix:/PATH; repeat for several "
        f"(default: {DEFAULT_SERVER})",
    )
    group.add_argument("--api-key", metavar="KEY", help=f"API key (default: ${KEY_VARIABLE})")
    group.add_argument("--timeout", type=positive, default=timeout, metavar="SECONDS", help=timeout_help)
    group.add_argument("--ca", type=Path, metavar="FILE", help="root certificates to trust, in PEM format; enables TLS")
    group.add_argument("--cert", type=Path, metavar="FILE", help="client certificate in PEM format (mutual TLS)")
    group.add_argument("--key", type=Path, metavar="FILE", help="private key of --cert in PEM format, unencrypted")


def servers_of(arguments: argparse.Namespace) -> list[str]:
    """Return the addresses of the services, without duplicates.

    Raises:
        UsageError: an address or the TLS options are invalid.
    """
    servers = list(dict.fromkeys(arguments.server or [DEFAULT_SERVER]))
    tls = _tls(arguments)
    for server in servers:
        try:
            resolve(server, tls)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return servers


def options_of(arguments: argparse.Namespace) -> ClientOptions:
    """Return the options for `SttClient` or `SttPool`.

    Raises:
        UsageError: a TLS file or the API key is invalid.
    """
    key = arguments.api_key or os.environ.get(KEY_VARIABLE) or None
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError(f"--api-key or ${KEY_VARIABLE} contains characters other than printable ASCII")
    return ClientOptions(api_key=key, timeout=arguments.timeout, tls=_tls(arguments))


def positive(text: str) -> float:
    """Argument type: seconds greater than 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"invalid duration {text}: must be seconds greater than 0")
    return value


def _tls(arguments: argparse.Namespace) -> Tls | None:
    try:
        return tls_from_files(arguments.ca, arguments.cert, arguments.key)
    except ValueError as error:
        raise UsageError(str(error)) from None
