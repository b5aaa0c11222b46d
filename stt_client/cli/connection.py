"""The options of every command: which services, by which key and certificates."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from stt_client.channel import Tls, resolve
from stt_client.client import ClientOptions
from stt_client.tls_files import tls_from_files

DEFAULT_SERVER = "localhost:50051"
KEY_VARIABLE = "STT_API_KEY"


class UsageError(Exception):
    """The command was given something that it can't work with; the message says what to give."""


def add_connection(parser: argparse.ArgumentParser, *, timeout: float | None, timeout_help: str) -> None:
    """Adds `--server`, `--api-key`, `--timeout` and the TLS options."""
    group = parser.add_argument_group("service")
    group.add_argument(
        "--server",
        action="append",
        metavar="ADDRESS",
        help=f"HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT (TLS) or unix:/PATH; several times for several services "
        f"(default: {DEFAULT_SERVER})",
    )
    group.add_argument("--api-key", metavar="KEY", help=f"key of the service (default: ${KEY_VARIABLE})")
    group.add_argument("--timeout", type=positive, default=timeout, metavar="SECONDS", help=timeout_help)
    group.add_argument("--ca", type=Path, metavar="FILE", help="PEM of the roots to trust; turns TLS on")
    group.add_argument("--cert", type=Path, metavar="FILE", help="PEM of this client's certificate (mTLS)")
    group.add_argument("--key", type=Path, metavar="FILE", help="PEM of that certificate's key")


def servers_of(arguments: argparse.Namespace) -> list[str]:
    """The services to call, each once.

    Raises:
        UsageError: an address that is none, or TLS options that don't go together.
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
    """What the client is made with.

    Raises:
        UsageError: a file that can't be read, or a key that can't be sent.
    """
    key = arguments.api_key or os.environ.get(KEY_VARIABLE) or None
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError(f"--api-key or ${KEY_VARIABLE} takes printable ASCII only")
    return ClientOptions(api_key=key, timeout=arguments.timeout, tls=_tls(arguments))


def positive(text: str) -> float:
    """An argument's type: seconds over 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds over 0")
    return value


def _tls(arguments: argparse.Namespace) -> Tls | None:
    try:
        return tls_from_files(arguments.ca, arguments.cert, arguments.key)
    except ValueError as error:
        raise UsageError(str(error)) from None
