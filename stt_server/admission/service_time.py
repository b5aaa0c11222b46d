"""How long an inference will take, judged by those that were measured: admission goes by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.engine.types import Chunk

FADE = 0.9
"""What a measurement counts for once the next one is there: ten of them make most of an estimate."""

LARGEST_SURPRISE = 4.0
"""A measurement counts as at most so many times what was expected: one that was held up by something else does little,
and what has really become slower is believed within a few."""

FORGET_S = 300.0
"""Older measurements say nothing of now."""

_ALIKE = 1e-3
"""Below this share of its largest value, a determinant says that all measurements have one length of chunk."""


@dataclass(frozen=True)
class Load:
    """Work for the model."""

    chunks: float = 0.0
    seconds: float = 0.0
    """Of audio in them."""

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> Load:
        lengths = [len(chunk.samples) / SAMPLE_RATE for chunk in chunks]
        return cls(len(lengths), sum(lengths))

    def first(self, chunks: float) -> Load:
        """The part of it that so many of its chunks are, all of it at most."""
        share = min(1.0, max(0.0, chunks / self.chunks)) if self.chunks else 0.0
        return Load(self.chunks * share, self.seconds * share)


class Faded:
    """Sums in which the past fades: what is added counts for `FADE` of itself once more is added."""

    def __init__(self, size: int) -> None:
        self.sums = [0.0] * size

    def add(self, *values: float) -> None:
        self.sums = [total * FADE + value for total, value in zip(self.sums, values, strict=True)]


class Pace:
    """A worker's time: so much a chunk and so much a second of audio, by least squares over the latest inferences.

    Batching is in it: a chunk of a full batch costs less than one alone, and the busier a service is, the more of its
    measurements are of full batches.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: monotonic seconds.
        """
        self._clock = clock
        self._latest = clock()
        self._forget()

    def _forget(self) -> None:
        self._products = Faded(5)
        """Of chunks n, seconds s and time t: nn, ns, ss, nt, st."""
        self._inferences = Faded(2)
        """Their number, and their time."""
        self._rates: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether anything was measured lately."""
        return self._rates is not None and self._clock() - self._latest <= FORGET_S

    def observe(self, load: Load, took: float) -> None:
        """Takes note of one inference: what it was of, at least one chunk, and the seconds that it took."""
        if self.known:
            took = min(took, LARGEST_SURPRISE * self.seconds(load))
        else:
            self._forget()
        n, s = load.chunks, load.seconds
        self._products.add(n * n, n * s, s * s, n * took, s * took)
        self._inferences.add(1.0, took)
        self._rates = _fitted(*self._products.sums)
        self._latest = self._clock()

    def seconds(self, load: Load) -> float:
        """What one worker needs for a load, in seconds; 0 as long as nothing is `known`."""
        a_chunk, a_second = self._rates if self._rates and self.known else (0.0, 0.0)
        return load.chunks * a_chunk + load.seconds * a_second

    @property
    def inference(self) -> float:
        """Seconds of an average inference of late, that of a whole batch; 0 as long as nothing is `known`."""
        count, took = self._inferences.sums
        return took / count if self.known else 0.0


def _fitted(nn: float, ns: float, ss: float, nt: float, st: float) -> tuple[float, float]:
    """Time a chunk and time a second of audio; neither is negative."""
    determinant = nn * ss - ns * ns
    if not ss or determinant < _ALIKE * nn * ss:
        # Nothing tells one from the other; half of each is right for more of the same.
        share = 0.5 if ss else 1.0
        return share * nt / nn, (1 - share) * st / ss if ss else 0.0
    a_chunk = (nt * ss - st * ns) / determinant
    a_second = (st * nn - nt * ns) / determinant
    if a_chunk < 0:
        return 0.0, st / ss
    return (nt / nn, 0.0) if a_second < 0 else (a_chunk, a_second)
