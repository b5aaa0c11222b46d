"""Tables of measurements: ratios with their spread over the rounds, percentiles, word error rates."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from rich.console import Console
from rich.table import Table

from buildscripts.lib.bench.sentences import Sentences, sentences
from buildscripts.lib.load.closed_loop import Measurement, Recording
from buildscripts.lib.load.corpus import word_errors, words_lost
from stt_server.engine.text_checks import is_looped
from stt_server.lifecycle.process_limits import usable_cores
from stt_server.testing.load import percentile

CUT_SHORT = 0.6
"""A text with less than this share of the reference's words counts as cut short."""


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """
        Raises:
            ValueError: there are no values.
        """
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        if self.least == self.most:
            return f"{self.median:{spec}}"
        return f"{self.median:{spec}} ({self.least:{spec}} to {self.most:{spec}})"


def ratios(
    measurements: Sequence[Measurement], over: str, under: str, callers: int, value: Callable[[Measurement], float]
) -> Spread:
    """Ratios of a value of two contenders per round, under one load.

    If a contender is measured several times in a round, its mean counts.

    Raises:
        ValueError: no round has both.
    """
    found: dict[tuple[str, int], list[float]] = {}
    for m in measurements:
        if m.callers == callers:
            found.setdefault((m.contender, m.round), []).append(value(m))
    both = [number for name, number in found if name == over and (under, number) in found]
    return Spread.of(statistics.mean(found[over, n]) / statistics.mean(found[under, n]) for n in both)


@dataclass(frozen=True)
class Accuracy:
    """Errors over all texts of a contender."""

    errors: int
    words: int
    looped: int
    """Texts with a repetition that the reference does not have."""
    cut_short: int
    lost: int = 0
    """Words of the references that the texts omit: part of the errors."""

    @property
    def rate(self) -> float | None:
        """Word error rate; None if the references are empty."""
        return self.errors / self.words if self.words else None

    @property
    def lost_rate(self) -> float | None:
        """Share of the references' words that the texts omit; None if the references are empty."""
        return self.lost / self.words if self.words else None


def accuracy(
    recordings: Sequence[Recording], texts: Iterable[Sequence[str]], languages: Callable[[str], bool]
) -> Accuracy:
    """Count errors over all texts.

    Args:
        texts: of each measurement, in the order of the recordings.
        languages: whether to count recordings in a language; those that are not strict never count.
    """
    errors = words = looped = cut = lost = 0
    for answers in texts:
        for recording, text in zip(recordings, answers, strict=True):
            if not (recording.strict and languages(recording.language)):
                continue
            wrong, said = word_errors(recording.text, text, recording.language)
            errors, words = errors + wrong, words + said
            # Against an empty reference every word is an error: counts the words.
            found = word_errors("", text, recording.language)[0]
            lost += words_lost(recording.text, text, recording.language)
            looped += is_looped(text) and not is_looped(recording.text)
            cut += found < CUT_SHORT * said
    return Accuracy(errors, words, looped, cut, lost)


def accuracy_by_group(recordings: Sequence[Recording], texts: Sequence[Sequence[str]]) -> tuple[Accuracy, Accuracy]:
    """Count word errors and defects in English and in the other languages; arguments as for `accuracy`."""
    english = accuracy(recordings, texts, lambda language: language == "en")
    return english, accuracy(recordings, texts, lambda language: language != "en")


def rate_cells(english: Accuracy, others: Accuracy) -> list[str]:
    """Word error rates, then shares of words lost, of both groups; empty for a group without words."""
    rates = (english.rate, others.rate, english.lost_rate, others.lost_rate)
    return ["" if rate is None else f"{rate:.1%}" for rate in rates]


def speed_table(
    measurements: Sequence[Measurement], callers: int, compared: Callable[[str], str | None], title: str
) -> Table:
    """Table of contenders under one load.

    Args:
        compared: contender of ours to compare another with; None: no comparison.
    """
    own = [m for m in measurements if m.callers == callers]
    table = Table(title=title, title_justify="left")
    for column in (
        "",
        "audio s / s",
        "p50 s",
        "p95 s",
        "throughput ratio",
        "processor ratio",
        "p50 ratio",
        "p95 ratio",
        "ratio of",
    ):
        table.add_column(column, justify="left" if column in ("", "ratio of") else "right")
    for name in dict.fromkeys(m.contender for m in own):
        mine = [m for m in own if m.contender == name]
        latencies = [latency for m in mine for latency in m.latencies]
        row = [name, f"{Spread.of(m.throughput for m in mine):.1f}"]
        row += [f"{percentile(latencies, share):.2f}" for share in (0.5, 0.95)]
        row += _compared(own, name, compared(name), callers)
        table.add_row(*row)
    return table


def _compared(measurements: Sequence[Measurement], name: str, ours: str | None, callers: int) -> list[str]:
    """Ratios of `ours` to a contender; above 1 is better for throughput, below 1 for latency."""
    if ours is None:
        return [""] * 5
    times = ratios(measurements, ours, name, callers, lambda m: m.throughput)
    # Inverted, so that more is better, as for throughput.
    processor = ratios(measurements, name, ours, callers, lambda m: m.cpu or 0.0)
    middle = ratios(measurements, ours, name, callers, lambda m: percentile(m.latencies, 0.5))
    high = ratios(measurements, ours, name, callers, lambda m: percentile(m.latencies, 0.95))
    return [f"{times:.1f}", f"{processor:.1f}", f"{middle:.2f}", f"{high:.2f}", f"{ours} / {name}"]


def accuracy_table(measurements: Sequence[Measurement], recordings: Sequence[Recording]) -> Table:
    """Table of word error rates, defects, and case and punctuation errors by contender."""
    table = Table(title="Word error rate over all strict clips, every answer counted", title_justify="left")
    columns = (
        "English",
        "others",
        "words lost",
        "others lost",
        "looped",
        "cut short",
        "lower case",
        "no full stop",
        "case, punctuation",
    )
    for column in ("", *columns, "answers"):
        table.add_column(column, justify="right" if column else "left")
    for name in dict.fromkeys(m.contender for m in measurements):
        texts = [m.texts for m in measurements if m.contender == name]
        english, others = accuracy_by_group(recordings, texts)
        table.add_row(
            name,
            *rate_cells(english, others),
            str(english.looped + others.looped),
            str(english.cut_short + others.cut_short),
            *_sentence_cells(sentences(recordings, texts)),
            str(sum(map(len, texts))),
        )
    table.caption = (
        "words lost: of the reference, part of the errors; lower case, no full stop: texts that begin or end so; "
        "case, punctuation: right words written differently"
    )
    return table


def _sentence_cells(found: Sentences) -> tuple[str, str, str]:
    if not found.texts:
        return "", "", ""
    rate = "" if found.miswritten_rate is None else f"{found.miswritten_rate:.1%}"
    return f"{found.lower_case / found.texts:.1%}", f"{found.unended / found.texts:.1%}", rate


def heading(bench: str, argv: Sequence[str]) -> str:
    """Command line, versions and cores of a run."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("faster-whisper", "ctranslate2"))
    return f"$ {shlex.join(['buildscripts/bench', bench, *argv])}\n{versions}, {usable_cores()} cores, int8"


def console() -> Console:
    """Console on standard output, wide enough for the tables if it is not a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=160)
