"""Figures of `bench scaling`: efficiency against linear, and the fallback pool's utilization against its rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from buildscripts.lib.figures import figure, log_x_axis
from stt_client.bench.analysis import Figures, notes_on

TARGET_UTILIZATION = 0.65
"""Of docs/capacity.md: at more, queueing is most of the latency."""
MACHINE_FULL = 0.8
"""From this share of all cores on, the machine may be the limit."""


@dataclass(frozen=True)
class Setup:
    """What is run at every number of primaries. Times in seconds."""

    slots: int
    """MAX_CONCURRENCY of each primary."""
    inference: float
    """Of a request in a primary."""
    share: float
    """Of the requests that need the fallback, 0 to 1."""
    fallback_inference: float
    fallbacks: int
    fallback_slots: int
    """MAX_CONCURRENCY of each fallback."""
    callers: int
    """For each slot of the primaries."""

    @property
    def pool_slots(self) -> int:
        return self.fallbacks * self.fallback_slots


def pool_slots_for(rate: float, share: float, fallback_inference: float) -> int:
    """Slots of the fallback pool by the rule of docs/scaling.md.

    Args:
        rate: requests per second at the primaries.
        fallback_inference: seconds.
    """
    return math.ceil(rate * share * fallback_inference / TARGET_UTILIZATION)


@dataclass(frozen=True)
class Sample:
    """Counters of all processes at one time. Times in seconds, since their start."""

    at: float
    services_cpu: float
    envoy_cpu: float
    machine_busy: float
    """Clock ticks of all cores, other programs included."""
    machine_total: float
    primary_busy: float
    """Slots of the primaries, all together."""
    pool_busy: float
    """Slots of the fallback pool, all together."""


@dataclass(frozen=True)
class Row:
    """What was measured with one number of primaries."""

    primaries: int
    setup: Setup
    figures: Figures
    first: Sample
    last: Sample
    cores: int
    """Of the machine."""

    def _rate(self, name: str) -> float:
        """Increase of a counter per second."""
        took = self.last.at - self.first.at
        return float(getattr(self.last, name) - getattr(self.first, name)) / took

    @property
    def slots_busy(self) -> float:
        """Utilization of the primaries' slots, 0 to 1."""
        return self._rate("primary_busy") / (self.primaries * self.setup.slots)

    @property
    def pool_busy(self) -> float:
        """Utilization of the fallback pool's slots, 0 to 1."""
        return self._rate("pool_busy") / self.setup.pool_slots

    @property
    def cpu(self) -> dict[str, float]:
        """Shares of all cores that each part used, 0 to 1; `machine`: all programs together."""
        return {
            "services": self._rate("services_cpu") / self.cores,
            "envoy": self._rate("envoy_cpu") / self.cores,
            "callers": self.figures.level.client_cpu / self.cores,
            "machine": self._rate("machine_busy") / self._rate("machine_total"),
        }


class Report:
    """Everything that a run measured.

    Args:
        rows: by increasing number of primaries.
        network: how the services are connected.
        load_average: of this machine before the run.
    """

    def __init__(self, rows: Sequence[Row], network: str, load_average: float) -> None:
        self.rows = rows
        self.setup = rows[0].setup
        self.network = network
        self.load_average = load_average

    @property
    def ok(self) -> bool:
        """Whether every request was answered."""
        return not any(row.figures.level.errors for row in self.rows)

    def _linear(self, row: Row) -> float:
        """Requests per second that so many primaries answer, if each answers as many as in the first row."""
        return self.rows[0].figures.throughput / self.rows[0].primaries * row.primaries

    def efficiency(self, row: Row) -> float:
        """Throughput relative to linear."""
        return row.figures.throughput / self._linear(row)

    def predicted(self, row: Row) -> float:
        """Utilization of the fallback pool, 0 to 1, from the first row's throughput: the sizing rule."""
        return self._linear(row) * self.setup.share * self.setup.fallback_inference / self.setup.pool_slots

    def notes(self) -> Iterator[str]:
        """Reasons to doubt the figures."""
        for row in self.rows:
            where = f"at --primaries {row.primaries}"
            yield from notes_on(row.figures, where)
            *own, machine = row.cpu.values()
            if machine > MACHINE_FULL:
                yield f"{where} the machine was {machine:.0%} busy, {sum(own):.0%} by this run: it may be the limit"

    def as_dict(self) -> dict[str, Any]:
        """JSON-serializable values."""
        return {
            "network": self.network,
            "cores": self.rows[0].cores,
            "load_average_before": round(self.load_average, 2),
            "setup": asdict(self.setup),
            "levels": [
                {
                    "primaries": row.primaries,
                    "efficiency": round(self.efficiency(row), 4),
                    "slots_busy": round(row.slots_busy, 4),
                    "pool_busy_predicted": round(self.predicted(row), 4),
                    "pool_busy": round(row.pool_busy, 4),
                    "cpu": {name: round(share, 4) for name, share in row.cpu.items()},
                    **row.figures.as_dict(),
                }
                for row in self.rows
            ],
            "notes": list(self.notes()),
        }

    def table(self) -> Table:
        """A table that is Markdown as well."""
        setup = self.setup
        table = Table(
            box=box.MARKDOWN,
            caption=f"each primary: MAX_CONCURRENCY={setup.slots}, {setup.inference:g} s an inference, "
            f"{setup.slots * setup.callers} callers. Fallback pool, for {setup.share:.0%} of the requests: "
            f"{setup.fallbacks} x MAX_CONCURRENCY={setup.fallback_slots}, {setup.fallback_inference:g} s an inference",
            caption_justify="left",
        )
        columns = ("primaries", "requests/s", "of linear", "p50 / p95 s", "slots busy", "pool busy, predicted")
        for column in (*columns, "pool busy", "CPU services", "Envoy", "callers", "machine"):
            table.add_column(column, justify="right")
        for row in self.rows:
            quantiles = row.figures.quantiles("total")
            latency = " / ".join(f"{quantiles[name] or 0:.2f}" for name in ("p50", "p95"))
            shares = (self.efficiency(row), row.slots_busy, self.predicted(row), row.pool_busy, *row.cpu.values())
            linear, *others = (f"{share:.1%}" for share in shares)
            table.add_row(str(row.primaries), f"{row.figures.throughput:.2f}", linear, latency, *others)
        return table

    def plot(self, path: Path) -> None:
        """Plot throughput and the pool's utilization by number of primaries. Needs the extra `bench`."""
        counts = [row.primaries for row in self.rows]
        with figure(path, "Scaling out", columns=2, figsize=(11, 4.5)) as (left, right):
            left.plot(counts, [self._linear(row) for row in self.rows], "--", color="tab:gray", label="linear")
            left.plot(counts, [row.figures.throughput for row in self.rows], "o-", label="measured")
            left.set(ylabel="requests per second", yscale="log")
            right.plot(
                counts, [100 * self.predicted(row) for row in self.rows], "--", color="tab:gray", label="predicted"
            )
            right.plot(counts, [100 * row.pool_busy for row in self.rows], "o-", label="fallback pool")
            right.plot(counts, [100 * row.cpu["machine"] for row in self.rows], "o:", color="tab:red", label="machine")
            right.set(ylabel="busy, %", ylim=(0, None))
            for axes in (left, right):
                axes.set(xlabel="primaries")
                log_x_axis(axes, counts)
                axes.grid(alpha=0.3)
                axes.legend()
