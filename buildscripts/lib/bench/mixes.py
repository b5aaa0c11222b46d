"""Which recordings a benchmark runs on: short ones, middling ones, long ones, all three mixed, or each clip once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Literal

from buildscripts.lib.load.corpus import Clip, CorpusError, joined

Mix = Literal["short", "middle", "long", "mix", "all"]
MIXES: tuple[Mix, ...] = ("short", "middle", "long", "mix", "all")
SHORT_BELOW = 10.0
MIDDLE_BELOW = 30.0
LONG_FROM = 60.0
"""Seconds."""
_TARGETS = {"middle": (12.0, 24.0), "long": (90.0, 150.0)}
"""Seconds that a join of shorter clips gets to, at least; its last clip may carry it a little further."""
_MIXED: tuple[Literal["short", "middle", "long"], ...] = (
    "short",
    "short",
    "middle",
    "short",
    "long",
    "short",
    "middle",
    "short",
)  # of eight: five, two and one


def choose(clips: Sequence[Clip], mix: Mix, count: int, seed: int = 1) -> list[Clip]:
    """`count` recordings of a mix, the same ones for the same seed, in an order that mixes lengths and languages.

    Where the corpus has fewer of a length than are wanted, clips of one language are joined with pauses; short ones
    are repeated. `all` is every clip of the corpus once, whatever `count` says: for error rates.

    Raises:
        CorpusError: the corpus has no short clip, and so nothing to take or to join.
    """
    if mix == "all":
        return list(clips)
    if not any(clip.seconds < SHORT_BELOW for clip in clips):
        raise CorpusError(f"no clip of under {SHORT_BELOW:.0f} s, which a benchmark takes, or makes longer ones of")
    shuffled = list(clips)
    random.Random(seed).shuffle(shuffled)  # noqa: S311  the order of a benchmark is no secret
    if mix != "mix":
        return list(islice(_endless(shuffled, mix), count))
    sources = {length: _endless(shuffled, length) for length in ("short", "middle", "long")}
    return [next(sources[length]) for length in islice(cycle(_MIXED), count)]


def _endless(clips: Sequence[Clip], length: str) -> Iterator[Clip]:
    if length == "short":
        yield from cycle([clip for clip in clips if clip.seconds < SHORT_BELOW])
    elif length == "middle":
        yield from (clip for clip in clips if SHORT_BELOW <= clip.seconds < MIDDLE_BELOW)
    else:
        yield from (clip for clip in clips if clip.seconds >= LONG_FROM)
    longest = SHORT_BELOW if length == "middle" else LONG_FROM
    yield from _joins([clip for clip in clips if clip.seconds < longest], length)


def _joins(parts: Sequence[Clip], length: str) -> Iterator[Clip]:
    """Recordings made of others, a language for each in proportion to how much of it there is."""
    draw = random.Random(len(parts))  # noqa: S311
    seconds: dict[str, float] = {}
    for clip in parts:
        seconds[clip.language] = seconds.get(clip.language, 0.0) + clip.seconds
    pools = {language: cycle([clip for clip in parts if clip.language == language]) for language in seconds}
    number = 0
    while True:
        number += 1
        language = draw.choices(list(seconds), list(seconds.values()))[0]
        target = draw.uniform(*_TARGETS[length])
        taken: list[Clip] = []
        while sum(clip.seconds for clip in taken) < target:
            taken.append(next(pools[language]))
        yield joined(f"{length}-{number}-{language}", taken)
