"""Full stops and first letters that shortened windows lose: more texts end without a mark or begin in lower case.

Once the decoder ends a text, its logits say nothing about other tokens. The aligner does: in one pass over a text, it
gives the probability of each token after those before. So a full stop is compared with all other ways to go on (speech
that stops in the middle of a sentence goes on with a word), and a capital with all other ways to begin.

Whisper base, 85 recordings: 3 of 10 texts without a mark get one, all rightly; 3 of 11 in lower case get a capital, one
of them within a sentence. tiny.en, 47 recordings: 5 of 11 get a capital, all rightly. No word changes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from faster_whisper.tokenizer import Tokenizer

from stt_server.engine.acceptance import rejection_reason
from stt_server.engine.generation import Decoded, TextDecoder
from stt_server.engine.language_choice import Reading

LEAST_MARK = math.log(0.5)
"""Log-probability of a mark, from which it is added: more probable than everything else together.

Whisper base, texts without a mark: 0.63 to 0.91 at the end of a sentence, 0.00 to 0.37 where a recording was cut within
one (16 cuts in 6 languages), 0.06 after a heading.
"""
LEAST_CAPITAL = 1 / 3
"""Probability of a first token in upper case, from which it replaces the one in lower case that was decoded.

Base and tiny.en: 8 of 17 sentences that were begun in lower case have more. Within a sentence, 1 of 8 recordings has
more, and none of 13 that were cut there.
"""

_MARKS: Mapping[str, tuple[str, ...]] = {
    "ARABIC": (".", "؟"),
    "BENGALI": ("।", "?"),
    "CJK": ("。", "？"),
    "DEVANAGARI": ("।", "?"),
    "ETHIOPIC": ("።", "?"),
    "GREEK": (".", ";"),
    "HIRAGANA": ("。", "？"),
    "KATAKANA": ("。", "？"),
    "LAO": (),
    "THAI": (),
}
"""Full stop and question mark by script, which is the first word of the Unicode name of a text's last letter. An empty
tuple: the script has neither."""
_USUAL_MARKS = (".", "?")
_DOTTED_LANGUAGES = ("az", "tr")
"""Languages in which the upper case of `i` is not `I`."""


class SentenceEdges:
    """Gives texts the full stop and the capital that the model finds probable.

    Not drafts, texts that will be decoded again, and those with a caller's prompt, which may set another style.
    """

    def __init__(self, decoder: TextDecoder) -> None:
        self._decoder = decoder

    def completed(self, readings: Sequence[Reading]) -> list[Reading]:
        """The texts with their full stops and first letters."""
        found = list(readings)
        for place in range(len(_USUAL_MARKS)):
            found = self._ended(found, place)
        return self._capitalized(found)

    def _ended(self, readings: Sequence[Reading], place: int) -> list[Reading]:
        """Add a mark to texts that end with a letter or digit, where it is probable.

        Args:
            place: of the mark among those of the text's script.
        """
        found = list(readings)
        tried = [
            (i, mark, own.input.tokenizer.encode(mark))
            for i, own in enumerate(readings)
            if _ends_with_word(own.decoded.text) and _is_final(own)
            for mark in marks_of(own.decoded.text)[place : place + 1]
        ]
        texts = [
            [token for segment in readings[i].decoded.segments for token in segment.tokens] + tokens
            for i, _, tokens in tried
        ]
        results = self._decoder.aligned_logprobs([readings[i].input for i, *_ in tried], texts)
        for (i, mark, tokens), logprobs in zip(tried, results):
            own = logprobs[-len(tokens) :]
            if sum(own) >= LEAST_MARK:
                found[i] = replace(readings[i], decoded=_with_mark(readings[i].decoded, mark, tokens, own))
        return found

    def _capitalized(self, readings: Sequence[Reading]) -> list[Reading]:
        """Begin texts in upper case where that is probable too."""
        found = list(readings)
        others = {
            i: _with_capital(own.decoded, own.input.tokenizer)
            for i, own in enumerate(readings)
            if own.job.begins and own.decoded.token_logprobs[:1] <= [math.log(1 - LEAST_CAPITAL)]
        }
        tried = [i for i, other in others.items() if other is not readings[i].decoded and _is_final(readings[i])]
        texts = [list(others[i].segments[0].tokens[:1]) for i in tried]
        results = self._decoder.aligned_logprobs([readings[i].input for i in tried], texts)
        for i, (logprob,) in zip(tried, results):
            if logprob >= math.log(LEAST_CAPITAL):
                found[i] = replace(readings[i], decoded=others[i])
        return found


def _is_final(reading: Reading) -> bool:
    """Whether a text may be completed: accepted as it is, and in the model's own style."""
    if reading.job.draft or reading.job.options.prompt.strip():
        return False
    return rejection_reason(reading.decoded, reading.job.chunk) is None


