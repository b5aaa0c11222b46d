"""Stable prefixes of successive hypotheses: words that two hypotheses in a row share do not change any more.

LocalAgreement-2: Liu et al. 2020, "Low-latency sequence-to-sequence speech recognition and
translation by partial hypothesis selection"; used for Whisper by Macháček et al. 2023, "Turning Whisper into real-time
transcription system".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from stt_server.engine.text_checks import is_unspaced

_ANCHOR = 3
"""Words in a row that align the stable text with a new hypothesis, and the largest shift between them in words."""


class Agreement:
    """Splits the text of one utterance into a stable and an unstable part."""

    def __init__(self) -> None:
        self.stable = ""
        """Only grows."""
        self.unstable = ""
        """The rest of the latest hypothesis, including the space before it."""
        self._stable_words: list[str] = []
        self._previous: list[str] = []

    @property
    def stable_words(self) -> int:
        return len(self._stable_words)

    def add(self, text: str) -> bool:
        """Add a hypothesis of the whole utterance; return whether the stable or the unstable text changed."""
        before = (self.stable, self.unstable)
        words = split_words(text)
        agreed = _common(self._previous, words)
        self._previous = words
        start = _align(self._stable_words, words)
        rest = self._punctuation_after_stable(words, start) + "".join(words[start:])
        if agreed > start:
            fresh = words[start:agreed]
            if agreed == len(words):
                # Whether the sentence ends here depends on the next words.
                fresh[-1] = _strip_punctuation(fresh[-1])
            grown = len(rest) - len("".join(words[agreed:])) - (len(words[agreed - 1]) - len(fresh[-1]))
            self._stable_words += fresh
            self.stable, rest = self.stable + rest[:grown], rest[grown:]
        self.unstable = rest
        return (self.stable, self.unstable) != before

    def _punctuation_after_stable(self, words: Sequence[str], start: int) -> str:
        """Punctuation that the last stable word has in the hypothesis but not in the stable text."""
        if not start or not self._stable_words:
            return ""
        stable, word = self._stable_words[-1].strip(), words[start - 1].strip()
        return word[len(stable) :] if word.startswith(stable) else ""


def split_words(text: str) -> list[str]:
    """Split a text into words, and scripts without spaces into characters.

    Each word keeps the space before it and its punctuation, so that joining them gives the text without outer spaces.
    """
    words: list[str] = []
    for character in text.strip():
        begins = character.isspace() or (is_unspaced(character) and _key(character)) or _is_hyphen(words, character)
        if not words or (begins and not words[-1].isspace()) or (words and _follows_unspaced(words[-1], character)):
            words.append(character)
        else:
            words[-1] += character
    return words


def _is_hyphen(words: Sequence[str], character: str) -> bool:
    """Whether a hyphen follows a word directly: Whisper writes counting as `1-2-3`."""
    return character == "-" and bool(words) and words[-1][-1].isalnum()


def _follows_unspaced(word: str, character: str) -> bool:
    """Whether a word starts directly after a character of a script without spaces."""
    return is_unspaced(word.strip()[:1] or " ") and bool(_key(character))


def _key(word: str) -> str:
    """The word in lower case without punctuation; empty for punctuation alone."""
    return "".join(c for c in word.casefold() if c.isalnum() or unicodedata.category(c).startswith("M"))


def _strip_punctuation(word: str) -> str:
    """Remove punctuation from the end of a word."""
    end = len(word)
    while end > 1 and unicodedata.category(word[end - 1]) == "Po" and _key(word[: end - 1]):
        end -= 1
    return word[:end]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the common prefix of two texts in words, ignoring case and punctuation."""
    count = 0
    for a, b in zip(one, other):
        if (_key(a) or a.strip()) != (_key(b) or b.strip()):
            break
        count += 1
    return count


def _align(stable: Sequence[str], words: Sequence[str]) -> int:
    """Number of `words` that correspond to the stable ones.

    A hypothesis may contradict stable words and have more or fewer of them; the last stable words align the two.
    """
    for length in range(min(_ANCHOR, len(stable)), 0, -1):
        tail = [_key(word) for word in stable[-length:]]
        matches = [end for end in range(length, len(words) + 1) if [_key(w) for w in words[end - length : end]] == tail]
        near = [end for end in matches if abs(end - len(stable)) <= _ANCHOR]
        if near:
            return min(near, key=lambda end: abs(end - len(stable)))
    return min(len(stable), len(words))
