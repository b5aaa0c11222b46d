"""Stable prefixes: what two hypotheses in a row agree on stays.

Local agreement (LocalAgreement-2): Liu et al. 2020, "Low-latency sequence-to-sequence speech recognition and
translation by partial hypothesis selection"; used for Whisper by Macháček et al. 2023, "Turning Whisper into real-time
transcription system".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from stt_server.engine.text_checks import is_unspaced

_ANCHOR = 3
"""Words before a place in one text that find the same place in another one."""


class Agreement:
    """The text of one utterance as it grows."""

    def __init__(self) -> None:
        self.stable = ""
        """Only ever grows."""
        self.unstable = ""
        """What the latest hypothesis says behind it, with the space between them."""
        self._stable_words: list[str] = []
        self._previous: list[str] = []

    @property
    def stable_words(self) -> int:
        return len(self._stable_words)

    def add(self, text: str) -> bool:
        """Takes the next hypothesis of the whole utterance. Whether stable or unstable text changed."""
        before = (self.stable, self.unstable)
        words = split_words(text)
        agreed = _common(self._previous, words)
        self._previous = words
        place = _place_of(self._stable_words, words)
        rest = self._mark_behind_stable(words, place) + "".join(words[place:])
        if agreed > place:
            fresh = words[place:agreed]
            if agreed == len(words):
                # What is said next decides whether this was the end of a sentence.
                fresh[-1] = _without_end_mark(fresh[-1])
            grown = len(rest) - len("".join(words[agreed:])) - (len(words[agreed - 1]) - len(fresh[-1]))
            self._stable_words += fresh
            self.stable, rest = self.stable + rest[:grown], rest[grown:]
        self.unstable = rest
        return (self.stable, self.unstable) != before

    def _mark_behind_stable(self, words: Sequence[str], place: int) -> str:
        """The punctuation that the last stable word has in a hypothesis and not in the stable text."""
        if not place or not self._stable_words:
            return ""
        shown, said = self._stable_words[-1].strip(), words[place - 1].strip()
        return said[len(shown) :] if said.startswith(shown) else ""


def split_words(text: str) -> list[str]:
    """A text cut into words, each with the space before it and its punctuation; where words aren't spaced, into
    characters. Joined again they are the text, without space at its end."""
    words: list[str] = []
    for character in text.strip():
        begins = character.isspace() or (is_unspaced(character) and _key(character)) or _hyphenates(words, character)
        if not words or (begins and not words[-1].isspace()) or (words and _ends_unspaced(words[-1], character)):
            words.append(character)
        else:
            words[-1] += character
    return words


def _hyphenates(words: Sequence[str], character: str) -> bool:
    """Whether a hyphen joins what follows to a word: Whisper writes down counting as `1-2-3`."""
    return character == "-" and bool(words) and words[-1][-1].isalnum()


def _ends_unspaced(word: str, character: str) -> bool:
    """Whether a spaced word begins right behind an unspaced one."""
    return is_unspaced(word.strip()[:1] or " ") and bool(_key(character))


def _key(word: str) -> str:
    """A word without case and punctuation; empty for punctuation."""
    return "".join(c for c in word.casefold() if c.isalnum() or unicodedata.category(c).startswith("M"))


def _without_end_mark(word: str) -> str:
    end = len(word)
    while end > 1 and unicodedata.category(word[end - 1]) == "Po" and _key(word[: end - 1]):
        end -= 1
    return word[:end]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words two texts have in common from their beginning."""
    count = 0
    for a, b in zip(one, other):
        if (_key(a) or a.strip()) != (_key(b) or b.strip()):
            break
        count += 1
    return count


def _place_of(stable: Sequence[str], words: Sequence[str]) -> int:
    """How many of `words` the stable ones stand for. A hypothesis may have changed its mind about words that are
    stable, and count one more or less of them: their last words tell the place."""
    for length in range(min(_ANCHOR, len(stable)), 0, -1):
        tail = [_key(word) for word in stable[-length:]]
        ends = [end for end in range(length, len(words) + 1) if [_key(w) for w in words[end - length : end]] == tail]
        near = [end for end in ends if abs(end - len(stable)) <= _ANCHOR]
        if near:
            return min(near, key=lambda end: abs(end - len(stable)))
    return min(len(stable), len(words))