def _ends_with_word(text: str) -> bool:
    return bool(text) and unicodedata.category(text[-1])[0] in "LMN"


def marks_of(text: str) -> tuple[str, ...]:
    """Marks that can end a sentence in the script of a text's last letter; empty if the script has none."""
    letter = next((character for character in reversed(text) if character.isalpha()), "a")
    return _MARKS.get(unicodedata.name(letter, "").partition(" ")[0], _USUAL_MARKS)


def _with_mark(decoded: Decoded, mark: str, tokens: Sequence[int], logprobs: Sequence[float]) -> Decoded:
    """A decoding with a mark behind its last word."""
    *segments, last = decoded.segments
    *earlier, own = decoded.logprobs
    words = [list(each) for each in decoded.words]
    if words[-1]:
        words[-1][-1] = replace(words[-1][-1], text=words[-1][-1].text + mark)
    return replace(
        decoded,
        segments=[*segments, replace(last, tokens=(*last.tokens, *tokens))],
        logprobs=[*earlier, [*own, *logprobs]],
        words=words,
        text=decoded.text + mark,
    )


def capitalized(text: str, language: str) -> str:
    """A text with its first letter in upper case; the text itself if it doesn't begin with a letter in lower case.

    Args:
        language: of the text, as a code.
    """
    place, letter = next(((i, character) for i, character in enumerate(text) if character.isalnum()), (0, ""))
    # Title case: no Georgian sentence begins with a capital.
    capital = "İ" if letter == "i" and language in _DOTTED_LANGUAGES else letter.title()
    return text[:place] + capital + text[place + 1 :] if letter.islower() and len(capital) == 1 else text


def _with_capital(decoded: Decoded, tokenizer: Tokenizer) -> Decoded:
    """A decoding that begins in upper case; the same one if it doesn't begin with a letter in lower case.

    Only the tokens of the first word change, since others may not be those that the tokenizer would choose. Their
    log-probability stays that of the word as decoded: its case is no doubt about it.
    """
    if not decoded.segments:
        return decoded
    first, *segments = decoded.segments
    size = next((i for i, token in enumerate(first.tokens) if i and tokenizer.decode([token])[:1] == " "), None)
    word = first.tokens[:size]
    written = tokenizer.decode(list(word))
    text = capitalized(written, tokenizer.language_code)
    if text == written:
        return decoded
    tokens = tokenizer.encode(text)
    mean = sum(decoded.logprobs[0][: len(word)]) / len(tokens)
    words = [list(each) for each in decoded.words]
    if words[0]:
        words[0][0] = replace(words[0][0], text=capitalized(words[0][0].text, tokenizer.language_code))
    return replace(
        decoded,
        segments=[replace(first, tokens=(*tokens, *first.tokens[len(word) :])), *segments],
        logprobs=[[*[mean] * len(tokens), *decoded.logprobs[0][len(word) :]], *decoded.logprobs[1:]],
        words=words,
        text=capitalized(decoded.text, tokenizer.language_code),
    )
