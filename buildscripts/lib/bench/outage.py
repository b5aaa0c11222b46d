"""How long a fallback's outage is felt: callers who want it keep asking while it is killed, stopped, or out of reach.

A primary with FALLBACK_ON_ERROR=degrade and FALLBACK_TIMEOUT_S=60, a relay that plays the network, and a fallback, as
real processes with scripted models. For each fault: the slowest answer, how long until nobody waited any more, how long
after the fallback's return it was used again, and latency meanwhile and afterwards against that before.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from buildscripts.lib.bench.report import console, heading
from buildscripts.lib.chaos.stage import UNSURE, Stage, stage
from buildscripts.lib.models.pins import ROOT
from stt_client import SttClient

SPEECH = ROOT / "samples" / "en" / "quick_brown_fox.wav"
CALLERS = 4
HEALTHY_S = 2.0
WAITS_FACTOR = 5.0
"""A request that takes so many times the healthy median has waited for the fallback."""

Act = Callable[[Stage], Awaitable[None]]


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
    """What callers felt of one. Seconds."""

    name: str
    slowest: float
    noticed: float
    """From its beginning until the last answer that had waited."""
    used_again: float
    """From the fallback's return to its first answer."""
    during: float
    """Median latency once it was noticed, over that before."""
    after: float
    """The same, once it is used again."""


async def _kill(stage: Stage) -> None:
    await stage.fallback.kill()


async def _stop(stage: Stage) -> None:
    stage.fallback.process.send(signal.SIGSTOP)


async def _go_on(stage: Stage) -> None:
    stage.fallback.process.send(signal.SIGCONT)


async def _start(stage: Stage) -> None:
    await stage.fallback.start()


async def _silence(stage: Stage) -> None:
    await stage.relay.become("silent")


async def _mend(stage: Stage) -> None:
    await stage.relay.become("fine")


FAULTS: dict[str, tuple[Act, Act]] = {
    "killed (SIGKILL), started again": (_kill, _start),
    "stopped (SIGSTOP), continued": (_stop, _go_on),
    "network silent, mended": (_silence, _mend),
}


class Callers:
    """Ask without a pause, each one thing at a time."""

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
        """The first answer by the fallback to a request that began after a moment."""
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


async def outage(name: str, stage: Stage, callers: Callers, seconds: float) -> Outage:
    """Brings one about for so many seconds, and ends it."""
    begin, undo = FAULTS[name]
    healthy = time.monotonic()
    await callers.used_after(healthy)
    await asyncio.sleep(HEALTHY_S)
    away = time.monotonic()
    await begin(stage)
    await asyncio.sleep(seconds)
    await undo(stage)
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


async def measure(seconds: float, faults: Sequence[str]) -> list[Outage]:
    found = []
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        async with stage(Path(folder), scripted=True) as built:
            built.a.write_config(FALLBACK_TIMEOUT_S=60)
            await asyncio.sleep(2.5)  # for as long as a changed file may take
            async with SttClient(built.a.grpc, api_key=built.key) as client:
                callers = Callers(client)
                try:
                    for name in faults:
                        print(f"{name} ...", file=sys.stderr)
                        found.append(await outage(name, built, callers, seconds))
                finally:
                    await callers.stop()
    return found


def table(outages: Sequence[Outage]) -> Table:
    out = Table(title="The fallback is away")
    out.add_column("it is")
    for name in ("slowest answer s", "nobody waits after s", "used again after s", "latency meanwhile", "afterwards"):
        out.add_column(name, justify="right")
    for one in outages:
        times = (f"{one.slowest:.2f}", f"{one.noticed:.2f}", f"{one.used_again:.2f}")
        out.add_row(one.name, *times, f"{one.during:.2f}", f"{one.after:.2f}")
    out.caption = "latency: medians, as ratios to the median before the outage"
    return out


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench outage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="that each outage lasts (8)")
    arguments = parser.parse_args(argv)
    outages = asyncio.run(measure(arguments.seconds, list(FAULTS)))
    out = console()
    out.print(heading("outage", argv), highlight=False, markup=False, soft_wrap=True)
    out.print(table(outages))
    return 0
