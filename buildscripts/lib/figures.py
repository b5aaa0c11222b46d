"""Plots as PNG files; needs the extra `bench`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def figure(path: Path, title: str, *, rows: int = 1, columns: int = 1, **options: Any) -> Iterator[Any]:
    """Matplotlib axes of a figure that is written to `path` at the end of the context.

    Args:
        options: of `pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")  # needs no display
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(rows, columns, layout="constrained", **options)
    drawn.suptitle(title)
    try:
        yield axes
        drawn.savefig(path, dpi=120)
    finally:
        pyplot.close(drawn)


def log_x_axis(axes: Any, ticks: list[int]) -> None:
    """Give `axes` a logarithmic x axis with plain numbers at `ticks`."""
    from matplotlib.ticker import ScalarFormatter

    axes.set_xscale("log")
    axes.set_xticks(ticks)
    axes.get_xaxis().set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
