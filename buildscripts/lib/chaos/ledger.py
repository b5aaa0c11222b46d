"""Ledger of a chaos run: every request with its outcome, and the rules for outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from protos.stt.v1.errors import ERRORS

Outcome = Literal["lost", "text", "refused", "unreachable", "broken", "left", "wrong"]
"""`lost`: no outcome. `text`: answered with its own text. `refused`: error of the table, its type in `detail`.
`unreachable`: connection refused. `broken`: connection cut before the answer. `left`: cancelled by the caller on
purpose. `wrong`: text of another request, a text twice, or an invalid answer.
"""

SLACK_S = 3.0
"""Tolerance of a deadline, on an overloaded machine."""
GRACE_S = 1.0
"""Time after the end of a fault in which earlier requests may still fail."""


@dataclass
class Entry:
    """One request."""

    id: str
    transport: str
    """Such as `gRPC` or `pool`."""
    to: str
    """Name of the process it was sent to, or `pool`."""
    unsure: bool
    """Whether the primary is made unsure, so that it asks the fallback."""
    container: str
    sent: float
    """Seconds since the start of the run."""
    deadline: float
    """Seconds from `sent`."""
    done: float | None = None
    outcome: Outcome = "lost"
    detail: str = ""
    said: str = ""
    """Text of the answer."""
    may: tuple[str, ...] = ()
    """Error types that the request provokes."""
    during: tuple[str, ...] = ()
    """Kinds of faults active during the request."""

    @property
    def line(self) -> str:
        """The entry as a line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Impact:
    """Failures that a fault excuses; those of simultaneous faults add up."""

    down: frozenset[str] = frozenset()
    """Processes whose direct callers may see them unavailable."""
    cuts: bool = False
    """Whether these may also cut requests in progress: they were killed, not stopped."""
    pool: frozenset[str] = frozenset()
    """Error types for callers of the pool."""
    everybody: frozenset[str] = frozenset()
    """Error types for any caller."""
    containers: frozenset[str] = frozenset()
    """Error types for recordings other than WAV."""
    fallback: bool = False
    """Whether requests to the fallback may fail."""
    silences: bool = False
    """Whether primaries (those in `down`, or all) have no results, so that every request needs the fallback."""
    unsure: frozenset[str] = frozenset()
    """Error types for requests with an unsure primary, in addition to `fallback_failed`."""


@dataclass
class Window:
    """A fault from its beginning until all services are healthy again."""

    kind: str
    impact: Impact
    began: float
    over: float | None = None

    def touches(self, entry: Entry) -> bool:
        ends = float("inf") if self.over is None else self.over + GRACE_S
        return entry.sent <= ends and (entry.done is None or entry.done >= self.began)


@dataclass
class Ledger:
    """All requests and faults of a run."""

    entries: list[Entry] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)

    def violations(self) -> list[tuple[Entry, str]]:
        """Requests that broke a rule, with the rule."""
        found = []
        for entry in self.entries:
            windows = [window for window in self.windows if window.touches(entry)]
            entry.during = tuple(window.kind for window in windows)
            if violation := violation_of(entry, [window.impact for window in windows]):
                found.append((entry, violation))
        return found

    def write(self, path: Path) -> None:
        """Write the entries as JSON lines, in the order of sending."""
        path.write_text("".join(f"{entry.line}\n" for entry in self.entries), encoding="utf-8")

    def totals(self) -> str:
        """Markdown table of outcomes by transport."""
        counts: Counter[tuple[str, str]] = Counter()
        for entry in self.entries:
            counts[(entry.transport, f"refused: {entry.detail}" if entry.outcome == "refused" else entry.outcome)] += 1
        transports, outcomes = (
            sorted({transport for transport, _ in counts}),
            sorted({outcome for _, outcome in counts}),
        )
        lines = [f"| outcome | {' | '.join(transports)} | all |", "|---" * (len(transports) + 2) + "|"]
        for outcome in outcomes:
            row = [counts[(transport, outcome)] for transport in transports]
            lines.append(f"| {outcome} | {' | '.join(map(str, row))} | {sum(row)} |")
        lines.append(
            f"| all | {' | '.join(str(_total(counts, transport)) for transport in transports)} | {len(self.entries)} |"
        )
        return "\n".join(lines)

    def count(self, outcome: Outcome) -> int:
        return sum(entry.outcome == outcome for entry in self.entries)


def _total(counts: Counter[tuple[str, str]], transport: str) -> int:
    return sum(count for (of, _), count in counts.items() if of == transport)


def violation_of(entry: Entry, impacts: Sequence[Impact]) -> str:
    """Rule that a request broke in spite of the active faults; empty: none."""
    if entry.outcome == "lost" or entry.done is None:
        return "lost: no outcome"
    if entry.outcome == "wrong":
        return "doubled or wrong: not exactly one answer of its own"
    if entry.done - entry.sent > entry.deadline + SLACK_S:
        return f"late: after {entry.done - entry.sent:.1f} s of {entry.deadline:.1f}"
    if entry.outcome in ("text", "left"):
        return ""
    if entry.outcome == "refused":
        return _refusal(entry, impacts)
    if entry.to == "pool":
        return "the pool raised no error of the table"
    reached = [impact for impact in impacts if not impact.down.isdisjoint(path_of(entry.to))]
    if not reached:
        return "the connection was cut by a healthy process"
    if entry.outcome == "broken" and not any(impact.cuts for impact in reached):
        return "the connection was cut by a process that was stopped, not killed"
    return ""


def _refusal(entry: Entry, impacts: Sequence[Impact]) -> str:
    if entry.detail not in ERRORS:
        return "refused without a type of the table"
    allowed = set(entry.may)
    unsure = entry.unsure or any(impact.silences and _reaches(impact, entry) for impact in impacts)
    for impact in impacts:
        allowed |= impact.everybody
        if entry.to == "pool":
            allowed |= impact.pool
        elif not impact.down.isdisjoint(path_of(entry.to)):
            allowed |= {"upstream_unavailable", "not_ready", "deadline_exceeded"}
        if entry.container != "wav":
            allowed |= impact.containers
        if unsure:
            allowed |= impact.unsure
            if impact.fallback and entry.to not in DEGRADES:
                allowed.add("fallback_failed")
    return "" if entry.detail in allowed else f"refused without an active fault that excuses it: {entry.detail}"


def _reaches(impact: Impact, entry: Entry) -> bool:
    return not impact.down or entry.to == "pool" or not impact.down.isdisjoint(path_of(entry.to))


DEGRADES = frozenset({"a", "gateway"})
"""Destinations with FALLBACK_ON_ERROR=degrade: their callers get text whatever the fallback does."""


def path_of(to: str) -> frozenset[str]:
    """Processes that a request passes through, without the fallback."""
    return frozenset({"gateway", "a"} if to == "gateway" else {to})
