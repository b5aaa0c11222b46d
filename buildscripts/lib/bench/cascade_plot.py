"""A picture of a cascade: word error rate against the share of clips that fall back, and against inference time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from buildscripts.lib.bench.cascade_curve import Outcome, Point, chance, curve, oracle

_STYLES = {"mean": ("tab:blue", "the mean signal"), "combined": ("tab:orange", "the combined signal")}


def plot(signals: Mapping[str, Sequence[Outcome]], path: Path, title: str) -> None:
    """Writes a PNG file.

    Args:
        signals: the same clips under each signal's scores.
    """
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot

    clips = next(iter(signals.values()))
    shares = [i / len(clips) for i in range(len(clips) + 1)]
    lines: list[tuple[str, str, str, list[Point]]] = [
        ("by lot", "tab:gray", "-", [chance(clips, share) for share in shares]),
        ("by lot, FINAL_CHOICE=best", "tab:gray", "--", [chance(clips, share, best=True) for share in shares]),
        ("knowing the errors", "tab:green", ":", [oracle(clips, share) for share in shares]),
    ]
    for signal, outcomes in signals.items():
        color, name = _STYLES[signal]
        lines.append((name, color, "-", curve(outcomes)))
        lines.append((f"{name}, FINAL_CHOICE=best", color, "--", curve(outcomes, best=True)))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    figure.suptitle(title)
    alone = sum(o.small_seconds for o in clips)
    for name, color, style, points in lines:
        rates = [100 * p.wer for p in points]
        left.plot([100 * p.share for p in points], rates, style, color=color, label=name)
        right.plot([p.seconds / alone for p in points], rates, style, color=color)
    left.set(xlabel="clips that fall back, %", ylabel="word error rate, %")
    right.set(xlabel="inference, times the small model's alone")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
