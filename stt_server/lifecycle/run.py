"""From the command line to the exit status: what both services' entry points share."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from protos.stt.v1.wire import ReadyLine, host_port
from stt_server.app import Service
from stt_server.config import ConfigError, Role, Settings, config_path, load
from stt_server.engine.loading import ModelLoadError
from stt_server.engine.types import Recognizer
from stt_server.errors import EngineLost
from stt_server.lifecycle.gateway import MakeGateway
from stt_server.lifecycle.process_limits import discard_unwritable_output, exit_within, set_process_limits
from stt_server.lifecycle.reload import Reloader
from stt_server.lifecycle.whisper import load_whisper
from stt_server.observability.logs import configure

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

EXIT_GRACE_S = 1.0
"""From the end of the drain to a forced exit. Seconds."""

LoadModel = Callable[[Settings], Recognizer]

log = logging.getLogger(__name__)


def run(role: Role, make_gateway: MakeGateway, load_model: LoadModel = load_whisper) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status.

    0 after a drain; 1 if the system failed (a port is taken, the model is lost); 2 if the configuration is wrong.

    Args:
        load_model: loads and warms the model.
    """
    parser = argparse.ArgumentParser(
        prog=f"stt-{role}", description=f"The {role} speech-to-text service. CONFIG_PATH names its .env file."
    )
    parser.parse_args()
    try:
        return _run(role, make_gateway, load_model)
    finally:
        discard_unwritable_output()


def _run(role: Role, make_gateway: MakeGateway, load_model: LoadModel) -> int:
    try:
        path = config_path(role, os.environ)
        settings = load(path, role)
        configure(settings.log_format, settings.log_level)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its start-up messages repeat the ready line
        set_process_limits()
        for warning in settings.warnings:
            log.warning(warning)
        return asyncio.run(_serve(path, settings, make_gateway, load_model))
    except (ConfigError, ModelLoadError) as error:
        return _fail(role, error, EXIT_CONFIGURATION)
    except EngineLost as error:
        _fail(role, f"the model is lost; restart the service: {error.__cause__ or error}", EXIT_FAILED)
        # Without cleanup: Python would wait for threads of hanging inferences and free a model that can't be freed.
        os._exit(EXIT_FAILED)
    except OSError as error:
        return _fail(role, error, EXIT_FAILED)


def _fail(role: Role, error: Exception | str, status: int) -> int:
    log.debug("start failed", exc_info=error if isinstance(error, Exception) else None)
    with contextlib.suppress(OSError):  # a full disk must not change the status
        print(f"stt-{role}: {error}", file=sys.stderr, flush=True)
    return status


async def _serve(path: Path, settings: Settings, make_gateway: MakeGateway, load_model: LoadModel) -> int:
    service = Service(settings, load_model, make_gateway)
    reloader = Reloader(path, service)
    stop = _handle_signals(service, reloader)
    try:
        if await _start(service, stop):
            # Reloading begins only now, so that a failed start prints one line and nothing else.
            async with _reloading(reloader):
                _print_ready_line(service)
                await _wait_first(stop.wait(), service.wait_model_lost())
                grace_s = max(service.settings.drain_timeout_s, EXIT_GRACE_S)
                exit_within(grace_s, EXIT_FAILED if service.model_error else 0)
    finally:
        await service.stop()
    if service.model_error is not None:
        raise service.model_error
    exit_within(EXIT_GRACE_S, 0)
    return 0


async def _start(service: Service, stop: asyncio.Event) -> bool:
    """Start the service; False if `stop` was set first. Raises what the start raises."""
    starting = asyncio.ensure_future(service.start())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        await starting
        return True
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    return False


@contextlib.asynccontextmanager
async def _reloading(reloader: Reloader) -> AsyncIterator[None]:
    def log_failure(task: asyncio.Future[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("configuration watch failed: restart to apply further changes", exc_info=task.exception())

    task = asyncio.ensure_future(reloader.run())
    task.add_done_callback(log_failure)
    try:
        yield
    finally:
        task.cancel()


async def _wait_first(*events: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(event) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _handle_signals(service: Service, reloader: Reloader) -> asyncio.Event:
    """Stop on SIGTERM and SIGINT, reload on SIGHUP. Returns the event that is set to stop.

    A second SIGINT ends the drain: the user is waiting at the terminal. A second SIGTERM doesn't, since supervisors
    and scripts repeat it, or send it in addition to a Ctrl-C.
    """
    stop = asyncio.Event()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            service.end_drain()
        interrupted = True
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGHUP, reloader.reload_now)
    return stop


def _print_ready_line(service: Service) -> None:
    settings = service.settings

    def address(port: int | None) -> str | None:
        return None if port is None else host_port(settings.host, port)

    line = ReadyLine(
        settings.service,
        address(service.grpc_port),
        address(service.http_port),
        wyoming=address(service.wyoming_port),
    )
    try:
        print(line, flush=True)
    except OSError as error:
        raise OSError(f"can't write the ready line to standard output: {error.strerror}") from error
