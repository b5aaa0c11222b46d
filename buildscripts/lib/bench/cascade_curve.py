"""The arithmetic of a cascade: what a threshold sends to the fallback, what that costs, and what it brings."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

ALWAYS = -1.0
"""Score of a clip that falls back whatever the threshold, since it fails another check."""


@dataclass(frozen=True)
class Outcome:
    """What either model made of one clip, and what was known when the choice was made."""

    source: str
    """The recording; copies of one recording share it, so that they are never on both sides of a split."""
    words: int
    """Of the reference."""
    small_errors: int
    large_errors: int
    small_seconds: float
    large_seconds: float
    score: float
    """0 to 1, or `ALWAYS`; the clip falls back where this is below the threshold."""
    keeps_small: bool = False
    """After both have answered, the small model's text is taken to be the better founded."""

    def errors(self, best: bool) -> int:
        """Of what is returned when the clip falls back."""
        return self.small_errors if best and self.keeps_small else self.large_errors


@dataclass(frozen=True)
class Point:
    """What some way of choosing the clips that fall back comes to."""

    threshold: float | None
    """None where no threshold makes the choice."""
    share: float
    """Of the clips fall back."""
    wer: float
    """Errors per word of the references."""
    seconds: float
    """Of inference, both models together."""


@dataclass(frozen=True)
class Halves:
    """Thresholds chosen on one half of the clips, as they did on the other, over several random halves."""

    share: float
    share_spread: float
    wer: float
    wer_spread: float
    """Standard deviation over the halves, as for the share."""
    gain: float | None
    """Of what the large model would inject on all clips, 1 is all of it; None where it brings nothing."""
    gain_quartiles: tuple[float, float] | None
    """Of the single halves: half of them lie between. None where fewer than two halves have something to gain."""


def point(outcomes: Sequence[Outcome], falls_back: Callable[[Outcome], bool], best: bool = False) -> Point:
    """What it comes to if these clips fall back."""
    back = [falls_back(o) for o in outcomes]
    errors = sum(o.errors(best) if b else o.small_errors for o, b in zip(outcomes, back))
    seconds = sum(o.small_seconds + o.large_seconds * b for o, b in zip(outcomes, back))
    return Point(None, sum(back) / len(outcomes), errors / sum(o.words for o in outcomes), seconds)


def at(outcomes: Sequence[Outcome], threshold: float, best: bool = False) -> Point:
    """What a threshold comes to."""
    found = point(outcomes, lambda o: o.score < threshold, best)
    return Point(threshold, found.share, found.wer, found.seconds)


def curve(outcomes: Sequence[Outcome], best: bool = False) -> list[Point]:
    """A point for every set of clips that a threshold can send, from the fewest to all."""
    return [at(outcomes, threshold, best) for threshold in thresholds(o.score for o in outcomes)]


def thresholds(scores: Iterable[float]) -> list[float]:
    """Zero, a threshold between any two neighbours among the scores, and one above all; rising.

    Each with as few decimals, at least two, as tell the neighbours apart: it is to be pasted by people.
    """
    ordered = sorted({score for score in scores if score >= 0})
    above = [*ordered[1:], *(score + 0.01 for score in ordered[-1:])]
    return [0.0, *(_between(low, high) for low, high in zip(ordered, above))]


def _between(low: float, high: float) -> float:
    middle = (low + high) / 2
    for decimals in range(2, 9):
        if low < (rounded := round(middle, decimals)) <= high:
            return rounded
    return high


def chance(outcomes: Sequence[Outcome], share: float, best: bool = False) -> Point:
    """What is to be expected if clips fall back by lot."""
    none, every = point(outcomes, lambda _: False), point(outcomes, lambda _: True, best)
    wer = none.wer + share * (every.wer - none.wer)
    return Point(None, share, wer, none.seconds + share * (every.seconds - none.seconds))


def oracle(outcomes: Sequence[Outcome], share: float) -> Point:
    """The best that a share can do: the clips where the large model saves the most errors, none where it adds any."""
    room = int(share * len(outcomes) + 1e-9)
    saving = sorted(range(len(outcomes)), key=lambda i: outcomes[i].large_errors - outcomes[i].small_errors)
    chosen = {id(outcomes[i]) for i in saving[:room] if outcomes[i].large_errors < outcomes[i].small_errors}
    return point(outcomes, lambda o: id(o) in chosen)


def gain(outcomes: Sequence[Outcome], found: Point) -> float | None:
    """What `found` brings, as a part of what the large model brings on all clips; None where that is nothing."""
    small, large = point(outcomes, lambda _: False).wer, point(outcomes, lambda _: True).wer
    return (small - found.wer) / (small - large) if large < small else None


def for_share(outcomes: Sequence[Outcome], share: float, best: bool = False) -> Point:
    """The highest threshold that sends no more than a share of the clips; 0 where other checks send more."""
    points = curve(outcomes, best)
    return [points[0], *(p for p in points if p.share <= share)][-1]


def for_wer(outcomes: Sequence[Outcome], wer: float, best: bool = False) -> Point | None:
    """The lowest threshold that reaches a word error rate; None where none does."""
    return next((p for p in curve(outcomes, best) if p.wer <= wer), None)


def halves(outcomes: Sequence[Outcome], share: float, best: bool = False, rounds: int = 50) -> Halves:
    """Chooses a threshold for `share` on a random half of the recordings and applies it to the other half."""
    sources = sorted({o.source for o in outcomes})
    points, saved, savable = [], [], []
    for seed in range(rounds):
        chosen = set(random.Random(seed).sample(sources, len(sources) // 2))  # noqa: S311  nothing secret
        known = [o for o in outcomes if o.source in chosen]
        other = [o for o in outcomes if o.source not in chosen]
        found = at(other, for_share(known, share, best).threshold or 0.0, best)
        small, large = point(other, lambda _: False).wer, point(other, lambda _: True).wer
        words = sum(o.words for o in other)
        points.append(found)
        saved.append((small - found.wer) * words)
        savable.append((small - large) * words)
    # A single half may leave the large model nothing to gain, so gains are added up before they are divided.
    total = sum(savable)
    single = [s / t for s, t in zip(saved, savable) if t > 0]
    quartiles = statistics.quantiles(single, n=4, method="inclusive") if len(single) > 1 else None
    return Halves(
        share=statistics.mean(p.share for p in points),
        share_spread=statistics.pstdev(p.share for p in points),
        wer=statistics.mean(p.wer for p in points),
        wer_spread=statistics.pstdev(p.wer for p in points),
        gain=sum(saved) / total if total > 0 else None,
        gain_quartiles=(quartiles[0], quartiles[2]) if quartiles else None,
    )
