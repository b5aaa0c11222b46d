"""Report of live measurements: latencies by number of streams, and word errors relative to `Transcribe`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from buildscripts.lib.bench.live_load import LiveRecording, Trace
from buildscripts.lib.load.corpus import word_errors
from stt_server.testing.load import percentile

FINAL_LIMIT_S = 1.0
"""Limit for p95 of the finals, after the endpoint silence, up to which a service counts as keeping up."""


@dataclass(frozen=True)
class LiveMeasurement:
    """One run of several concurrent streams, each with its own recording."""

    way: str
    """Key of `live_ways.WAYS`."""
    streams: int
    round: int
    traces: tuple[Trace, ...]
    wall: float
    """Seconds."""
    cpu: float | None
    """Processor seconds of the services; None if unknown."""
    client_cpu: float
    """Processor seconds of this process, the client."""
    interims: int
    thinned: int
    """Number of interims that the service skipped."""

    def first_interims(self) -> list[float]:
        """Seconds."""
        return [u.first_interim for trace in self.traces for u in trace.utterances if u.first_interim is not None]

    def finals(self) -> list[float]:
        """Seconds from the end of speech."""
        return [u.final for trace in self.traces for u in trace.utterances if u.final is not None]

    @property
    def utterances(self) -> int:
        return sum(len(trace.utterances) for trace in self.traces)


def pooled(
    measurements: Sequence[LiveMeasurement], streams: int, values: Callable[[LiveMeasurement], list[float]]
) -> list[float]:
    """Values of all rounds with `streams` streams."""
    return [value for m in measurements if m.streams == streams for value in values(m)]


def greatest(measurements: Sequence[LiveMeasurement], endpoint_silence: float) -> int:
    """Largest number of streams up to which p95 of the finals stays within `FINAL_LIMIT_S`; 0 if none."""
    found = 0
    for streams in sorted({m.streams for m in measurements}):
        finals = pooled(measurements, streams, LiveMeasurement.finals)
        if not finals or percentile(finals, 0.95) - endpoint_silence >= FINAL_LIMIT_S:
            break
        found = streams
    return found


def live_table(measurements: Sequence[LiveMeasurement], endpoint_silence: float, title: str) -> Table:
    """Table with a row per number of streams."""
    table = Table(title=title, title_justify="left")
    for column in (
        "streams",
        "first interim p50 s",
        "p95",
        f"final after {endpoint_silence:g} s p50 s",
        "p95",
        "lag at end p95 s",
        "processors, service",
        "client",
        "interims",
        "thinned",
        "utterances",
        "timed",
        "by fallback",
    ):
        table.add_column(column, justify="right")
    for streams in sorted({m.streams for m in measurements}):
        table.add_row(str(streams), *_row([m for m in measurements if m.streams == streams], endpoint_silence))
    return table


def _row(own: Sequence[LiveMeasurement], endpoint_silence: float) -> list[str]:
    firsts = [value for m in own for value in m.first_interims()]
    finals = [value for m in own for value in m.finals()]
    lags = [trace.lag for m in own for trace in m.traces]
    wall = sum(m.wall for m in own)
    known = all(m.cpu is not None for m in own)
    return [
        *(f"{percentile(firsts, share):.2f}" if firsts else "" for share in (0.5, 0.95)),
        *(f"{percentile(finals, share) - endpoint_silence:.2f}" if finals else "" for share in (0.5, 0.95)),
        f"{percentile(lags, 0.95):.2f}",
        f"{sum(m.cpu or 0.0 for m in own) / wall:.2f}" if known else "",
        f"{sum(m.client_cpu for m in own) / wall:.2f}",
        str(sum(m.interims for m in own)),
        str(sum(m.thinned for m in own)),
        str(sum(m.utterances for m in own)),
        str(len(finals)),
        str(sum(trace.fallbacks for m in own for trace in m.traces)),
    ]


def cost_lines(measurements: Sequence[LiveMeasurement]) -> list[str]:
    """Processor time of the services by each way, relative to the first, for each number of streams."""
    ways = list(dict.fromkeys(m.way for m in measurements))
    lines = []
    for streams in sorted({m.streams for m in measurements}):
        seconds = {
            way: [m.cpu for m in measurements if (m.way, m.streams) == (way, streams) and m.cpu is not None]
            for way in ways
        }
        first = sum(seconds[ways[0]])
        for way in ways[1:]:
            if first and seconds[way]:
                ratio = sum(seconds[way]) / first
                lines.append(f"Processor time, streams {streams}: {way} / {ways[0]} {ratio:.3f}")
    return lines


def error_rate(recordings: Sequence[LiveRecording], texts: Sequence[str]) -> float:
    """Word error rate of texts in the order of the recordings."""
    counts = [
        word_errors(recording.whole.text, text, recording.whole.language)
        for recording, text in zip(recordings, texts, strict=True)
    ]
    return sum(wrong for wrong, _ in counts) / max(1, sum(words for _, words in counts))


def error_lines(
    measurements: Sequence[LiveMeasurement], recordings: Sequence[LiveRecording], transcribed: Sequence[str]
) -> list[str]:
    """Word error rates of the finals and of `Transcribe`, on the same recordings."""
    lines = []
    for streams in sorted({m.streams for m in measurements}):
        texts = [trace.text for m in measurements if m.streams == streams for trace in m.traces]
        rounds = len(texts) // streams
        streamed = error_rate([*recordings[:streams]] * rounds, texts)
        whole = error_rate(recordings[:streams], transcribed[:streams])
        lines.append(
            f"Word error rate, {streams} stream{'s' * (streams > 1)}: finals {streamed:.1%}, "
            f"Transcribe {whole:.1%}: {100 * (streamed - whole):+.1f} points"
        )
    return lines
