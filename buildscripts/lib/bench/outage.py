"""Measure how long an outage of the fallback is noticed by callers who need it.

A primary with FALLBACK_ON_ERROR=degrade and FALLBACK_TIMEOUT_S=60, a relay that simulates the network, and a fallback,
as real processes with scripted models. The fallback is killed, stopped, or cut off. For each fault: the slowest answer,
the time until requests no longer wait, the time until the fallback is used again after its return, and latency during
and after the outage relative to before.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from buildscripts.lib.bench.report import console, heading
from buildscripts.lib.chaos.context import RELOAD_S
from buildscripts.lib.chaos.deployment import UNSURE, Deployment, deployment
from buildscripts.lib.models.pins import ROOT
from stt_client import SttClient

SPEECH = ROOT / "samples" / "en" / "quick_brown_fox.wav"
CALLERS = 4
HEALTHY_S = 2.0
WAITS_FACTOR = 5.0
"""A request that takes this many times the healthy median has waited for the fallback."""

Act = Callable[[Deployment], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """One request, on the monotonic clock."""

    began: float
    ended: float
    by_fallback: bool

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Outage:
    """One outage as callers saw it. Times in seconds."""

    name: str
    slowest: float
    noticed: float
    """From its beginning to the last answer that had waited."""
    used_again: float
    """From the fallback's return to its first answer."""
    during: float
    """Median latency after `noticed`, relative to that before the outage."""
    after: float
    """Median latency after `used_again`, relative to that before the outage."""


async def _kill(deployment: Deployment) -> None:
    await deployment.fallback.kill()


async def _stop(deployment: Deployment) -> None:
    deployment.fallback.process.send(signal.SIGSTOP)


async def _go_on(deployment: Deployment) -> None:
    deployment.fallback.process.send(signal.SIGCONT)


async def _start(deployment: Deployment) -> None:
    await deployment.fallback.start()


async def _silence(deployment: Deployment) -> None:
    await deployment.relay.set_state("silent")


async def _mend(deployment: Deployment) -> None:
    await deployment.relay.set_state("normal")


FAULTS: dict[str, tuple[Act, Act]] = {
    "killed (SIGKILL), started again": (_kill, _start),
    "stopped (SIGSTOP), continued": (_stop, _go_on),
    "network silent, mended": (_silence, _mend),
}


class Callers:
    """Callers without pauses, each with one request at a time."""

    def __init__(self, client: SttClient) -> None:
        self.answers: list[Answer] = []
        self._client = client
        self._tasks = [asyncio.ensure_future(self._ask()) for _ in range(CALLERS)]

    async def _ask(self) -> None:
        while True:
            began = time.monotonic()
            found = await self._client.transcribe(SPEECH, prompt=UNSURE, timeout=60)
            self.answers.append(Answer(began, time.monotonic(), found.routing.fallback_used))

    async def used_after(self, moment: float) -> Answer:
        """Wait for the first answer of the fallback to a request that began after `moment`."""
        while not (found := [a for a in self.answers if a.began >= moment and a.by_fallback]):
            if failed := [task for task in self._tasks if task.done()]:
                failed[0].result()
            await asyncio.sleep(0.02)
        return min(found, key=lambda answer: answer.ended)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task


async def outage(name: str, deployment: Deployment, callers: Callers, seconds: float) -> Outage:
    """Cause an outage of the fallback for `seconds`, and measure it."""
    begin, undo = FAULTS[name]
    healthy = time.monotonic()
    await callers.used_after(healthy)
    await asyncio.sleep(HEALTHY_S)
    away = time.monotonic()
    await begin(deployment)
    await asyncio.sleep(seconds)
    await undo(deployment)
    back = time.monotonic()
    first = await callers.used_after(back)
    await asyncio.sleep(HEALTHY_S)
    before = statistics.median(a.seconds for a in callers.answers if a.began >= healthy and a.ended <= away)
    inside = [a for a in callers.answers if a.ended > away and a.began < back]
    waited = [a.ended for a in inside if a.seconds > WAITS_FACTOR * before]
    noticed = max(waited, default=away)
    during = [a.seconds for a in inside if a.began > noticed and a.ended < back]
    after = [a.seconds for a in callers.answers if a.began > first.ended]
    return Outage(
        name,
        slowest=max(a.seconds for a in inside),
        noticed=noticed - away,
        used_again=first.ended - back,
        during=statistics.median(during) / before if during else float("nan"),
        after=statistics.median(after) / before,
    )


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Deployment, SttClient]]:
    """Run a deployment whose primary waits for its fallback for up to 60 s, and a client of it."""
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        async with deployment(Path(folder), scripted=True) as built:
            built.a.write_config(FALLBACK_TIMEOUT_S=60)
            await asyncio.sleep(RELOAD_S)
            async with SttClient(built.a.grpc, api_key=built.key) as client:
                yield built, client


async def measure(seconds: float, faults: Sequence[str]) -> list[Outage]:
    """Cause each fault for `seconds`, and measure it."""
    found = []
    async with served() as (built, client):
        callers = Callers(client)
        try:
            for name in faults:
                print(f"{name} ...", file=sys.stderr)
                found.append(await outage(name, built, callers, seconds))
        finally:
            await callers.stop()
    return found


def table(outages: Sequence[Outage]) -> Table:
    out = Table(title="Outage of the fallback")
    out.add_column("fault")
    for name in ("slowest answer s", "no waiting after s", "used again after s", "latency during", "after"):
        out.add_column(name, justify="right")
    for one in outages:
        times = (f"{one.slowest:.2f}", f"{one.noticed:.2f}", f"{one.used_again:.2f}")
        out.add_row(one.name, *times, f"{one.during:.2f}", f"{one.after:.2f}")
    out.caption = "latency: medians, relative to the median before the outage"
    return out


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench outage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of each outage (default: 8)")
    arguments = parser.parse_args(argv)
    outages = asyncio.run(measure(arguments.seconds, list(FAULTS)))
    out = console()
    out.print(heading("outage", argv), highlight=False, markup=False, soft_wrap=True)
    out.print(table(outages))
    return 0
