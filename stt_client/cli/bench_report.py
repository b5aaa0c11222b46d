"""Output of `stt bench`: progress, tables, the curve in the terminal or as a PNG file, and JSON."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stt_client.bench.analysis import QUANTILES, STEPS, Advice, Figures, advise
from stt_client.bench.load import REFUSALS, Level
from stt_client.results import Status

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 160
"""Columns of the output where there is no terminal."""
BAR_COLUMNS = 30
TITLES = {"total": "end to end ms", "primary": "primary ms", "fallback": "fallback ms", "queue_wait": "queue wait ms"}


class LevelBar:
    """Context manager that shows the progress of a run on standard error, if that is a terminal.

    Args:
        callers: of each level.
        seconds: expected length of a level.
    """

    def __init__(self, callers: Sequence[int], seconds: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._levels = len(callers)
        self._seconds = seconds
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("Warming up", total=len(callers))
        self._done = 0

    def __enter__(self) -> LevelBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, callers: int) -> None:
        """Note that a level has begun."""
        text = f"{callers} callers for {self._seconds:g} s ({self._done + 1}/{self._levels})"
        self._progress.update(self._task, description=text)

    def finish(self, level: Level) -> None:
        """Note that a level is complete."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)


class Report:
    """Everything that a run measured.

    Args:
        servers: addresses.
        statuses: of the services, before the run.
        levels: by increasing number of callers.
    """

    def __init__(self, servers: Sequence[str], statuses: Sequence[Status], levels: Sequence[Level]) -> None:
        self._servers = servers
        self._statuses = statuses
        self._figures = [Figures(level) for level in levels]

    @cached_property
    def advice(self) -> Advice | None:
        return advise(self._figures, self._statuses)

    @property
    def ok(self) -> bool:
        """Whether something was answered, and no request failed other than by a refusal."""
        return self.advice is not None and all(figures.level.errors.keys() <= REFUSALS for figures in self._figures)

    def as_dict(self) -> dict[str, Any]:
        """JSON-serializable values."""
        advice = self.advice
        return {
            "services": [
                {"server": server, "model": status.model, "device": status.device, "limits": vars(status.limits)}
                for server, status in zip(self._servers, self._statuses, strict=True)
            ],
            "levels": [figures.as_dict() for figures in self._figures],
            "knee": None if advice is None else advice.knee.callers,
            "MAX_CONCURRENCY": None if advice is None else advice.max_concurrency,
            "MAX_BATCH_SIZE": None if advice is None else advice.max_batch_size,
            "notes": [] if advice is None else list(advice.notes),
        }

    def print(self) -> None:
        """Print tables, curve and advice on standard output."""
        from rich.console import Console

        console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
        for part in (self._services(), self._load_table(), self._latency_table(), self._curve(), *self._conclusion()):
            console.print(part, highlight=False)

    def _services(self) -> RenderableType:
        from rich.text import Text

        lines = [
            f"{server}: {status.service}, {status.model} on {status.device} ({status.compute_type}), "
            f"{status.limits.max_concurrency} slots, commit {status.server_commit}"
            for server, status in zip(self._servers, self._statuses, strict=True)
        ]
        return Text("\n".join([*lines, ""]))

    def _load_table(self) -> RenderableType:
        columns = ("callers", "requests/s", "audio s/s", "fallbacks", "refused", "other errors", "GPU %", "GPU MiB")
        little = ("in flight", "rate * latency", "in the service")
        rows = []
        for figures in self._figures:
            law, other = figures.little, sum(figures.level.errors.values()) - figures.level.refused
            cells = [str(figures.callers), f"{figures.throughput:.2f}", f"{figures.audio_rate:.1f}"]
            cells += [_number(figures.fallback_share, ".1%"), str(figures.level.refused), str(other)]
            cells += [_number(figures.gpu("utilization_pct"), ".0f"), _number(figures.gpu("mem_used_mb"), ".0f")]
            cells += [f"{law.callers:.2f}", f"{law.product:.2f}", _number(law.service, ".2f")]
            rows.append(cells)
        return _table((*columns, *little), rows)

    def _latency_table(self) -> RenderableType:
        quantiles = "/".join(QUANTILES)
        rows = [
            [str(figures.callers), *(_milliseconds(figures.quantiles(step).values()) for step in STEPS)]
            for figures in self._figures
        ]
        return _table(("callers", *(f"{TITLES[step]} {quantiles}" for step in STEPS)), rows)

    def _curve(self) -> RenderableType:
        """Throughput and p95 by number of callers, as bars."""
        from rich.bar import Bar
        from rich.table import Table
        from rich.text import Text

        tails = [figures.quantiles("total")["p95"] or 0.0 for figures in self._figures]
        most, longest = max(figures.throughput for figures in self._figures), max(tails)
        grid = Table.grid(padding=(0, 1))
        grid.add_row("callers", "requests/s", "", "p95 ms", "")
        for figures, tail in zip(self._figures, tails, strict=True):
            knee = self.advice is not None and figures is self.advice.knee
            grid.add_row(
                Text(f"{figures.callers}{' <- knee' if knee else ''}", style="bold" if knee else ""),
                Bar(most or 1.0, 0, figures.throughput, width=BAR_COLUMNS, color="green"),
                f"{figures.throughput:.2f}",
                Bar(longest or 1.0, 0, tail, width=BAR_COLUMNS, color="yellow"),
                f"{tail * 1000:.0f}",
            )
        return grid

    def _conclusion(self) -> Iterator[RenderableType]:
        from rich.text import Text

        if self.advice is None:
            errors = sum((figures.level.errors for figures in self._figures), Counter[str]())
            yield Text(f"\nNothing was answered: {', '.join(f'{count} {type_}' for type_, count in errors.items())}")
            return
        knee = self.advice.knee
        yield Text(
            f"\nThe knee is at --callers {knee.callers}: {knee.throughput:.2f} requests/s, "
            f"{knee.at_model:.1f} of them at the model at a time (waiting or running).\n"
            f"MAX_CONCURRENCY={self.advice.max_concurrency}\nMAX_BATCH_SIZE={self.advice.max_batch_size}"
        )
        for note in self.advice.notes:
            yield Text(f"Note: {note}.")

    def write_png(self, path: Path) -> None:
        """Plot throughput and latency by number of callers. Requires matplotlib. Raises OSError."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4), layout="constrained")
        FigureCanvasAgg(figure)
        throughput, latency = figure.subplots(1, 2)
        callers = [figures.callers for figures in self._figures]
        throughput.plot(callers, [figures.throughput for figures in self._figures], "o-", color="tab:green")
        throughput.set(xlabel="callers", ylabel="requests per second")
        for name in QUANTILES:
            values = [figures.quantiles("total")[name] for figures in self._figures]
            latency.plot([figures.throughput for figures in self._figures], values, "o-", label=name)
        latency.set(xlabel="requests per second", ylabel="seconds, end to end")
        latency.legend()
        if self.advice is not None:
            throughput.axvline(self.advice.knee.callers, linestyle="--", color="gray", label="knee")
            latency.axvline(self.advice.knee.throughput, linestyle="--", color="gray")
        for axes in (throughput, latency):
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        figure.savefig(path, format="png", dpi=120)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """A table that is Markdown as well."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float | None, format_: str) -> str:
    return "-" if value is None else format(value, format_)


def _milliseconds(values: Iterable[float | None]) -> str:
    return " / ".join(_number(None if value is None else value * 1000, ".0f") for value in values)
