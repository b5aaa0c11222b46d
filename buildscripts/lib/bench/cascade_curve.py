"""Share, cost and benefit of cascades: what a threshold sends to the fallback, and what it gains."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

ALWAYS = -1.0
"""Score of a clip that falls back at any threshold because it fails another check."""


@dataclass(frozen=True)
class Outcome:
    """Both models' results for one clip, and its score."""

    source: str
    """Name of the recording; copies share it, so that they are on the same side of a split."""
    words: int
    """Number of words of the reference."""
    small_errors: int
    large_errors: int
    small_seconds: float
    large_seconds: float
    score: float
    """0 to 1, or `ALWAYS`; the clip falls back if it is below the threshold."""
    keeps_small: bool = False
    """Whether FINAL_CHOICE=best returns the small model's text."""

    def errors(self, best: bool) -> int:
        """Errors of the returned text if the clip falls back."""
        return self.small_errors if best and self.keeps_small else self.large_errors


@dataclass(frozen=True)
class Point:
    """Result of one way of choosing the clips that fall back."""

    threshold: float | None
    """None if no threshold makes the choice."""
    share: float
    """Share of clips that fall back."""
    wer: float
    """Errors per word of the references."""
    seconds: float
    """Inference time of both models."""


@dataclass(frozen=True)
class Halves:
    """Results of thresholds on one half of the clips, chosen on the other half, over several random splits."""

    share: float
    share_spread: float
    wer: float
    wer_spread: float
    """Standard deviation over the splits, as for the share."""
    gain: float | None
    """Share of the large model's gain on all clips; None if there is none."""
    gain_quartiles: tuple[float, float] | None
    """First and third quartile over the splits; None if fewer than two splits have anything to gain."""


def point(outcomes: Sequence[Outcome], falls_back: Callable[[Outcome], bool], best: bool = False) -> Point:
    """Result if the given clips fall back."""
    back = [falls_back(o) for o in outcomes]
    errors = sum(o.errors(best) if b else o.small_errors for o, b in zip(outcomes, back))
    seconds = sum(o.small_seconds + o.large_seconds * b for o, b in zip(outcomes, back))
    return Point(None, sum(back) / len(outcomes), errors / sum(o.words for o in outcomes), seconds)


def at(outcomes: Sequence[Outcome], threshold: float, best: bool = False) -> Point:
    """Result of a threshold."""
    found = point(outcomes, lambda o: o.score < threshold, best)
    return Point(threshold, found.share, found.wer, found.seconds)


def curve(outcomes: Sequence[Outcome], best: bool = False) -> list[Point]:
    """Results of all distinct thresholds, from no clips to all."""
    return [at(outcomes, threshold, best) for threshold in thresholds(o.score for o in outcomes)]


def thresholds(scores: Iterable[float]) -> list[float]:
    """Zero, a threshold between any two adjacent scores, and one above all; ascending.

    Each has as few decimals, at least two, as separate the scores: it is meant to be pasted.
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
    """Expected result if clips fall back at random."""
    none, every = point(outcomes, lambda _: False), point(outcomes, lambda _: True, best)
    wer = none.wer + share * (every.wer - none.wer)
    return Point(None, share, wer, none.seconds + share * (every.seconds - none.seconds))


def oracle(outcomes: Sequence[Outcome], share: float) -> Point:
    """Best possible result of a share: send the clips for which the large model saves the most errors."""
    room = int(share * len(outcomes) + 1e-9)
    saving = sorted(range(len(outcomes)), key=lambda i: outcomes[i].large_errors - outcomes[i].small_errors)
    chosen = {id(outcomes[i]) for i in saving[:room] if outcomes[i].large_errors < outcomes[i].small_errors}
    return point(outcomes, lambda o: id(o) in chosen)


def gain(outcomes: Sequence[Outcome], found: Point) -> float | None:
    """Gain of `found` as a share of the large model's gain on all clips; None if there is none."""
    small, large = point(outcomes, lambda _: False).wer, point(outcomes, lambda _: True).wer
    return (small - found.wer) / (small - large) if large < small else None


def for_share(outcomes: Sequence[Outcome], share: float, best: bool = False) -> Point:
    """Highest threshold that sends at most a share of the clips; 0 if other checks send more."""
    points = curve(outcomes, best)
    return [points[0], *(p for p in points if p.share <= share)][-1]


def for_wer(outcomes: Sequence[Outcome], wer: float, best: bool = False) -> Point | None:
    """Lowest threshold that reaches a word error rate; None if none does."""
    return next((p for p in curve(outcomes, best) if p.wer <= wer), None)


def halves(outcomes: Sequence[Outcome], share: float, best: bool = False, rounds: int = 50) -> Halves:
    """Choose a threshold for `share` on a random half of the recordings and apply it to the other half."""
    sources = sorted({o.source for o in outcomes})
    points, saved, savable = [], [], []
    for seed in range(rounds):
        chosen = set(random.Random(seed).sample(sources, len(sources) // 2))  # noqa: S311  not for security
        known = [o for o in outcomes if o.source in chosen]
        other = [o for o in outcomes if o.source not in chosen]
        found = at(other, for_share(known, share, best).threshold or 0.0, best)
        small, large = point(other, lambda _: False).wer, point(other, lambda _: True).wer
        words = sum(o.words for o in other)
        points.append(found)
        saved.append((small - found.wer) * words)
        savable.append((small - large) * words)
    # Gains are summed before they are divided: a single half may leave the large model nothing to gain.
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
