"""Run the pair under a realistic load for hours, as real processes, and check its resources for growth.

A few callers send short and long recordings in WAV, FLAC, MP3, Ogg/Opus and M4A over gRPC and REST, and live speech
over gRPC and WebSockets, some of it for the fallback; they cancel requests, send garbage, wrong keys and too large
files, and read health and metrics. Each text is compared with the reference text of its recording.

Memory, threads, open files, children and temporary files of both processes are sampled regularly. Prints tables by
sixths of the time and the outcomes of requests. The exit status is 1 if a resource grew, a request had an unexpected
outcome, or a process ended badly or left something behind. Ctrl-C ends the run early, with all of that.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import secrets
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from buildscripts.lib.load.process_usage import PROC, descendants, files_below, resident, usage
from buildscripts.lib.models.pins import ROOT
from buildscripts.lib.soak.growth import (
    MIN_HOURS_FOR_MEMORY,
    Sample,
    growth_problems,
    growth_table,
    hours,
    memory_slope,
    plot,
)
from buildscripts.lib.soak.traffic import Callers, TestAudio
from protos.stt.v1.wire import ReadyLine
from stt_server.config import Role
from stt_server.testing.processes import HOST, ChildProcess
from stt_server.testing.services import installed_service, write_config

UPLOAD_MIB = 6
"""MAX_UPLOAD_MB of both services: admits two minutes of WAV, and keeps too large uploads cheap."""

GLANCE_S = 2.0
"""Seconds between two readings of memory alone."""


@dataclass
class Monitor:
    """Samples of the processes."""

    processes: dict[str, ChildProcess]
    folders: dict[str, Path]
    """Folder for the temporary files of each."""
    addresses: dict[str, ReadyLine]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """(hours, median seconds)."""
    floors: dict[str, float] = field(default_factory=dict)
    """Smallest resident size since the last sample, MiB."""
    began: float = field(default_factory=time.monotonic)

    def sample_memory(self) -> None:
        """Read the resident size of each process.

        Raises:
            FileNotFoundError: one has ended.
        """
        for name, process in self.processes.items():
            self.floors[name] = min(self.floors.get(name, math.inf), resident(process.pid))

    def sample(self, latencies: list[float]) -> str:
        """Sample each process; return a line to print.

        Raises:
            ProcessLookupError, FileNotFoundError: one has ended.
        """
        now = (time.monotonic() - self.began) / 3600
        parts = [f"{now * 60:7.1f} min"]
        for name, process in self.processes.items():
            use = usage(process.pid)
            floor = min(self.floors.pop(name, math.inf), use.resident_mib)
            sample = Sample(now, use, floor, files_below(self.folders[name]))
            self.samples.setdefault(name, []).append(sample)
            parts.append(
                f"{name}: {use.resident_mib:.0f} MiB ({floor:.0f} at least), {use.threads} threads, "
                f"{use.descriptors} descriptors, {use.children} children ({use.children_mib:.0f} MiB), "
                f"{sample.files} files"
            )
        if latencies:
            self.latencies.append((now, statistics.median(latencies)))
            parts.append(f"median {self.latencies[-1][1]:.3f} s of {len(latencies)}")
            latencies.clear()
        return " | ".join(parts)


def main(argv: Sequence[str]) -> int:
    arguments = _arguments(argv)
    return asyncio.run(soak(arguments))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/soak service", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=float, default=1.0, help="wall time (default: 1)")
    length.add_argument("--minutes", type=float, help="wall time, instead of --hours")
    parser.add_argument("--callers", type=int, default=3, help="number of callers (default: 3)")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of its time that a caller waits for answers (default: 0.5)"
    )
    parser.add_argument("--every", type=float, default=60.0, help="seconds between samples (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sequence of requests (default: 1)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="write a plot")
    parser.add_argument("--primary", type=Path, default=ROOT / "models" / "whisper-tiny.en-ct2", metavar="MODEL")
    parser.add_argument("--fallback", type=Path, default=ROOT / "models" / "whisper-base-ct2", metavar="MODEL")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.share <= 1:
        parser.error("--share must be greater than 0 and at most 1")
    arguments.primary, arguments.fallback = arguments.primary.resolve(), arguments.fallback.resolve()
    arguments.seconds = 60 * arguments.minutes if arguments.minutes else 3600 * arguments.hours
    arguments.every = min(arguments.every, arguments.seconds / 24)
    return arguments


async def soak(arguments: argparse.Namespace) -> int:
    """Do the whole run; return the exit status."""
    audio = await asyncio.to_thread(TestAudio.make)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory() as scratch:
        async with pair(Path(scratch), arguments.primary, arguments.fallback) as (monitor, key):
            ready = monitor.addresses["primary"]
            chance = random.Random(arguments.seed)  # noqa: S311, reproducible, not for security
            callers = Callers(
                str(ready.grpc),
                f"http://{ready.http}",
                str(ready.wyoming),
                key,
                audio,
                UPLOAD_MIB << 20,
                chance,
                arguments.share,
            )
            calling = asyncio.create_task(callers.run(arguments.callers, stop))
            problems = await watch_processes(monitor, callers, arguments, calling, stop)
            stop.set()
            await calling
            if not problems:
                problems += [
                    line for ready in monitor.addresses.values() for line in await not_idle(f"http://{ready.http}")
                ]
            problems += await stop_both(monitor)
    return report(monitor, callers, problems, arguments.plot)


@asynccontextmanager
async def pair(scratch: Path, primary: Path, fallback: Path) -> AsyncIterator[tuple[Monitor, str]]:
    """Run both services with keys and the gateway; yield their monitor and the callers' key."""
    key, between = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    common: dict[str, str | int] = {"HOST": HOST, "DEVICE": "cpu", "COMPUTE_TYPE": "int8", "GRPC_PORT": 0}
    common |= {"HTTP_PORT": 0, "LOG_LEVEL": "warning", "DRAIN_TIMEOUT_S": 10, "MAX_UPLOAD_MB": UPLOAD_MIB}
    common |= {"RATE_LIMIT_RPS": 200, "RATE_LIMIT_BURST": 400}
    processes: dict[str, ChildProcess] = {}
    folders: dict[str, Path] = {}

    async def start(name: Role, **keys: str | int) -> ReadyLine:
        config = scratch / f"stt_{name}.env"
        write_config(config, common | keys)
        folders[name] = scratch / f"tmp-{name}"
        folders[name].mkdir()
        process = installed_service(name, config, config.with_suffix(".log"), TMPDIR=str(folders[name]))
        processes[name] = process
        process.spawn()
        return await asyncio.to_thread(process.wait_ready)

    try:
        behind = await start("fallback", CT2_MEDIUM_PATH=str(fallback), API_KEYS=f"primary:{between}")
        ready = await start(
            "primary",
            CT2_SMALL_PATH=str(primary),
            API_KEYS=f"callers:{key}",
            WYOMING_PORT=0,
            WYOMING_API_KEY=key,
            FALLBACK_URL=f"grpc://{behind.grpc}",
            FALLBACK_API_KEY=between,
        )
        yield Monitor(dict(reversed(processes.items())), folders, {"primary": ready, "fallback": behind}), key
    finally:
        for process in reversed(processes.values()):
            await asyncio.to_thread(process.stop)


