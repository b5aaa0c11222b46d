"""What `bench languages` recognizes, and what it counts: languages of recordings, cuts of pairs of recordings."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from buildscripts.lib.load.corpus import UNSPACED_LANGUAGES, Clip, joined, words_kept
from stt_server.audio import SAMPLE_RATE

SHORTEST_S, LONGEST_S = 2.0, 6.0
"""Recordings that are joined: two with their pauses stay one chunk."""
PAUSE_S = 1.0
"""Silence after each recording of a pair."""
LONGER_S = 1.5
"""How much longer than its beginning a recording is, at least."""

Pair = tuple[Clip, Clip]


@dataclass(frozen=True)
class Detection:
    """The language of one recording."""

    name: str
    reference: str
    found: str
    """Empty: no speech was found."""
    probability: float | None
    text: str

    @property
    def wrong(self) -> bool:
        return self.found != self.reference


@dataclass(frozen=True)
class Joined:
    """Two recordings as one, and what was recognized."""

    names: tuple[str, str]
    references: tuple[str, str]
    """Their languages."""
    found: tuple[str, ...]
    """Languages of the segments, in order."""
    kept: int
    """Words of the two texts that each alone has, that are in the text of both."""
    words: int
    text: str

    @property
    def cut(self) -> bool:
        return len(set(self.found)) > 1

    @property
    def right(self) -> bool:
        """Whether the languages that were found are those that are spoken."""
        return set(self.found) == set(self.references)


def beginnings(clips: Iterable[Clip], seconds: float) -> list[Clip]:
    """The first seconds of the recordings that last at least `LONGER_S` more."""
    return [_beginning(clip, seconds) for clip in clips if clip.seconds >= seconds + LONGER_S]


def _beginning(clip: Clip, seconds: float) -> Clip:
    return replace(clip, seconds=seconds, read=lambda: clip.samples[: round(seconds * SAMPLE_RATE)])


def mixed_pairs(clips: Sequence[Clip], count: int, seed: int) -> list[Pair]:
    """Random pairs of recordings in different languages, however many each has; none if there is only one language."""
    pools = _pools(clips)
    draw = random.Random(seed)  # noqa: S311
    if len(pools) < 2:
        return []
    languages = [draw.sample(sorted(pools), 2) for _ in range(count)]
    return [(draw.choice(pools[first]), draw.choice(pools[second])) for first, second in languages]


def same_pairs(clips: Sequence[Clip], most: int, seed: int) -> list[Pair]:
    """Random pairs of recordings in one language, at most `most` in each; no recording twice in the same order."""
    draw = random.Random(seed)  # noqa: S311
    pairs = []
    for _, pool in sorted(_pools(clips).items()):
        own = [(first, second) for first in pool for second in pool if first is not second]
        pairs += draw.sample(own, min(most, len(own)))
    return pairs


def _pools(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Recordings that may be joined, by language."""
    pools: dict[str, list[Clip]] = {}
    for clip in clips:
        if SHORTEST_S <= clip.seconds <= LONGEST_S:
            pools.setdefault(clip.language, []).append(clip)
    return pools


def pair_clip(pair: Pair) -> Clip:
    """The recordings of a pair as one, with a pause after each."""
    return joined(" + ".join(clip.name for clip in pair), list(pair), PAUSE_S)


def joined_result(pair: Pair, alone: Sequence[str], found: Sequence[str], text: str) -> Joined:
    """Result of a pair.

    Args:
        alone: text of each recording alone, in its language.
        found: languages of the segments.
    """
    first, second = pair
    # Words of two languages are compared without the rules of either, but characters where either has no spaces.
    counting = next((clip.language for clip in pair if clip.language in UNSPACED_LANGUAGES), "")
    kept, words = words_kept(" ".join(alone), text, counting)
    return Joined((first.name, second.name), (first.language, second.language), tuple(found), kept, words, text)


def detection_table(whole: Sequence[Detection], starts: Sequence[Detection], seconds: float) -> Table:
    """Table of wrong languages by reference language.

    Args:
        whole: of recordings.
        starts: of their first `seconds`.
    """
    table = Table(title="Recordings whose language is found wrongly", title_justify="left")
    for column in ("language", "recordings", "wrong", "share", f"first {seconds:g} s", "wrong", "share"):
        table.add_column(column, justify="left" if column == "language" else "right")
    for language in sorted({each.reference for each in (*whole, *starts)}):
        own = [[each for each in group if each.reference == language] for group in (whole, starts)]
        table.add_row(language, *_counts(own[0]), *_counts(own[1]))
    table.add_section()
    table.add_row("all", *_counts(whole), *_counts(starts))
    return table


def _counts(found: Sequence[Detection]) -> tuple[str, str, str]:
    wrong = sum(each.wrong for each in found)
    return str(len(found)), str(wrong), f"{wrong / len(found):.0%}" if found else ""


def wrong_lines(whole: Sequence[Detection], starts: Sequence[Detection]) -> list[str]:
    """A line for each wrong language."""
    named = [("", each) for each in whole] + [(", beginning", each) for each in starts]
    return [
        f"{each.name}{part}: {each.reference} found as {each.found or 'no speech'}"
        + ("" if each.probability is None else f" ({each.probability:.2f})")
        for part, each in named
        if each.wrong
    ]


def pairs_line(pairs: Sequence[Joined]) -> str:
    """Sentence about pairs in different languages."""
    kept, words = sum(pair.kept for pair in pairs), sum(pair.words for pair in pairs)
    return (
        f"{len(pairs)} pairs of sentences in different languages, {PAUSE_S:g} s apart: "
        f"{sum(pair.cut for pair in pairs)} are cut, {sum(pair.right for pair in pairs)} between the two languages; "
        f"{kept} of {words} words ({kept / max(1, words):.0%}) of each alone are kept"
    )


def same_line(pairs: Sequence[Joined]) -> str:
    """Sentence about pairs in one language."""
    cut = [pair for pair in pairs if pair.cut]
    languages = len({pair.references for pair in pairs})
    return f"{len(pairs)} chunks of two sentences in one language, {languages} languages: {len(cut)} are cut"
