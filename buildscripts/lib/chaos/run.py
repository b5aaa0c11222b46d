"""Inject random faults into two primaries, their fallback and a gateway under load; record every request.

Callers use SttPool, plain gRPC stubs, REST, live streams, WebSockets and Realtime sessions. Models are scripted so that
each text names its request (--real: the starter models). Each request must be answered exactly once, before its
deadline, with its own text or with an error that the active faults excuse. The loss or restart of one primary must not
be noticed behind the pool. After each fault all services must be healthy again within seconds.

Prints outcomes of requests, recovery times by kind of fault, and the seed. The exit status is 1 if a rule was broken or
a process left something behind; each request that broke a rule is printed. Ctrl-C ends the run early, with all of that.
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

from buildscripts.lib.chaos.callers import CALLERS, Callers
from buildscripts.lib.chaos.context import FaultContext
from buildscripts.lib.chaos.deployment import Deployment, deployment
from buildscripts.lib.chaos.faults import FAULTS
from buildscripts.lib.chaos.ledger import Impact, Ledger, Window
from buildscripts.lib.chaos.transports import Transports, connected
from buildscripts.lib.load.recordings import encode_clip, sample_clips

HOLD_S = (0.5, 3.0)
"""Duration of a fault, seconds."""
CALM_S = (0.3, 1.5)
"""Pause between faults, seconds."""
TWO_AT_ONCE = 0.4
"""Probability of two simultaneous faults."""
RECOVERY_S = 20.0
"""Time in which services must recover, including the start of a killed service."""
SHOWN = 20
"""Most violations to print."""


@dataclass
class Chaos:
    """State of one run."""

    deployment: Deployment
    callers: Callers
    chance: random.Random
    kinds: Sequence[str]
    stop: asyncio.Event
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from the end of a fault to full recovery, by kind."""
    problems: list[str] = field(default_factory=list)
    _deck: list[str] = field(default_factory=list)

    async def inject_faults(self, seconds: float) -> None:
        """Run callers and faults for `seconds`, or until `stop`."""
        calls_over = asyncio.Event()
        team = [asyncio.create_task(self.callers.call_repeatedly(*member, calls_over, pause=0.2)) for member in CALLERS]
        try:
            await self._wait_healthy(())
            end = time.monotonic() + seconds
            while not self.stop.is_set() and time.monotonic() < end and not self.problems:
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
                window = Window(kind, Impact(), self.callers.now)
                windows.append(window)
                self.callers.ledger.windows.append(window)
                print(f"{self.callers.now:7.1f} s  {kind}", flush=True)
                context = FaultContext(self.deployment, self.callers, self.chance)
                window.impact = await faults.enter_async_context(FAULTS[kind].inject(context))
                await self._pause((0.0, 0.5))
            await self._pause(HOLD_S)
            undone = time.monotonic()
        await self._wait_healthy(chosen)
        for window in windows:
            window.over = self.callers.now
            self.recoveries.setdefault(window.kind, []).append(time.monotonic() - undone)

    def _draw(self) -> list[str]:
        """One kind of fault, or two of different groups; every kind is used once before any is used again."""
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

    async def _wait_healthy(self, after: Sequence[str]) -> None:
        try:
            await asyncio.wait_for(self.callers.wait_healthy(), RECOVERY_S)
        except asyncio.TimeoutError:
            what = " and ".join(after) or "the start"
            self.problems.append(f"not healthy {RECOVERY_S:.0f} s after {what}")

    async def _pause(self, within: tuple[float, float]) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop.wait(), self.chance.uniform(*within))


def main(argv: Sequence[str]) -> int:
    return asyncio.run(run(_arguments(argv)))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="wall time (default: 5)")
    parser.add_argument("--seed", type=int, help="of faults and requests; default: random")
    parser.add_argument("--faults", help=f"comma-separated kinds; default: all of {', '.join(FAULTS)}")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="write the ledger as JSON lines")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep logs and configurations in this new folder")
    parser.add_argument("--real", action="store_true", help="use tiny.en and base instead of scripted models")
    arguments = parser.parse_args(argv)
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(10**6)
    kinds = arguments.faults.split(",") if arguments.faults else list(FAULTS)
    if unknown := [kind for kind in kinds if kind not in FAULTS]:
        parser.error(f"unknown fault: {', '.join(unknown)}; expected some of {', '.join(FAULTS)}")
    arguments.kinds = [kind for kind in kinds if not (arguments.real and FAULTS[kind].scripted)]
    return arguments


async def run(arguments: argparse.Namespace) -> int:
    """Do the whole run; return the exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clips = [encode_clip(clip, ("wav", "flac", "ogg")) for clip in sample_clips("en")]
    chance = random.Random(arguments.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as scratch:
        async with deployment(arguments.logs or Path(scratch), not arguments.real) as on:
            ledger = Ledger()
            requests = random.Random(arguments.seed)  # noqa: S311
            deadline = 20.0 if arguments.real else 6.0
            async with connected(on, deadline) as connections:
                callers = Callers(Transports(on, connections, clips, requests), ledger, requests, deadline)
                chaos = Chaos(on, callers, chance, arguments.kinds, stop)
                await chaos.inject_faults(60 * arguments.minutes)
        chaos.problems += on.problems()
    return report(chaos, ledger, arguments)


def report(chaos: Chaos, ledger: Ledger, arguments: argparse.Namespace) -> int:
    """Print the results; return the exit status."""
    violations = ledger.violations()
    if arguments.ledger:
        ledger.write(arguments.ledger)
    print(f"\n{ledger.totals()}\n\n{recovery_table(chaos.recoveries)}\n")
    for entry, violation in violations[:SHOWN]:
        print(f"{violation}\n  {entry.line}")
    for line in chaos.problems:
        print(line)
    faults = sum(map(len, chaos.recoveries.values()))
    print(
        f"{len(ledger.entries)} requests, {faults} faults, lost {ledger.count('lost')}, "
        f"doubled or wrong {ledger.count('wrong')}, {len(violations)} broke a rule; seed {arguments.seed}"
    )
    return int(bool(violations or chaos.problems))


def recovery_table(recoveries: dict[str, list[float]]) -> str:
    """Markdown table of recovery times by kind of fault."""
    lines = ["| fault | number | recovery s, median | maximum |", "|---|---|---|---|"]
    for kind, times in sorted(recoveries.items()):
        lines.append(f"| {kind} | {len(times)} | {statistics.median(times):.2f} | {max(times):.2f} |")
    return "\n".join(lines)
