"""`stt-gateway`: the gateway alone, in front of a service elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter

from gateway.http.certificate import Certificate
from gateway.http.renewal import Renewal, TlsFiles
from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions, HttpTls
from protos.stt.v1.wire import ReadyLine

GRACE_S = 30.0
"""How long SIGTERM waits for requests in flight."""

EXIT_USAGE = 2
EXIT_FAILED = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Runs until SIGTERM or SIGINT. Exits with 0 then, 2 for bad usage, 1 for what the machine refuses."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        files = _files(arguments)
        options = _options(arguments, files)
    except (OSError, ValueError) as error:
        sys.exit(_complain(error, EXIT_USAGE))
    _log_json(arguments.log_level)
    sys.exit(asyncio.run(_serve(options, files)))


def _complain(error: Exception, status: int) -> int:
    print(f"stt-gateway: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("stt-gateway", description="REST in front of a speech-to-text service.")
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the service's gRPC address")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=8081, help="port to listen on; 0: a free one (%(default)s)")
    to_service = parser.add_argument_group("TLS to the service", "PEM files; any of them turns TLS on")
    to_service.add_argument("--ca", type=Path, help="CA that signed the service's certificate")
    to_service.add_argument("--cert", type=Path, help="certificate to show to the service")
    to_service.add_argument("--key", type=Path, help="its key")
    for_callers = parser.add_argument_group("TLS for callers", "PEM files")
    for_callers.add_argument("--tls-cert", type=Path, help="certificate of this gateway")
    for_callers.add_argument("--tls-key", type=Path, help="its key")
    for_callers.add_argument("--tls-client-ca", type=Path, help="callers need a certificate of this CA")
    parser.add_argument("--cors-origins", default="", help="origins whose pages may call, separated by commas")
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", type=str.lower, choices=levels, default="info")
    return parser


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return port


def _files(arguments: argparse.Namespace) -> TlsFiles:
    """Raises OSError or ValueError with a text for the operator."""
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise ValueError("--tls-cert and --tls-key go together")
    if arguments.tls_client_ca and not arguments.tls_cert:
        raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
    http = None
    if arguments.tls_cert:
        http = HttpTls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
        Certificate(http)  # files that don't fit are bad usage, and found before anything starts
    return TlsFiles(arguments.ca, arguments.cert, arguments.key, http)


def _options(arguments: argparse.Namespace, files: TlsFiles) -> GatewayOptions:
    """Raises ValueError with a text for the operator."""
    origins = (origin.strip() for origin in arguments.cors_origins.split(","))
    return GatewayOptions(
        target=arguments.target,
        host=arguments.host,
        port=arguments.port,
        tls=files.to_service(),
        http_tls=files.http,
        cors_origins=tuple(origin for origin in origins if origin),
    )


def _log_json(level: str) -> None:
    """One JSON object a line on standard error, in the shape of the services' logs."""

    class Formatter(JsonFormatter):
        def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
            moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names))
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers[:] = [handler]
    # Its news is that it started and stopped; at `info` that is the ready line's part.
    logging.getLogger("uvicorn").setLevel(max(root.level, logging.WARNING))


async def _serve(options: GatewayOptions, files: TlsFiles) -> int:
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    try:
        server = GatewayServer(options)
    except ValueError as error:
        return _complain(error, EXIT_USAGE)
    renewal = Renewal(server, files, options.tls)
    loop.add_signal_handler(signal.SIGHUP, renewal.hang_up)
    try:
        await server.start()
    except OSError as error:
        where = f"{options.host}:{options.port}"
        return _complain(OSError(f"can't serve on {where}: {error.strerror or error}"), EXIT_FAILED)
    try:
        print(ReadyLine("gateway", http=f"{options.host}:{server.port}", target=options.target), flush=True)
    except OSError as error:
        await server.stop(0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain again at its end
        return _complain(OSError(f"can't say on standard output that it is ready: {error.strerror}"), EXIT_FAILED)
    renewing = asyncio.ensure_future(renewal.run()) if files.paths else None
    await told_to_stop.wait()
    if renewing is not None:
        renewing.cancel()
    await server.stop(GRACE_S)
    return 0


if __name__ == "__main__":
    main()
