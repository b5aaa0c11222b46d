"""Forecast how long an inference takes, from measurements of past ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.engine.types import Chunk

DECAY = 0.9
"""Weight of a measurement relative to the next one: the latest ten make up most of an estimate."""

MAX_SURPRISE = 4.0
"""A measurement counts as at most this multiple of its forecast: one outlier does little, while a real slowdown is
learned within a few inferences."""

FORGET_S = 300.0
"""Seconds after which the latest measurement is too old to forecast from."""

_MIN_DETERMINANT = 1e-3
"""Share of its largest possible value below which a determinant means that all measured chunks have one length."""


@dataclass(frozen=True)
class Load:
    """An amount of work for the model."""

    chunks: float = 0.0
    seconds: float = 0.0
    """Of audio in the chunks."""

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> Load:
        lengths = [len(chunk.samples) / SAMPLE_RATE for chunk in chunks]
        return cls(len(lengths), sum(lengths))

    def first(self, chunks: float) -> Load:
        """The load of at most `chunks` of its chunks, taken as equally long."""
        share = min(1.0, max(0.0, chunks / self.chunks)) if self.chunks else 0.0
        return Load(self.chunks * share, self.seconds * share)


class DecayingSums:
    """Sums whose terms decay by `DECAY` with each addition."""

    def __init__(self, size: int) -> None:
        self.sums = [0.0] * size

    def add(self, *values: float) -> None:
        self.sums = [total * DECAY + value for total, value in zip(self.sums, values, strict=True)]


class ServiceTime:
    """Forecasts a worker's time: seconds per chunk plus seconds per second of audio, by decaying least squares.

    Batching is included: a chunk of a full batch costs less than one alone, and a busy service measures full batches.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: monotonic seconds.
        """
        self._clock = clock
        self._latest = clock()
        self._rates: tuple[float, float] | None = None
        """Seconds per chunk, and per second of audio."""
        self._reset()

    def _reset(self) -> None:
        self._products = DecayingSums(5)
        """Of chunks n, seconds of audio s and time t: nn, ns, ss, nt, st."""
        self._inferences = DecayingSums(2)
        """Number of inferences, and their time."""
        self._rates = None

    @property
    def known(self) -> bool:
        """Whether there are recent measurements."""
        return self._rates is not None and self._clock() - self._latest <= FORGET_S

    def observe(self, load: Load, seconds: float) -> None:
        """Record that one inference of at least one chunk took `seconds`."""
        if self.known:
            seconds = min(seconds, MAX_SURPRISE * self.seconds(load))
        else:
            self._reset()
        n, s = load.chunks, load.seconds
        self._products.add(n * n, n * s, s * s, n * seconds, s * seconds)
        self._inferences.add(1.0, seconds)
        self._rates = _least_squares(*self._products.sums)
        self._latest = self._clock()

    def seconds(self, load: Load) -> float:
        """Seconds that one worker needs for a load; 0 unless `known`."""
        per_chunk, per_second = self._rates if self._rates and self.known else (0.0, 0.0)
        return load.chunks * per_chunk + load.seconds * per_second

    @property
    def inference(self) -> float:
        """Mean seconds of a recent inference, whole batches included; 0 unless `known`."""
        count, seconds = self._inferences.sums
        return seconds / count if self.known else 0.0


def _least_squares(nn: float, ns: float, ss: float, nt: float, st: float) -> tuple[float, float]:
    """Time per chunk and per second of audio, neither negative."""
    determinant = nn * ss - ns * ns
    if not ss or determinant < _MIN_DETERMINANT * nn * ss:
        # Chunks of one length: the two can't be separated, and half of each is right for more of the same.
        share = 0.5 if ss else 1.0
        return share * nt / nn, (1 - share) * st / ss if ss else 0.0
    per_chunk = (nt * ss - st * ns) / determinant
    per_second = (st * nn - nt * ns) / determinant
    if per_chunk < 0:
        return 0.0, st / ss
    return (nt / nn, 0.0) if per_second < 0 else (per_chunk, per_second)
