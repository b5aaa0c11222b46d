"""A picture of a soak: memory, what is held, and latency over its hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from buildscripts.lib.soak.growth import VALUES, Sample


def plot(
    samples: Mapping[str, Sequence[Sample]], latencies: Sequence[tuple[float, float]], title: str, path: Path
) -> None:
    """Writes a PNG file.

    Args:
        samples: by process.
        latencies: (hours since the start, median seconds).
    """
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot

    figure, (memory, held, waited) = pyplot.subplots(3, 1, figsize=(9, 9), sharex=True, layout="constrained")
    figure.suptitle(title)
    for name, own in samples.items():
        hours = [sample.hours for sample in own]
        memory.plot(hours, [sample.usage.resident_mib for sample in own], label=f"{name}, resident")
        memory.plot(hours, [sample.floor_mib for sample in own], "--", label=f"{name}, floor")
        memory.plot(hours, [sample.usage.children_mib for sample in own], ":", label=f"{name}, its children")
        for what, value in VALUES.items():
            held.plot(hours, [value(sample) for sample in own], label=f"{name}, {what}")
    waited.plot(*zip(*latencies) if latencies else ((), ()), label="short recordings, median")
    for axes, label in ((memory, "MiB"), (held, "number"), (waited, "seconds")):
        axes.set(ylabel=label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", ncols=2)
    waited.set(xlabel="hours")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
