"""Plots of the benchmarks `engine`, `cascade` and `live`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from buildscripts.lib.bench.cascade_curve import Outcome, Point, chance, curve, oracle
from buildscripts.lib.bench.live_report import FINAL_LIMIT_S, LiveMeasurement, pooled
from buildscripts.lib.bench.report import Spread
from buildscripts.lib.figures import figure, log_x_axis
from buildscripts.lib.load.closed_loop import Measurement
from stt_server.testing.load import percentile

SIZE = (11, 4.5)
_SIGNALS = {"mean": ("tab:blue", "the mean signal"), "combined": ("tab:orange", "the combined signal")}
"""Color and label of a routing signal."""


def plot_speed(measurements: Sequence[Measurement], ours: Sequence[str], title: str, path: Path) -> None:
    """Throughput and p95 against the number of callers; `ours` in solid lines, others dashed, spread shaded."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator

    with figure(path, title, columns=2, figsize=SIZE) as (left, right):
        for name in dict.fromkeys(m.contender for m in measurements):
            own = [m for m in measurements if m.contender == name]
            callers = sorted({m.callers for m in own})
            rates = [Spread.of(m.throughput for m in own if m.callers == n) for n in callers]
            delays = [Spread.of(percentile(m.latencies, 0.95) for m in own if m.callers == n) for n in callers]
            style = "-" if name in ours else "--"
            for axes, spreads in ((left, rates), (right, delays)):
                (line,) = axes.plot(callers, [s.median for s in spreads], style, marker="o", label=name)
                low, high = [s.least for s in spreads], [s.most for s in spreads]
                axes.fill_between(callers, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        for axes, label in ((left, "seconds of audio per second"), (right, "p95 latency, seconds")):
            axes.set(xlabel="callers", ylabel=label, yscale="log")
            log_x_axis(axes, sorted({m.callers for m in measurements}))
            axes.get_yaxis().set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.get_yaxis().set_major_formatter(FormatStrFormatter("%g"))
            axes.grid(alpha=0.3)
        left.legend()


def plot_cascade(signals: Mapping[str, Sequence[Outcome]], path: Path, title: str) -> None:
    """Word error rate against the share of clips that fall back, and against inference time.

    Args:
        signals: the same clips, with the scores of each signal.
    """
    clips = next(iter(signals.values()))
    small_seconds = sum(o.small_seconds for o in clips)
    with figure(path, title, columns=2, figsize=SIZE, sharey=True) as (left, right):
        for name, color, style, points in _cascade_lines(signals, clips):
            rates = [100 * p.wer for p in points]
            left.plot([100 * p.share for p in points], rates, style, color=color, label=name)
            right.plot([p.seconds / small_seconds for p in points], rates, style, color=color)
        left.set(xlabel="clips that fall back, %", ylabel="word error rate, %")
        right.set(xlabel="inference time, relative to the small model alone")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        left.legend(fontsize="small")


def _cascade_lines(
    signals: Mapping[str, Sequence[Outcome]], clips: Sequence[Outcome]
) -> list[tuple[str, str, str, list[Point]]]:
    """Label, color, style and points of each line."""
    shares = [i / len(clips) for i in range(len(clips) + 1)]
    lines = [
        ("at random", "tab:gray", "-", [chance(clips, share) for share in shares]),
        ("at random, FINAL_CHOICE=best", "tab:gray", "--", [chance(clips, share, best=True) for share in shares]),
        ("knowing the errors", "tab:green", ":", [oracle(clips, share) for share in shares]),
    ]
    for signal, outcomes in signals.items():
        color, name = _SIGNALS[signal]
        lines.append((name, color, "-", curve(outcomes)))
        lines.append((f"{name}, FINAL_CHOICE=best", color, "--", curve(outcomes, best=True)))
    return lines


def plot_live(measurements: Sequence[LiveMeasurement], endpoint_silence: float, title: str, path: Path) -> None:
    """p50 and p95 of first interims and finals against the number of streams."""
    counts = sorted({m.streams for m in measurements})
    with figure(path, title, columns=2, figsize=SIZE) as (left, right):
        for axes, values, offset, label in (
            (left, LiveMeasurement.first_interims, 0.0, "first interim, seconds after speech begins"),
            (right, LiveMeasurement.finals, endpoint_silence, "final, seconds after the endpoint silence"),
        ):
            found = {count: pooled(measurements, count, values) for count in counts}
            for share, style in ((0.5, "-"), (0.95, "--")):
                points = [(count, percentile(each, share) - offset) for count, each in found.items() if each]
                axes.plot(*zip(*points, strict=True), style, color="C0", marker="o", label=f"p{share * 100:.0f}")
            axes.set(xlabel="streams in real time", ylabel=label, ylim=(0, None))
            log_x_axis(axes, counts)
            axes.grid(alpha=0.3)
        right.axhline(FINAL_LIMIT_S, color="C3", linewidth=1, label="limit")
        left.legend()
        right.legend()
