"""`stt-gateway`: a stand-alone gateway in front of a service elsewhere."""

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

from gateway.http.server import GatewayServer
from gateway.http.tls import ServerCertificate, TlsFiles, TlsReloader
from gateway.options import GatewayOptions, HttpTls, WyomingOptions
from protos.stt.v1.trace_context import add_trace
from protos.stt.v1.wire import ReadyLine

GRACE_S = 30.0
"""Seconds that SIGTERM waits for requests in flight."""

EXIT_USAGE = 2
EXIT_FAILED = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Exit status: 0; 2 for invalid options; 1 if it cannot listen."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        files = _files(arguments)
        options = _options(arguments, files)
    except (OSError, ValueError) as error:
        sys.exit(_report(error, EXIT_USAGE))
    _log_json(arguments.log_level)
    sys.exit(asyncio.run(_serve(options, files)))


def _report(error: Exception, status: int) -> int:
    print(f"stt-gateway: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("stt-gateway", description="HTTP gateway in front of a speech-to-text service.")
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="gRPC address of the service")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=8081, help="port to listen on; 0: any free port (%(default)s)")
    wyoming = parser.add_argument_group("Wyoming protocol, for Home Assistant", "plain TCP, without TLS")
    wyoming.add_argument("--wyoming-port", type=_port, help="port to listen on; 0: any free port (default: off)")
    wyoming.add_argument("--wyoming-api-key-file", type=Path, help="file with the API key of the calls that it makes")
    to_service = parser.add_argument_group("TLS to the service", "PEM files; any of them enables TLS")
    to_service.add_argument("--ca", type=Path, help="CA of the service's certificate")
    to_service.add_argument("--cert", type=Path, help="client certificate to present to the service")
    to_service.add_argument("--key", type=Path, help="private key of --cert")
    for_callers = parser.add_argument_group("TLS for callers", "PEM files")
    for_callers.add_argument("--tls-cert", type=Path, help="certificate of this gateway")
    for_callers.add_argument("--tls-key", type=Path, help="private key of --tls-cert")
    for_callers.add_argument("--tls-client-ca", type=Path, help="require client certificates signed by this CA")
    parser.add_argument("--cors-origins", default="", help="comma-separated origins whose pages may call the gateway")
    parser.add_argument(
        "--otlp-endpoint", default="", metavar="URL", help="collector for spans, such as http://collector:4317"
    )
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", type=str.lower, choices=levels, default="info")
    return parser


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"invalid port {text!r}: expected 0 to 65535")
    return port


def _files(arguments: argparse.Namespace) -> TlsFiles:
    """TLS files of the options. Raises OSError or ValueError with a message for the operator."""
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise ValueError("--tls-cert and --tls-key must be given together")
    if arguments.tls_client_ca and not arguments.tls_cert:
        raise ValueError("--tls-client-ca requires --tls-cert and --tls-key")
    http = None
    if arguments.tls_cert:
        http = HttpTls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
        ServerCertificate(http)  # fail on unusable files before anything starts
    return TlsFiles(arguments.ca, arguments.cert, arguments.key, http)


def _options(arguments: argparse.Namespace, files: TlsFiles) -> GatewayOptions:
    """Options of the gateway. Raises ValueError with a message for the operator."""
    origins = (origin.strip() for origin in arguments.cors_origins.split(","))
    return GatewayOptions(
        target=arguments.target,
        host=arguments.host,
        port=arguments.port,
        tls=files.to_service(),
        http_tls=files.http,
        wyoming=_wyoming(arguments.wyoming_port, arguments.wyoming_api_key_file),
        cors_origins=tuple(origin for origin in origins if origin),
        otlp_endpoint=arguments.otlp_endpoint,
    )


def _wyoming(port: int | None, key_file: Path | None) -> WyomingOptions | None:
    """Raises OSError or ValueError with a message for the operator."""
    if port is None:
        if key_file is not None:
            raise ValueError("--wyoming-api-key-file requires --wyoming-port")
        return None
    key = "" if key_file is None else key_file.read_text("utf-8").strip()
    if key_file is not None and not (key and key.isascii() and key.isprintable()):
        raise ValueError(f"--wyoming-api-key-file: {key_file} does not hold a key; expected printable ASCII")
    return WyomingOptions(port, key)


def _log_json(level: str) -> None:
    """Log to standard error, one JSON object per line, with the same fields as the services."""

    class Formatter(JsonFormatter):
        def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
            moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}
    handler = logging.StreamHandler()
    handler.addFilter(add_trace)
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names))
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers[:] = [handler]
    # At `info` uvicorn logs that it started and stopped, which the ready line says already.
    logging.getLogger("uvicorn").setLevel(max(root.level, logging.WARNING))


async def _serve(options: GatewayOptions, files: TlsFiles) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        server = GatewayServer(options)
    except ValueError as error:
        return _report(error, EXIT_USAGE)
    reloader = TlsReloader(server, files, options.tls)
    loop.add_signal_handler(signal.SIGHUP, reloader.request_reload)
    try:
        await server.start()
    except OSError as error:
        return _report(error, EXIT_FAILED)
    try:
        print(_ready_line(options, server), flush=True)
    except OSError as error:
        await server.stop(0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again as it flushes at exit
        return _report(OSError(f"cannot write the ready line to standard output: {error.strerror}"), EXIT_FAILED)
    reloading = asyncio.ensure_future(reloader.run()) if files.paths else None
    await stop.wait()
    if reloading is not None:
        reloading.cancel()
    await server.stop(GRACE_S)
    return 0


def _ready_line(options: GatewayOptions, server: GatewayServer) -> ReadyLine:
    wyoming = None if server.wyoming_port is None else f"{options.host}:{server.wyoming_port}"
    return ReadyLine("gateway", http=f"{options.host}:{server.port}", target=options.target, wyoming=wyoming)
