"""From the command line to the exit status: what both services' entry points share."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from protos.stt.v1.wire import ReadyLine
from stt_server.app import Service
from stt_server.backend import usable_cores
from stt_server.config import ConfigError, Role, Settings, config_path, load
from stt_server.engine.loading import ModelLoadError, ModelOptions, reporting_load_errors
from stt_server.engine.types import Recognizer
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.errors import EngineLost
from stt_server.lifecycle.gateway import Gateway, address_of
from stt_server.lifecycle.process_limits import end_within, let_go_of_output, prepare
from stt_server.lifecycle.reload import Reloader
from stt_server.observability.logs import configure

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

FALLBACK_TEMPERATURES = (0.4, 0.8)
"""The primary decodes once, as the fallback has the better answer; the fallback has nobody behind it."""

LEAVING_S = 1.0
"""After the drain, until whatever still runs ends with the process. Seconds."""

log = logging.getLogger(__name__)


def run(
    name: Role,
    make_gateway: Callable[[str, Settings], Gateway],
    load_model: Callable[[Settings], Recognizer] | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT; the exit status. A second SIGINT ends the drain; more of SIGTERM change nothing.

    0 after a drain, 1 where the machine is the cause (a port taken, a model lost), 2 where the configuration is.

    Args:
        load_model: loads and warms the model; None: Whisper, as configured.
    """
    parser = argparse.ArgumentParser(
        prog=f"stt-{name}", description=f"The {name} speech-to-text service. CONFIG_PATH names its .env file."
    )
    parser.parse_args()
    try:
        return _run(name, make_gateway, load_model or load_whisper)
    finally:
        let_go_of_output()


def _run(
    name: Role, make_gateway: Callable[[str, Settings], Gateway], load_model: Callable[[Settings], Recognizer]
) -> int:
    try:
        path = config_path(name, os.environ)
        settings = load(path, name)
        configure(settings.log_format, settings.log_level)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the ready line says what its start would
        prepare()
        for warning in settings.warnings:
            log.warning(warning)
        return asyncio.run(_serve(path, settings, make_gateway, load_model))
    except (ConfigError, ModelLoadError) as error:
        return _complain(name, error, EXIT_CONFIGURATION)
    except EngineLost as error:
        _complain(name, f"the model is lost, start it anew: {error.__cause__ or error}", EXIT_FAILED)
        # At once: Python would wait for the threads of inferences that may hang, and free a model that can't be freed.
        os._exit(EXIT_FAILED)
    except OSError as error:
        return _complain(name, error, EXIT_FAILED)


def _complain(name: Role, error: Exception | str, status: int) -> int:
    log.debug("the start failed", exc_info=error if isinstance(error, Exception) else None)
    with contextlib.suppress(OSError):  # a full disk hides the line, and must not change the status
        print(f"stt-{name}: {error}", file=sys.stderr, flush=True)
    return status


async def _serve(
    path: Path,
    settings: Settings,
    make_gateway: Callable[[str, Settings], Gateway],
    load_model: Callable[[Settings], Recognizer],
) -> int:
    stop = asyncio.Event()
    service = Service(settings, load_model, make_gateway)
    reloader = Reloader(path, service)
    _hear_signals(service, stop, reloader)
    watching: asyncio.Future[None] | None = None
    try:
        started = asyncio.ensure_future(service.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({started, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            await started
            # Only now: of what stops a start, the one line of its end tells.
            watching = asyncio.ensure_future(reloader.run())
            watching.add_done_callback(_tell_of_end)
            _say_ready(service)
            losing = asyncio.ensure_future(service.losing_model())
            await asyncio.wait({stopping, losing}, return_when=asyncio.FIRST_COMPLETED)
            end_within(max(service.settings.drain_timeout_s, LEAVING_S), EXIT_FAILED if service.lost else 0)
        else:
            started.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await started
    finally:
        if watching is not None:
            watching.cancel()
        await service.stop()
    if service.lost is not None:
        raise service.lost
    end_within(LEAVING_S, 0)
    return 0


def _tell_of_end(watching: asyncio.Future[None]) -> None:
    """The service goes on without being watched; that must not go unnoticed."""
    if not watching.cancelled() and watching.exception() is not None:
        log.error("changes of the configuration are no longer noticed: restart", exc_info=watching.exception())


def _hear_signals(service: Service, stop: asyncio.Event, reloader: Reloader) -> None:
    """SIGTERM and SIGINT stop the service, SIGHUP has its file read.

    A second Ctrl-C is somebody who waits; supervisors and scripts repeat SIGTERM, or pass one on beside a Ctrl-C, and
    don't mean that work be lost.
    """
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            service.hurry()
        interrupted = True
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGHUP, reloader.hang_up)


def _say_ready(service: Service) -> None:
    try:
        print(_ready_line(service), flush=True)
    except OSError as error:
        raise OSError(f"can't say on standard output that it is ready: {error.strerror}") from error


def _ready_line(service: Service) -> ReadyLine:
    settings = service.settings
    grpc = address_of(settings.host, service.grpc_port)
    http = None if service.http_port is None else address_of(settings.host, service.http_port)
    return ReadyLine(settings.service, grpc, http)


def load_whisper(settings: Settings) -> Recognizer:
    """Loads and warms the model; takes seconds.

    Raises:
        ModelLoadError: it can't be used as configured.
    """
    # What the concurrency is by default depends on the device, which CTranslate2 tells once the model is loaded.
    on_cpu = settings.device == "cpu" or (settings.device == "auto" and not _has_cuda())
    options = ModelOptions(
        path=Path(settings.model_path),
        name=settings.model_name,
        device=settings.device,
        device_index=settings.device_index,
        compute_type=settings.compute_type,
        cpu_threads=settings.cpu_threads,
        workers=settings.concurrency(on_cpu, usable_cores()),
        beam_size=settings.beam_size,
        encoder_window=settings.encoder_window,
        temperatures=FALLBACK_TEMPERATURES if settings.service == "fallback" else (),
    )
    with reporting_load_errors(options):
        recognizer = WhisperRecognizer(options)
        recognizer.warm_up()
    return recognizer


def _has_cuda() -> bool:
    import ctranslate2

    return bool(ctranslate2.get_cuda_device_count() > 0)