async def watch_processes(
    monitor: Monitor,
    callers: Callers,
    arguments: argparse.Namespace,
    calling: asyncio.Task[None],
    stop: asyncio.Event,
) -> list[str]:
    """Sample the processes until the time is up; return what ended the run early, if not Ctrl-C."""
    stopping = asyncio.create_task(stop.wait())
    ends = [asyncio.create_task(asyncio.to_thread(process.ended)) for process in monitor.processes.values()]
    end, next_look = monitor.began + arguments.seconds, monitor.began + arguments.every
    try:
        while not stop.is_set() and (now := time.monotonic()) < end:
            await asyncio.wait(
                (stopping, calling, *ends), timeout=min(GLANCE_S, end - now), return_when=asyncio.FIRST_COMPLETED
            )
            if over := next((task for task in ends if task.done()), None):
                return [str(over.result())]
            if calling.done():
                return ["the callers ended early"]
            monitor.sample_memory()
            if time.monotonic() >= next_look:
                next_look += arguments.every
                show(monitor, callers)
        return []
    finally:
        for task in (stopping, *ends):
            task.cancel()
        await asyncio.gather(stopping, *ends, return_exceptions=True)


def show(monitor: Monitor, callers: Callers) -> None:
    """Print a sample and unexpected outcomes."""
    print(f"{monitor.sample(callers.latencies)} | {sum(callers.outcomes.values())} requests", flush=True)
    while callers.unexpected:
        outcome = callers.unexpected.pop()
        print(f"  {outcome.what}: {outcome.result}, after {outcome.seconds:.1f} s", flush=True)


