"""Checks of a text alone: repetition loops, early stops, impossible word rates."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence

MAX_COMPRESSION_RATIO = 2.4
"""Text that zlib compresses more than this is repetitive: openai/whisper's `compression_ratio_threshold`."""
MAX_WORDS_PER_SECOND = 6.0
MAX_CHARACTERS_PER_SECOND = 12.0
"""For scripts written without spaces, where each character counts as a word."""
MIN_WORDS_PER_SECOND, MAX_REPEATED_PER_SECOND = 0.6, 5.0
"""Words per second of speech, without the pauses, between which a repetition can be spoken."""
USUAL_CHARACTERS_PER_SECOND, USUAL_UNSPACED_PER_SECOND = 14.0, 6.0
"""Letters and digits per second of speech, the second in scripts written without spaces between words."""
SPARSE_SHARE = 0.75
"""Share of the usual pace below which a text may be half of what was said: that of 8 % of 85 recordings of as many
speakers in 16 languages."""
EARLY_STOP_SECONDS = 0.8
"""Seconds that a text may end before the last detected speech does."""

_SENTENCE_ENDS = frozenset(".?!…。？！।።։؟۔")
_CLOSING = "\"'”’»)]）」』"
"""Characters that may follow the end of a sentence."""

_LOOP_RUN = 3
_SHORT_RUN_REPEATS = 5

_INSIDE_WORDS = "'’"

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Prefixes of the Unicode names of characters of scripts written without spaces."""


def compression_ratio(text: str) -> float:
    """Size in UTF-8 divided by the compressed size; 0 for an empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script written without spaces between words."""
    return character >= "\u0e00" and unicodedata.name(character, "").startswith(_UNSPACED)


def words_of(text: str) -> list[str]:
    """Casefolded words without punctuation; in scripts written without spaces, single characters.

    `1-2-3` is three words: Whisper writes counting like that.
    """
    words: list[str] = []
    letters = ""
    for character in text.casefold() + " ":
        unspaced = is_unspaced(character)
        if not unspaced and (character.isalnum() or unicodedata.category(character).startswith("M")):
            letters += character
        elif character not in _INSIDE_WORDS:
            words.extend(word for word in (letters, character if unspaced else "") if word)
            letters = ""
    return words


def is_looped(text: str) -> bool:
    """Whether a text is a repetition loop.

    True if a run of three words or more occurs twice in a row, or a shorter run five times in a row, or if the text
    compresses more than `MAX_COMPRESSION_RATIO` times. In scripts written without spaces the limit is six characters.
    """
    return compression_ratio(text) > MAX_COMPRESSION_RATIO or _repeated_run(words_of(text)) > 0


def repeated_words(text: str) -> int:
    """Number of words in the shortest run that makes a text a loop; 1 if there is none."""
    return max(1, _repeated_run(words_of(text)))


def _repeated_run(words: Sequence[str]) -> int:
    """Length of the shortest run that occurs too often in a row; 0 if there is none."""
    unspaced = any(is_unspaced(word[0]) for word in words)
    shortest = 2 * _LOOP_RUN if unspaced else _LOOP_RUN
    for length in range(1, len(words) // 2 + 1):
        if _repeats(words, length, _SHORT_RUN_REPEATS if length < shortest else 2):
            return length
    return 0


def is_spoken_repetition(text: str, speech: Sequence[tuple[float, float]]) -> bool:
    """Whether the speech can hold all of a repetitive text, so that the speaker may have repeated it.

    A model in a loop writes faster than anybody speaks, or repeats a phrase over speech without a pause. A speaker
    pauses between phrases, and takes `1 / MAX_REPEATED_PER_SECOND` for each word.

    Args:
        speech: what the VAD detected, (start, end) in seconds, in order.
    """
    words = words_of(text)
    seconds = sum(end - start for start, end in speech)
    if not MIN_WORDS_PER_SECOND * seconds <= len(words) <= MAX_REPEATED_PER_SECOND * (seconds + 0.5):
        return False
    phrases = range(_LOOP_RUN, len(words) // 2 + 1)
    return not any(_repeats(words, length, len(speech) + 1) for length in phrases)


def _repeats(words: Sequence[str], length: int, times: int) -> bool:
    """Whether a run of `length` words occurs `times` times in a row."""
    needed = length * (times - 1)
    matched = 0
    for earlier, later in zip(words, words[length:]):
        matched = matched + 1 if earlier == later else 0
        if matched >= needed:
            return True
    return False


def is_too_fast(text: str, seconds: float) -> bool:
    """Whether a text has more words than fit into `seconds` of speech."""
    words = words_of(text)
    if not words:
        return False
    unspaced = sum(is_unspaced(word[0]) for word in words)
    limit = MAX_CHARACTERS_PER_SECOND if unspaced * 2 > len(words) else MAX_WORDS_PER_SECOND
    # One second more: voice activity detection trims the edges of very short clips.
    return len(words) > limit * (seconds + 1.0)


def usual_seconds(text: str) -> float:
    """Seconds of speech that a text usually takes."""
    words = words_of(text)
    unspaced = sum(is_unspaced(word[0]) for word in words)
    letters = sum(len(word) for word in words if not is_unspaced(word[0]))
    return unspaced / USUAL_UNSPACED_PER_SECOND + letters / USUAL_CHARACTERS_PER_SECOND


def is_sparse(text: str, seconds: float) -> bool:
    """Whether a text has so little for `seconds` of speech that it may be half of what was said."""
    return usual_seconds(text) < SPARSE_SHARE * seconds


def stops_early(text_end: float, speech_end: float) -> bool:
    """Whether a text ends over `EARLY_STOP_SECONDS` before the speech does; both in seconds."""
    return speech_end - text_end > EARLY_STOP_SECONDS


def ends_sentence(text: str) -> bool:
    """Whether a text ends with punctuation that ends a sentence, before closing quotes and brackets."""
    return text.rstrip().rstrip(_CLOSING).rstrip()[-1:] in _SENTENCE_ENDS
