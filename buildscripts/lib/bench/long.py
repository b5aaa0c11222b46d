"""Transcribe one long recording with `stt transcribe`: over one primary, over two, and over two of which one is killed.

Speech from a folder is joined until it lasts long enough. Services run as real processes, with a scripted model whose
inference takes a fixed time, or with tiny.en. Reported: wall time relative to one primary, the client's peak memory,
and whether each text equals that of one primary.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from buildscripts.lib.bench.report import console
from buildscripts.lib.models.pins import ROOT
from stt_client import SttClient
from stt_client.errors import SttError
from stt_client.recordings.decoding import SAMPLE_RATE
from stt_client.recordings.reading import Source
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess

PAUSE_S = 0.5
"""Silence after each clip. Seconds."""
POLL_S = 0.2


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    name: str
    seconds: float
    peak_mib: float
    text: str


def join(clips: Sequence[Path], path: Path, seconds: float) -> None:
    """Write a 16 kHz WAV file of the clips, repeated in turn, that lasts `seconds`."""
    pause = np.zeros((round(PAUSE_S * SAMPLE_RATE), 1), dtype=np.int16)
    left = round(seconds * SAMPLE_RATE)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        while left > 0:
            for clip in clips:
                reading = Source(clip).read((SAMPLE_RATE, SAMPLE_RATE))
                for block in (*(block[:, :1] for block in reading.blocks), pause):
                    file.writeframes(block[: max(0, left)].tobytes())
                    left -= len(block)


@contextmanager
def primaries(count: int, folder: Path, seconds: float | None, part: int) -> Iterator[list[ServiceProcess]]:
    """Run primaries.

    Args:
        seconds: of a scripted inference; None: tiny.en.
        part: longest recording that they accept, in seconds.
    """
    script = None if seconds is None else Script(seconds=seconds)
    keys = {"HTTP_PORT": "off", "MAX_BATCH_SIZE": 1, "MAX_CONCURRENCY": 2 if script else 1}
    keys |= {"MAX_AUDIO_SECONDS": part}
    with ExitStack() as stack:
        built = [ServiceProcess("primary", folder / f"{number}", keys, script) for number in range(count)]
        for service in built:
            service.spawn()
            stack.callback(service.stop)
        for service in built:
            service.wait_ready()
        yield built


async def until_answered(target: str, requests: int, pid: int) -> None:
    """Wait until a service has answered this many requests, or the process has ended."""
    async with SttClient(target) as client:
        while (await client.status()).snapshot["requests"]["total"] < requests:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:  # noqa: ASYNC222 - does not wait
                return
            await asyncio.sleep(POLL_S)


def transcribe(name: str, file: Path, services: Sequence[ServiceProcess], kill_after: int = 0) -> Run:
    """Run the command. `kill_after`: kill the last service once it has answered this many requests."""
    command = [sys.executable, "-m", "stt_client.cli", "transcribe", str(file), "--language", "en"]
    for service in services:
        command += ["--server", service.target]
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, cwd=ROOT)
        if kill_after:
            asyncio.run(until_answered(services[-1].target, kill_after, process.pid))
            services[-1].kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        out.seek(0)
        text = out.read().decode()
    if process.returncode:
        raise SttError(f"{name}: stt transcribe exited with {process.returncode}")
    return Run(name, seconds, usage.ru_maxrss / 1024, text)


def table(runs: Sequence[Run], audio_s: float) -> Table:
    out = Table(title=f"One recording of {audio_s / 3600:.2f} h")
    for name in ("services", "seconds", "relative", "times real time", "client's peak MiB", "words", "text"):
        out.add_column(name, justify="left" if name == "services" else "right")
    first = runs[0]
    for run in runs:
        same = "equal" if run.text == first.text else "DIFFERS"
        speed = (f"{run.seconds:.1f}", f"{run.seconds / first.seconds:.2f}", f"{audio_s / run.seconds:.1f}")
        out.add_row(run.name, *speed, f"{run.peak_mib:.0f}", str(len(run.text.split())), same)
    return out


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench long", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path, default=ROOT / "samples" / "en", help="folder of speech (samples/en)")
    parser.add_argument("--hours", type=float, default=3.0, help="duration of the recording (default: 3)")
    parser.add_argument("--model", choices=("scripted", "tiny.en"), default="scripted")
    parser.add_argument("--inference", type=float, default=1.0, help="seconds of a scripted inference (default: 1)")
    parser.add_argument(
        "--kill-after", type=int, default=4, help="requests that the killed primary answers (default: 4)"
    )
    parser.add_argument("--part", type=int, default=300, help="MAX_AUDIO_SECONDS of the primaries (default: 300)")
    arguments = parser.parse_args(argv)
    clips = sorted(path for path in arguments.audio.iterdir() if path.suffix in (".wav", ".flac"))
    inference = arguments.inference if arguments.model == "scripted" else None
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="long-") as scratch:
        folder = Path(scratch)
        file = folder / "recording.wav"
        join(clips, file, arguments.hours * 3600)
        for name, count, kill_after in (
            ("one primary", 1, 0),
            ("two primaries", 2, 0),
            ("two, one killed", 2, arguments.kill_after),
        ):
            with primaries(count, folder / name.replace(" ", "-"), inference, arguments.part) as services:
                runs.append(transcribe(name, file, services, kill_after))
            print(f"{name}: {runs[-1].seconds:.1f} s, {runs[-1].peak_mib:.0f} MiB", file=sys.stderr)
    console().print(table(runs, arguments.hours * 3600))
    return 0 if len({run.text for run in runs}) == 1 else 1