async def not_idle(url: str) -> list[str]:
    """Wait for a service without callers to become idle; return the problem if it doesn't."""
    idle = {"stt_in_flight": "0.0", "stt_queue_depth": "0.0"}
    async with httpx.AsyncClient() as http:
        for _ in range(50):
            lines = (line.split() for line in (await http.get(f"{url}/metrics")).text.splitlines())
            found = {words[0]: words[1] for words in lines if words and words[0] in idle}
            if found == idle:
                return []
            await asyncio.sleep(0.2)
    return [f"{url} is not idle without callers: {found}"]


async def stop_both(monitor: Monitor) -> list[str]:
    """Stop both services, the primary first; return problems."""
    problems = []
    for name, process in monitor.processes.items():
        below = descendants(process.pid)
        if status := await asyncio.to_thread(process.stop):
            problems.append(f"{name} ended with status {status}")
        if alive := [pid for pid in below if (PROC / str(pid)).exists()]:
            problems.append(f"{name} left {len(alive)} processes")
        if left := files_below(monitor.folders[name]):
            problems.append(f"{name} left {left} temporary files")
    return problems


def report(monitor: Monitor, callers: Callers, problems: list[str], picture: Path | None) -> int:
    """Print the results; return the exit status."""
    for name, samples in monitor.samples.items():
        print(f"\n{growth_table(name, samples)}\n")
        judged = "" if hours(samples) >= MIN_HOURS_FOR_MEMORY else ", run too short to judge memory"
        rise = memory_slope(samples)
        print(
            f"{name}: {rise.per_hour:+.1f} MiB an hour over the last two thirds (at least {rise.at_least:+.1f}){judged}"
        )
        problems += growth_problems(name, samples)
    print(f"\n{outcome_table(callers.outcomes)}\n")
    if unexpected := sum(count for (_, _, wanted), count in callers.outcomes.items() if not wanted):
        problems.append(f"{unexpected} requests had unexpected outcomes")
    if third := len(monitor.latencies) // 3:
        first, last = (
            statistics.median(s for _, s in part) for part in (monitor.latencies[:third], monitor.latencies[-third:])
        )
        print(f"short recordings took {first:.3f} s in the first third of the time, {last:.3f} s in the last (medians)")
    if picture and monitor.samples:
        length = max(map(hours, monitor.samples.values()))
        title = f"{length:.2f} hours, {sum(callers.outcomes.values())} requests"
        plot(monitor.samples, monitor.latencies, title, picture)
    print("\n".join(problems) or "nothing grew, and every request had the expected outcome")
    return int(bool(problems))


def outcome_table(outcomes: Counter[tuple[str, str, bool]]) -> str:
    """Markdown table of outcomes by kind of request."""
    lines = ["| request | outcome | expected | number |", "|---|---|---|---|"]
    for (what, result, wanted), count in sorted(outcomes.items()):
        lines.append(f"| {what} | {result} | {'yes' if wanted else 'NO'} | {count} |")
    lines.append(f"| all | | | {sum(outcomes.values())} |")
    return "\n".join(lines)
