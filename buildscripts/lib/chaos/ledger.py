"""The ledger of a chaos run: every request and what came of it, and the rules that each must keep."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from protos.stt.v1.errors import ERRORS

Outcome = Literal["lost", "text", "refused", "unreachable", "broken", "left", "wrong"]
"""`lost`: nothing ever came of it. `text`: its own. `refused`: an error of the contract, of the type in `detail`.
`unreachable`: nobody took the connection. `broken`: it was cut before the answer. `left`: we did, on purpose.
`wrong`: another's text, a text twice, or what is no answer at all."""

SLACK_S = 3.0
"""Past its deadline, on a machine that has more to do than it can."""
GRACE_S = 1.0
"""After a fault is over and all answer again: what had been sent before may still fail."""


@dataclass
class Entry:
    """One request."""

    id: str
    way: str
    """How it was sent, such as `gRPC` or `pool`."""
    to: str
    """The process that it was sent to, or `pool`."""
    unsure: bool
    """Whether the primary is to doubt itself, so that the fallback is asked."""
    container: str
    sent: float
    """Seconds since the start."""
    deadline: float
    """Seconds from then."""
    done: float | None = None
    outcome: Outcome = "lost"
    detail: str = ""
    said: str = ""
    """The text of the answer."""
    may: tuple[str, ...] = ()
    """Error types that it asks for."""
    during: tuple[str, ...] = ()
    """The faults of its time."""

    @property
    def line(self) -> str:
        """One JSON line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Harm:
    """What callers may see of a fault; where two are on, either."""

    down: frozenset[str] = frozenset()
    """Processes whose own callers may be told, or see, that they are not there."""
    cuts: bool = False
    """Whether they may also cut what they have begun to answer: they were killed, not stopped."""
    pool: frozenset[str] = frozenset()
    """Error types that callers of the pool may be told."""
    everybody: frozenset[str] = frozenset()
    """Error types that any caller may be told."""
    containers: frozenset[str] = frozenset()
    """Error types that may be told of recordings other than WAV."""
    fallback: bool = False
    """Whether the fallback may fail whoever asks it."""
    silences: bool = False
    """Whether primaries (those that are `down`, or any) have no answers of their own, so that the fallback is asked for
    what they would have been sure of, too."""
    unsure: frozenset[str] = frozenset()
    """Error types that may be told where the primary was unsure, beside `fallback_failed`."""


@dataclass
class Window:
    """A fault from its beginning until all answered again."""

    kind: str
    harm: Harm
    began: float
    over: float | None = None

    def touches(self, entry: Entry) -> bool:
        ends = float("inf") if self.over is None else self.over + GRACE_S
        return entry.sent <= ends and (entry.done is None or entry.done >= self.began)


@dataclass
class Ledger:
    """All requests and all faults of a run."""

    entries: list[Entry] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)

    def breaches(self) -> list[tuple[Entry, str]]:
        """Each request that broke a rule, and which."""
        found = []
        for entry in self.entries:
            windows = [window for window in self.windows if window.touches(entry)]
            entry.during = tuple(window.kind for window in windows)
            if breach := breach_of(entry, [window.harm for window in windows]):
                found.append((entry, breach))
        return found

    def write(self, path: Path) -> None:
        """JSON lines, in the order of sending."""
        path.write_text("".join(f"{entry.line}\n" for entry in self.entries), encoding="utf-8")

    def totals(self) -> str:
        """A Markdown table: what came of how many requests, by way."""
        counts: Counter[tuple[str, str]] = Counter()
        for entry in self.entries:
            counts[(entry.way, f"refused: {entry.detail}" if entry.outcome == "refused" else entry.outcome)] += 1
        ways, outcomes = sorted({way for way, _ in counts}), sorted({outcome for _, outcome in counts})
        lines = [f"| came to | {' | '.join(ways)} | all |", "|---" * (len(ways) + 2) + "|"]
        for outcome in outcomes:
            row = [counts[(way, outcome)] for way in ways]
            lines.append(f"| {outcome} | {' | '.join(map(str, row))} | {sum(row)} |")
        lines.append(f"| all | {' | '.join(str(_of_way(counts, way)) for way in ways)} | {len(self.entries)} |")
        return "\n".join(lines)

    def count(self, outcome: Outcome) -> int:
        return sum(entry.outcome == outcome for entry in self.entries)


def _of_way(counts: Counter[tuple[str, str]], way: str) -> int:
    return sum(count for (of, _), count in counts.items() if of == way)


def breach_of(entry: Entry, harms: Sequence[Harm]) -> str:
    """The rule that a request broke while these faults were on; empty: none."""
    if entry.outcome == "lost" or entry.done is None:
        return "lost: nothing came of it"
    if entry.outcome == "wrong":
        return "doubled or wrong: not its own answer, once"
    if entry.done - entry.sent > entry.deadline + SLACK_S:
        return f"late: after {entry.done - entry.sent:.1f} s of {entry.deadline:.1f}"
    if entry.outcome in ("text", "left"):
        return ""
    if entry.outcome == "refused":
        return _refusal(entry, harms)
    if entry.to == "pool":
        return "the pool's caller was told no error of the contract"
    reached = [harm for harm in harms if not harm.down.isdisjoint(path_of(entry.to))]
    if not reached:
        return "the connection was cut though its process was well"
    if entry.outcome == "broken" and not any(harm.cuts for harm in reached):
        return "the connection was cut by a process that was told to finish first"
    return ""


def _refusal(entry: Entry, harms: Sequence[Harm]) -> str:
    if entry.detail not in ERRORS:
        return "refused with no type of the contract"
    allowed = set(entry.may)
    unsure = entry.unsure or any(harm.silences and _reaches(harm, entry) for harm in harms)
    for harm in harms:
        allowed |= harm.everybody
        if entry.to == "pool":
            allowed |= harm.pool
        elif not harm.down.isdisjoint(path_of(entry.to)):
            allowed |= {"upstream_unavailable", "not_ready", "deadline_exceeded"}
        if entry.container != "wav":
            allowed |= harm.containers
        if unsure:
            allowed |= harm.unsure
            if harm.fallback and entry.to not in DEGRADES:
                allowed.add("fallback_failed")
    return "" if entry.detail in allowed else f"refused without a reason: {entry.detail}"


def _reaches(harm: Harm, entry: Entry) -> bool:
    return not harm.down or entry.to == "pool" or not harm.down.isdisjoint(path_of(entry.to))


DEGRADES = frozenset({"a", "gateway"})
"""What has FALLBACK_ON_ERROR=degrade behind it: its callers get text whatever the fallback does."""


def path_of(to: str) -> frozenset[str]:
    """The processes that a request passes, but for the fallback."""
    return frozenset({"gateway", "a"} if to == "gateway" else {to})
