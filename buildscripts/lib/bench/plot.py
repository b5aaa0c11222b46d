"""A picture of measurements: throughput and p95 against the number of callers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from buildscripts.lib.bench.report import Spread
from buildscripts.lib.load.closed_loop import Measurement
from stt_server.testing.load import percentile


def plot(measurements: Sequence[Measurement], ours: Sequence[str], title: str, path: Path) -> None:
    """Writes a PNG file: ours in solid lines, theirs dashed, the spread over the rounds shaded."""
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title)
    for name in dict.fromkeys(m.contender for m in measurements):
        mine = [m for m in measurements if m.contender == name]
        callers = sorted({m.callers for m in mine})
        rates = [Spread.of(m.throughput for m in mine if m.callers == n) for n in callers]
        waits = [Spread.of(percentile(m.latencies, 0.95) for m in mine if m.callers == n) for n in callers]
        style = "-" if name in ours else "--"
        for axes, spreads in ((left, rates), (right, waits)):
            (line,) = axes.plot(callers, [s.median for s in spreads], style, marker="o", label=name)
            low, high = [s.least for s in spreads], [s.most for s in spreads]
            axes.fill_between(callers, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for axes, label in ((left, "seconds of audio a second"), (right, "p95 of the latency, seconds")):
        axes.set(xlabel="callers", ylabel=label, xscale="log", yscale="log")
        axes.set_xticks(sorted({m.callers for m in measurements}))
        axes.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axes.get_yaxis().set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.get_yaxis().set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
