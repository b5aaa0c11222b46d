"""Run a realistic load for hours, against a pair of processes or a deployment, and check resources for growth.

A few callers send short and long recordings in WAV, FLAC, MP3, Ogg/Opus and M4A over gRPC and REST, and live speech
over gRPC and WebSockets, some of it for the fallback; they cancel requests, send garbage, wrong keys and too large
files, and read health and metrics. Each text is compared with the reference text of its recording.

Without --server, the pair runs as two processes on this machine. Memory, threads, open files, children and temporary
files of both are sampled regularly.

With --server, the load goes to running services, over REST and WebSockets as well if --http has their gateways. Memory
and open files are those that each process reports in its metrics: give each process an address of its own, not that of
a load balancer, and those that are not called, such as the fallback, by --watch. A restart is a failure.

Prints tables by sixths of the time and the outcomes of requests. The exit status is 1 if a resource grew, a request had
an unexpected outcome, or a process ended badly or left something behind. Ctrl-C ends the run early, with all of that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from buildscripts.lib.models.pins import ROOT
from buildscripts.lib.soak.deployment import Deployment, callers_of
from buildscripts.lib.soak.growth import (
    MIN_HOURS_FOR_MEMORY,
    growth_problems,
    growth_table,
    hours,
    least_of_halves,
    memory_slope,
    plot,
)
from buildscripts.lib.soak.local_pair import UPLOAD_MIB, busy_without_callers, pair, stop_both
from buildscripts.lib.soak.monitor import Monitor
from buildscripts.lib.soak.traffic import Callers, Tally, TestAudio, Traffic
from stt_client.cli.connection import add_connection, options_of, servers_of
from stt_client.cli.errors import UsageError
from stt_client.client import ClientOptions
from stt_client.errors import SttError

GLANCE_S = 2.0
"""Seconds between two readings of memory alone."""
TIMEOUT_S = 60.0


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
    parser.add_argument("--callers", type=int, default=3, help="number of callers of each service (default: 3)")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of its time that a caller waits for answers (default: 0.5)"
    )
    parser.add_argument("--every", type=float, default=60.0, help="seconds between samples (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sequence of requests (default: 1)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="write a plot")
    parser.add_argument("--primary", type=Path, default=ROOT / "models" / "whisper-tiny.en-ct2", metavar="MODEL")
    parser.add_argument("--fallback", type=Path, default=ROOT / "models" / "whisper-base-ct2", metavar="MODEL")
    add_connection(parser, timeout=TIMEOUT_S, timeout_help=f"timeout of each request (default: {TIMEOUT_S:g})")
    parser.add_argument(
        "--http", action="append", default=[], metavar="URL", help="gateway of each --server, in the same order"
    )
    parser.add_argument(
        "--watch", action="append", default=[], metavar="ADDRESS", help="service to sample without calling it"
    )
    arguments = parser.parse_args(argv)
    if not 0 < arguments.share <= 1:
        parser.error("--share must be greater than 0 and at most 1")
    if arguments.http and len(arguments.http) != len(arguments.server or ()):
        parser.error("--http must be given once for each --server, or not at all")
    if arguments.watch and not arguments.server:
        parser.error("--watch requires --server")
    try:
        arguments.servers, arguments.options = servers_of(arguments), options_of(arguments)
    except UsageError as error:
        parser.error(str(error))
    arguments.primary, arguments.fallback = arguments.primary.resolve(), arguments.fallback.resolve()
    arguments.seconds = 60 * arguments.minutes if arguments.minutes else 3600 * arguments.hours
    arguments.every = min(arguments.every, arguments.seconds / 24)
    return arguments


async def soak(arguments: argparse.Namespace) -> int:
    """Do the whole run; return the exit status."""
    audio = await asyncio.to_thread(TestAudio.make)
    # Reproducible, not for security.
    traffic = Traffic(audio, random.Random(arguments.seed), arguments.share)  # noqa: S311
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    run = soak_deployment if arguments.server else soak_pair
    try:
        monitor, problems = await run(arguments, traffic, stop)
    except SttError as error:
        print(error.message)
        return 1
    return report(monitor, traffic.tally, problems, arguments.plot)


async def soak_pair(arguments: argparse.Namespace, traffic: Traffic, stop: asyncio.Event) -> tuple[Monitor, list[str]]:
    """Run both services on this machine, and soak them."""
    with tempfile.TemporaryDirectory() as scratch:
        async with pair(Path(scratch), arguments.primary, arguments.fallback) as (monitor, key):
            ready = monitor.addresses["primary"]
            options: ClientOptions = {"api_key": key, "timeout": TIMEOUT_S}
            addresses = (str(ready.grpc), f"http://{ready.http}")
            callers = Callers(*addresses, traffic, options, UPLOAD_MIB << 20, wyoming=str(ready.wyoming))
            problems = await load([callers], monitor, traffic.tally, arguments, stop)
            if not problems:
                problems += await busy_without_callers(monitor)
            problems += await stop_both(monitor)
    return monitor, problems


async def soak_deployment(
    arguments: argparse.Namespace, traffic: Traffic, stop: asyncio.Event
) -> tuple[Monitor, list[str]]:
    """Soak running services. Raises SttError: one of them can't be reached at the start."""
    servers, gateways = arguments.servers, arguments.http or [""] * len(arguments.servers)
    async with AsyncExitStack() as stack:
        monitor = await Deployment.connect(stack, [*servers, *arguments.watch], arguments.options)
        callers = [
            await callers_of(server, http, traffic, arguments.options, arguments.ca)
            for server, http in zip(servers, gateways, strict=True)
        ]
        problems = await load(callers, monitor, traffic.tally, arguments, stop)
    return monitor, [*problems, *monitor.problems]


