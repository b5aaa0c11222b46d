"""Whether texts look like sentences: first letters, full stops, and case and punctuation of the right words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from buildscripts.lib.load.closed_loop import Recording
from stt_server.engine.text_checks import ends_sentence


@dataclass(frozen=True)
class Sentences:
    """Counts over all texts of a contender that aren't empty."""

    texts: int
    lower_case: int
    """Texts whose first letter is in lower case, in scripts that have two cases."""
    unended: int
    """Texts without punctuation that ends a sentence."""
    words: int
    """Words that are right but for case and punctuation, where the reference has both."""
    miswritten: int
    """Of these, those with other letters in capitals, or other punctuation beside them."""

    @property
    def miswritten_rate(self) -> float | None:
        """Case and punctuation errors per right word; None if no reference has both."""
        return self.miswritten / self.words if self.words else None


def sentences(
    recordings: Sequence[Recording], texts: Iterable[Sequence[str]], languages: Callable[[str], bool] = lambda _: True
) -> Sentences:
    """Count over all texts.

    Args:
        texts: of each measurement, in the order of the recordings.
        languages: whether to count recordings in a language; those that are not strict never count.
    """
    total = lower = unended = words = wrong = 0
    for answers in texts:
        for recording, text in zip(recordings, answers, strict=True):
            if not (text.strip() and recording.strict and languages(recording.language)):
                continue
            total += 1
            lower += starts_lower(text)
            unended += not ends_sentence(text)
            if is_written(recording.text):
                right, miswritten = written_errors(recording.text, text)
                words, wrong = words + right, wrong + miswritten
    return Sentences(total, lower, unended, words, wrong)


def starts_lower(text: str) -> bool:
    """Whether the first letter is in lower case. Digits and scripts without cases never are."""
    first = next((character for character in text if character.isalnum()), "")
    return first.islower()


def is_written(reference: str) -> bool:
    """Whether a reference has both capitals and punctuation: others say nothing about either."""
    capitals = any(character.isupper() for character in reference)
    return capitals and not reference.isupper() and any(character in ".,?!" for character in reference)


def written_errors(reference: str, text: str) -> tuple[int, int]:
    """Number of words that both have, and how many of them are written differently."""
    expected, found = reference.split(), text.split()
    matches = SequenceMatcher(None, [_plain(w) for w in expected], [_plain(w) for w in found], autojunk=False)
    pairs = [
        (expected[block.a + i], found[block.b + i])
        for block in matches.get_matching_blocks()
        for i in range(block.size)
        if _plain(expected[block.a + i])
    ]
    return len(pairs), sum(_unified(one) != _unified(other) for one, other in pairs)


def _plain(word: str) -> str:
    """A word without case and punctuation."""
    return "".join(character for character in word.casefold() if unicodedata.category(character)[0] not in "PS")


def _unified(word: str) -> str:
    """A word with plain apostrophes and without quotes, which are a matter of style."""
    return word.replace("’", "'").strip("\"“”„«»‘'()[]")
