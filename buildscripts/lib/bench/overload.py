"""`bench overload`: a service under many times the load that it can answer, and its recovery.

Measures capacity with enough concurrent callers; then offers ten times that rate (`--times`) over gRPC and REST, with
short and long deadlines; then half of the capacity. Prints answered, refused and late requests, throughput relative to
the capacity, latency of refusals, health checks, memory, and latency afterwards relative to the same load before.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from rich.table import Table

from buildscripts.lib.bench.contenders import settings_text
from buildscripts.lib.bench.engine import progress_bar
from buildscripts.lib.bench.report import console, heading
from buildscripts.lib.bench.service import start_service
from buildscripts.lib.load.process_usage import resident
from buildscripts.lib.models.pins import ROOT
from stt_client import SttClient
from stt_server.testing.load import Grpc, Rest, Tally, Transport, offer

MODEL = ROOT / "models" / "whisper-base-ct2"
SPEECH = ROOT / "samples" / "en" / "counting.wav"
CALLERS = 8
MEASURED_S = 8.0
QUIET_S = 10.0
TIMEOUTS = (2.0, 10.0)
MAX_QUEUE = 64


@dataclass(frozen=True)
class Result:
    """Results of one run."""

    capacity: float
    """Requests per second."""
    before: Tally
    during: Tally
    after: Tally
    seconds: float
    """Duration of the overload."""
    health: Sequence[float]
    """Duration of each health check in seconds; negative if it was not SERVING."""
    memory: tuple[float, float, float]
    """Resident MiB before the overload, at its end, and afterwards."""


async def capacity_of(transport: Transport) -> float:
    """Requests answered per second with enough callers to saturate the service."""
    began, answered = time.perf_counter(), 0

    async def ask() -> None:
        nonlocal answered
        while time.perf_counter() < began + MEASURED_S:
            error, _ = await transport.transcribe(60)
            answered += not error

    await asyncio.gather(*(ask() for _ in range(CALLERS)))
    return answered / (time.perf_counter() - began)


async def watch(client: SttClient, found: list[float]) -> None:
    """Check health every 0.2 s and record the durations."""
    while True:
        began = time.perf_counter()
        serving = await client.health()
        found.append((time.perf_counter() - began) * (1 if serving else -1))
        await asyncio.sleep(0.2)


async def measure(model: Path, times: float, seconds: float) -> Result:
    async with AsyncExitStack() as stack:
        settings = settings_text(model, {"HTTP_PORT": 0, "MAX_QUEUE": MAX_QUEUE, "LOG_LEVEL": "error"})
        grpc_address, http_address, pid = await start_service(settings, stack)
        client = await stack.enter_async_context(SttClient(grpc_address, timeout=10))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(grpc_address))
        wav = SPEECH.read_bytes()
        rest = Rest(int(http_address.rpartition(":")[2]), wav)
        transports: tuple[Transport, ...] = (Grpc(channel, wav), rest)
        stack.callback(rest.close)
        _say("measuring capacity ...")
        await capacity_of(transports[0])  # fills caches
        capacity = await capacity_of(transports[0])
        _say(f"{capacity:.1f} requests per second; offering half of that ...")
        before = Tally(await offer(transports, capacity / 2, QUIET_S, TIMEOUTS))
        memory = [resident(pid)]
        health: list[float] = []
        watching = asyncio.ensure_future(watch(client, health))
        with progress_bar() as bar:
            told = bar.add_task(f"{times:g} times the capacity", total=int(times * capacity * seconds))
            during = Tally(await offer(transports, times * capacity, seconds, TIMEOUTS, lambda _: bar.advance(told)))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        memory.append(resident(pid))
        _say("offering half of the capacity again ...")
        after = Tally(await offer(transports, capacity / 2, QUIET_S, TIMEOUTS))
        memory.append(resident(pid))
        return Result(capacity, before, during, after, seconds, health, (memory[0], memory[1], memory[2]))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def table(found: Result, times: float) -> Table:
    during, before = found.during, found.before
    inside, seen = ([during.refusal(share)[side] * 1000 for share in (0.5, 0.99)] for side in (0, 1))
    out = Table(title=f"{times:g} times the capacity, for {found.seconds:g} s")
    out.add_column("metric")
    out.add_column("figure", justify="right")
    rows = {
        "offered": str(len(during.outcomes)),
        "answered in time": str(len(during.answered)),
        "answered, relative to capacity": f"{len(during.answered) / found.seconds / found.capacity:.2f}",
        "late": str(len(during.late)),
        "refused with 503 and Retry-After": str(sum(o.retry_after_s is not None for o in during.refused)),
        "other errors": ", ".join(f"{count} {type_}" for type_, count in during.failed.items()) or "0",
        "refusals in the service, p50 and p99": f"{inside[0]:.1f}, {inside[1]:.1f} ms",
        "refusals as seen by callers, p50 and p99": f"{seen[0]:.0f}, {seen[1]:.0f} ms",
        "within 50 ms": f"{during.refused_within(0.05):.1%}",
        "health checks, not SERVING": f"{len(found.health)}, {sum(seconds < 0 for seconds in found.health)}",
        "slowest health check": f"{max(map(abs, found.health)) * 1000:.0f} ms",
        "memory before, at the end, afterwards": ", ".join(f"{mib:.0f}" for mib in found.memory) + " MiB",
        "median latency afterwards, relative to before": f"{found.after.latency(0.5) / before.latency(0.5):.2f}",
    }
    for what, figure in rows.items():
        out.add_row(what, figure)
    return out


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench overload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--times", type=float, default=10.0, help="multiple of the capacity (default: 10)")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the overload (default: 60)")
    arguments = parser.parse_args(argv)
    found = asyncio.run(measure(arguments.model, arguments.times, arguments.seconds))
    out = console()
    out.print(heading("overload", argv), highlight=False, markup=False, soft_wrap=True)
    out.print(table(found, arguments.times))
    return 0
