"""Selection of recordings by length: short, middle, long, a mixture, or each clip once."""

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
"""Limits in seconds."""
_TARGETS = {"middle": (12.0, 24.0), "long": (90.0, 150.0)}
"""Shortest and longest target for the length of joined clips, in seconds; the last clip may exceed it."""
_MIXED: tuple[Literal["short", "middle", "long"], ...] = (
    "short",
    "short",
    "middle",
    "short",
    "long",
    "short",
    "middle",
    "short",
)  # per eight: five short, two middle, one long


def choose(clips: Sequence[Clip], mix: Mix, count: int, seed: int = 1) -> list[Clip]:
    """Choose `count` recordings of a mix, in an order that mixes lengths and languages; deterministic for a seed.

    If the corpus has too few clips of a length, clips of one language are joined with pauses; short clips are repeated.
    `all` is every clip once, whatever `count` is: for error rates.

    Raises:
        CorpusError: the corpus has no short clip to use or to join.
    """
    if mix == "all":
        return list(clips)
    if not any(clip.seconds < SHORT_BELOW for clip in clips):
        raise CorpusError(f"no clip shorter than {SHORT_BELOW:.0f} s; short clips are needed, also to make longer ones")
    shuffled = list(clips)
    random.Random(seed).shuffle(shuffled)  # noqa: S311  not for security
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
    """Joined recordings; languages occur in proportion to their amount of audio."""
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
