"""Printed report of `bench cascade`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from buildscripts.lib.bench.cascade_curve import (
    Halves,
    Outcome,
    Point,
    at,
    chance,
    for_share,
    for_wer,
    gain,
    halves,
    oracle,
    point,
)

SHARES = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50, 0.75, 1.0)
DEFAULT_THRESHOLD = 0.55
ROUNDS = 50

Signals = Mapping[str, Sequence[Outcome]]
"""The same clips in the same order, with the scores of each signal."""
CHOICES = (False, True)
"""FINAL_CHOICE: fallback, best."""


def overview(console: Console, clips: Sequence[Outcome], small: str, large: str) -> None:
    """Error rates of each model alone, and of the better of both for each clip."""
    none, every = point(clips, lambda _: False), point(clips, lambda _: True)
    asked = sum(o.large_seconds for o in clips)
    table = Table("", "word error rate", "seconds of inference", title=_title(clips))
    table.add_row(f"{small} alone", _percent(none.wer), f"{none.seconds:.1f}")
    table.add_row(f"{large} alone", _percent(every.wer), f"{asked:.1f} ({asked / none.seconds:.1f} times)")
    ideal = point(clips, lambda o: o.large_errors < o.small_errors)
    table.add_row("the better of the two for each clip", _percent(ideal.wer), f"{none.seconds + asked:.1f}")
    console.print(table)
    better = sum(o.large_errors < o.small_errors for o in clips)
    worse = sum(o.large_errors > o.small_errors for o in clips)
    console.print(f"The large model is better on {better} clips, worse on {worse}, equal on the rest.")
    if every.wer >= none.wer:
        console.print("The large model gains nothing over all clips: no threshold can be recommended.")


def _title(clips: Sequence[Outcome]) -> str:
    return f"{len(clips)} clips of {len({o.source for o in clips})} recordings, {sum(o.words for o in clips)} words"


def curves(console: Console, signals: Signals) -> None:
    """Word error rates by share of clips that fall back; in brackets with FINAL_CHOICE=best."""
    clips = next(iter(signals.values()))
    table = Table(
        "clips that may fall back", "at random", title="word error rate (with FINAL_CHOICE=best), threshold: share"
    )
    for name in signals:
        table.add_column(name)
    table.add_column("knowing the errors")
    for share in SHARES:
        row = [_percent(share, 0), _both([chance(clips, share, best) for best in CHOICES])]
        for outcomes in signals.values():
            found = [for_share(outcomes, share, best) for best in CHOICES]
            row.append(f"{_both(found)}, {_threshold(found[0])}: {_percent(found[0].share, 0)}")
        table.add_row(*row, _percent(oracle(clips, share).wer))
    console.print(table)


def at_default(console: Console, signals: Signals) -> None:
    """Result of the default threshold."""
    table = Table("signal", "FINAL_CHOICE", "fall back", "word error rate", "gain", "inference seconds")
    table.title = f"CONF_LOGPROB_THRESHOLD={DEFAULT_THRESHOLD}"
    for name, outcomes in signals.items():
        for best in CHOICES:
            table.add_row(name, _choice(best), *_cells(outcomes, at(outcomes, DEFAULT_THRESHOLD, best)))
    console.print(table)


def across_halves(console: Console, signals: Signals, share: float) -> dict[tuple[str, bool], Halves]:
    """Results of thresholds chosen on one half and applied to the other."""
    table = Table("signal", "FINAL_CHOICE", "fall back", "word error rate", "share of the large model's gain")
    table.title = f"threshold for {_percent(share, 0)} chosen on one half, applied to the other, {ROUNDS} random splits"
    found = {}
    for name, outcomes in signals.items():
        for best in CHOICES:
            half = found[name, best] = halves(outcomes, share, best, ROUNDS)
            table.add_row(
                name,
                _choice(best),
                f"{_percent(half.share, 0)} ± {_percent(half.share_spread, 0)}",
                f"{_percent(half.wer)} ± {_percent(half.wer_spread)}",
                _gain(half),
            )
    console.print(table)
    return found


def _gain(half: Halves) -> str:
    if half.gain is None:
        return "none available"
    low, high = half.gain_quartiles or (half.gain, half.gain)
    return f"{_percent(half.gain, 0)} (half of the splits {_percent(low, 0)} to {_percent(high, 0)})"


def recommend(console: Console, signals: Signals, share: float, wer: float | None) -> None:
    """Settings to paste, for a share and for an error rate."""
    picks = [(name, best, for_share(outcomes, share, best)) for name, outcomes in signals.items() for best in CHOICES]
    console.print(f"\nFewest errors with at most {_percent(share, 0)} of the clips falling back:")
    _paste(console, signals, min(picks, key=lambda pick: (pick[2].wer, pick[2].share)))
    if wer is None:
        return
    reached = [(n, b, p) for n, outcomes in signals.items() for b in CHOICES if (p := for_wer(outcomes, wer, b))]
    console.print(f"\nFewest clips falling back with a word error rate of {_percent(wer)}:")
    if reached:
        _paste(console, signals, min(reached, key=lambda pick: pick[2].share))
    else:
        console.print("no threshold reaches it with these models")


def _paste(console: Console, signals: Signals, pick: tuple[str, bool, Point]) -> None:
    name, best, found = pick
    share, wer, part, seconds = _cells(signals[name], found)
    console.print(f"CONF_LOGPROB_THRESHOLD={_threshold(found)}\nROUTING_SIGNAL={name}\nFINAL_CHOICE={_choice(best)}")
    console.print(f"  {share} fall back, word error rate {wer}, gain {part}, {seconds} s of inference")


def _cells(outcomes: Sequence[Outcome], found: Point) -> tuple[str, str, str, str]:
    part = gain(outcomes, found)
    return (
        _percent(found.share, 0),
        _percent(found.wer),
        "none available" if part is None else _percent(part, 0),
        f"{found.seconds:.1f}",
    )


def _both(points: Sequence[Point]) -> str:
    return f"{_percent(points[0].wer)} ({_percent(points[1].wer)})"


def _choice(best: bool) -> str:
    return "best" if best else "fallback"


def _threshold(found: Point) -> str:
    # The key takes at most 1; scores are below 1.
    return f"{min(found.threshold or 0.0, 1.0):.10g}"


def _percent(value: float, decimals: int = 1) -> str:
    return f"{100 * value:.{decimals}f} %"
