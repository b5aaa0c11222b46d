"""Brings random faults upon two primaries, their fallback and a gateway, under load, with a ledger of every request.

Callers go through SttPool, plain gRPC stubs, REST, live streams and WebSockets; models are scripted so that each
answer tells whose it is (--real: the starter models). Each request has to be answered once, before its deadline, with
its own text or with an error of the contract that the faults of the moment account for; behind the pool, the loss or
restart of one primary is not to be noticed at all. After each fault all has to be as before within seconds.

Ends with what came of the requests, recovery times by kind of fault, the seed, and status 1 where a rule was broken or
something left behind; each request that broke one is printed. Ctrl-C ends it early, with all of that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from buildscripts.lib.chaos.callers import TEAM, Callers
from buildscripts.lib.chaos.faults import FAULTS
from buildscripts.lib.chaos.ledger import Harm, Ledger, Window
from buildscripts.lib.chaos.scene import Scene
from buildscripts.lib.chaos.stage import Stage, stage
from buildscripts.lib.load.recordings import sample_clips, spoken

HOLD_S = (0.5, 3.0)
"""How long a fault lasts."""
CALM_S = (0.3, 1.5)
"""From the end of one to the beginning of the next."""
TWO_AT_ONCE = 0.4
"""How often there are two."""
RECOVERS_S = 20.0
"""All has to be well by then, a killed service's start included."""
SHOWN = 20
"""Ledger lines of requests that broke a rule."""


@dataclass
class Chaos:
    """One run."""

    stage: Stage
    callers: Callers
    chance: random.Random
    kinds: Sequence[str]
    stop: asyncio.Event
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from the beginning of its end, by kind of fault."""
    trouble: list[str] = field(default_factory=list)
    _deck: list[str] = field(default_factory=list)

    async def go_on(self, seconds: float) -> None:
        """Callers, and one fault after another, for so long or until `stop`."""
        calls_over = asyncio.Event()
        team = [asyncio.create_task(self.callers.call_on(*member, calls_over, pause=0.2)) for member in TEAM]
        try:
            await self._until_well(())
            end = time.monotonic() + seconds
            while not self.stop.is_set() and time.monotonic() < end and not self.trouble:
                await self._round()
                await self._pause(CALM_S)
        finally:
            calls_over.set()
            await asyncio.gather(*team)

    async def _round(self) -> None:
        chosen = self._draw()
        windows = []
        async with AsyncExitStack() as faults:
            for kind in chosen:
                window = Window(kind, Harm(), self.callers.now)
                windows.append(window)
                self.callers.ledger.windows.append(window)
                print(f"{self.callers.now:7.1f} s  {kind}", flush=True)
                scene = Scene(self.stage, self.callers, self.chance)
                window.harm = await faults.enter_async_context(FAULTS[kind].bring(scene))
                await self._pause((0.0, 0.5))
            await self._pause(HOLD_S)
            undone = time.monotonic()
        await self._until_well(chosen)
        for window in windows:
            window.over = self.callers.now
            self.recoveries.setdefault(window.kind, []).append(time.monotonic() - undone)

    def _draw(self) -> list[str]:
        """One kind, or two of different groups; every kind has had its turn before one has its next."""
        chosen: list[str] = []
        for _ in range(2 if self.chance.random() < TWO_AT_ONCE else 1):
            groups = {FAULTS[kind].group for kind in chosen}
            if not any(FAULTS[kind].group not in groups for kind in self._deck):
                self._deck += self.chance.sample(self.kinds, len(self.kinds))
            kind = next((kind for kind in self._deck if FAULTS[kind].group not in groups), None)
            if kind is not None:
                self._deck.remove(kind)
                chosen.append(kind)
        return chosen

    async def _until_well(self, after: Sequence[str]) -> None:
        try:
            await asyncio.wait_for(self.callers.until_well(), RECOVERS_S)
        except asyncio.TimeoutError:
            what = " and ".join(after) or "the start"
            self.trouble.append(f"not all was well {RECOVERS_S:.0f} s after {what}")

    async def _pause(self, within: tuple[float, float]) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop.wait(), self.chance.uniform(*within))


def main(argv: Sequence[str]) -> int:
    return asyncio.run(run(_arguments(argv)))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of wall time (5)")
    parser.add_argument("--seed", type=int, help="of the choice of faults and of requests; a random one if not given")
    parser.add_argument("--faults", help=f"kinds to choose from, separated by commas (all of {', '.join(FAULTS)})")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="write the ledger, as JSON lines")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep logs and configurations in this new folder")
    parser.add_argument("--real", action="store_true", help="tiny.en and base instead of scripted models")
    arguments = parser.parse_args(argv)
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(10**6)
    kinds = arguments.faults.split(",") if arguments.faults else list(FAULTS)
    if unknown := [kind for kind in kinds if kind not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    arguments.kinds = [kind for kind in kinds if not (arguments.real and FAULTS[kind].scripted)]
    return arguments


async def run(arguments: argparse.Namespace) -> int:
    """The whole run; its exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    said = [spoken(clip, ("wav", "flac", "ogg")) for clip in sample_clips("en")]
    chance = random.Random(arguments.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as scratch:
        async with stage(arguments.logs or Path(scratch), not arguments.real) as on:
            ledger = Ledger()
            requests = random.Random(arguments.seed)  # noqa: S311
            async with Callers(on, ledger, said, requests, 20 if arguments.real else 6).ready() as callers:
                chaos = Chaos(on, callers, chance, arguments.kinds, stop)
                await chaos.go_on(60 * arguments.minutes)
        chaos.trouble += on.remains()
    return report(chaos, ledger, arguments)


def report(chaos: Chaos, ledger: Ledger, arguments: argparse.Namespace) -> int:
    """Prints what there is; the exit status."""
    breaches = ledger.breaches()
    if arguments.ledger:
        ledger.write(arguments.ledger)
    print(f"\n{ledger.totals()}\n\n{recovery_table(chaos.recoveries)}\n")
    for entry, breach in breaches[:SHOWN]:
        print(f"{breach}\n  {entry.line}")
    for line in chaos.trouble:
        print(line)
    faults = sum(map(len, chaos.recoveries.values()))
    print(
        f"{len(ledger.entries)} requests, {faults} faults, lost {ledger.count('lost')}, "
        f"doubled or wrong {ledger.count('wrong')}, {len(breaches)} broke a rule; seed {arguments.seed}"
    )
    return int(bool(breaches or chaos.trouble))


def recovery_table(recoveries: dict[str, list[float]]) -> str:
    """A Markdown table: how long after its end, by kind of fault, all was well again."""
    lines = ["| fault | times | all well after s, median | most |", "|---|---|---|---|"]
    for kind, times in sorted(recoveries.items()):
        lines.append(f"| {kind} | {len(times)} | {statistics.median(times):.2f} | {max(times):.2f} |")
    return "\n".join(lines)