async def load(
    callers: Sequence[Callers], monitor: Monitor, tally: Tally, arguments: argparse.Namespace, stop: asyncio.Event
) -> list[str]:
    """Run the callers and sample the processes until the time is up; return what ended the run early, if not Ctrl-C."""
    calling = [asyncio.create_task(each.run(arguments.callers, stop)) for each in callers]
    try:
        return await watch_processes(monitor, tally, arguments, calling, stop)
    finally:
        stop.set()
        await asyncio.gather(*calling)


async def watch_processes(
    monitor: Monitor,
    tally: Tally,
    arguments: argparse.Namespace,
    calling: Sequence[asyncio.Task[None]],
    stop: asyncio.Event,
) -> list[str]:
    """Sample the processes until the time is up; return what ended the run early, if not Ctrl-C."""
    stopping, ends = asyncio.create_task(stop.wait()), monitor.ends()
    end, next_look = monitor.began + arguments.seconds, monitor.began + arguments.every
    try:
        while not stop.is_set() and (now := time.monotonic()) < end:
            await asyncio.wait(
                (stopping, *calling, *ends), timeout=min(GLANCE_S, end - now), return_when=asyncio.FIRST_COMPLETED
            )
            if over := next((task for task in ends if task.done()), None):
                return [over.result()]
            if any(task.done() for task in calling) and not stop.is_set():
                return ["the callers ended early"]
            await monitor.sample_memory()
            if time.monotonic() >= next_look:
                next_look += arguments.every
                await show(monitor, tally)
        return []
    finally:
        for task in (stopping, *ends):
            task.cancel()
        await asyncio.gather(stopping, *ends, return_exceptions=True)


async def show(monitor: Monitor, tally: Tally) -> None:
    """Print a sample and unexpected outcomes."""
    print(f"{await monitor.sample(tally.latencies)} | {sum(tally.outcomes.values())} requests", flush=True)
    while tally.unexpected:
        outcome = tally.unexpected.pop()
        print(f"  {outcome.what}: {outcome.result}, after {outcome.seconds:.1f} s", flush=True)


def report(monitor: Monitor, tally: Tally, problems: list[str], picture: Path | None) -> int:
    """Print the results; return the exit status."""
    for name, samples in monitor.samples.items():
        print(f"\n{growth_table(name, samples)}\n")
        judged = "" if hours(samples) >= MIN_HOURS_FOR_MEMORY else ", run too short to judge memory"
        rise = memory_slope(samples)
        print(
            f"{name}: {rise.per_hour:+.1f} MiB an hour over the last two thirds (at least {rise.at_least:+.1f}){judged}"
        )
        first, second = least_of_halves(samples)
        change = (second / first - 1) * 100 if first else 0.0
        print(f"{name}: at least {first:.0f} MiB in the first half, {second:.0f} in the second ({change:+.1f} %)")
        problems += growth_problems(name, samples)
    print(f"\n{outcome_table(tally.outcomes)}\n")
    if unexpected := sum(count for (_, _, wanted), count in tally.outcomes.items() if not wanted):
        problems.append(f"{unexpected} requests had unexpected outcomes")
    if third := len(monitor.latencies) // 3:
        first, last = (
            statistics.median(s for _, s in part) for part in (monitor.latencies[:third], monitor.latencies[-third:])
        )
        print(f"short recordings took {first:.3f} s in the first third of the time, {last:.3f} s in the last (medians)")
    if picture and monitor.samples:
        length = max(map(hours, monitor.samples.values()))
        title = f"{length:.2f} hours, {sum(tally.outcomes.values())} requests"
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
