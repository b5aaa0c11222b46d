"""Decides a doubtful language by the text: the likeliest languages are decoded, and the more probable text wins.

Accented speech is often detected as the speaker's first language. Decoded in that language, it gives a translation, a
loop or an improbable text; in the language that is spoken, a text as probable as that of other speech.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stt_server.engine.acceptance import RESAMPLE_LOGPROB, RedecodingBudget, is_loop, rejection_reason
from stt_server.engine.generation import Decoded, DecoderInput, TextDecoder
from stt_server.engine.language import UNSURE_LANGUAGE, Language
from stt_server.engine.text_checks import words_of
from stt_server.engine.types import ChunkJob

MARGIN = 0.4
"""Mean log-probability by which a text must exceed a different one in a likelier language.

`buildscripts/bench languages` prints how many languages are found wrongly with this and other values: of 133 recordings
and beginnings two, and five if no language is decided by its text. docs/engine.md has the commands.
"""
WEIGHT = 2.0
"""Factor of a text's mean log-probability where it is added to the logarithm of its language's probability."""
POOR_LOGPROB = -1.5
"""Mean log-probability that stands for loops and for languages that were not decoded."""


@dataclass(frozen=True)
class Reading:
    """A job in one language, and its text in that language."""

    job: ChunkJob
    """Its options name the language."""
    input: DecoderInput
    decoded: Decoded
    language_probability: float | None
    """0 to 1; None if the language was given."""


class LanguageChoice:
    """Decodes texts in rival languages, and chooses."""

    def __init__(self, decoder: TextDecoder) -> None:
        self._decoder = decoder

    def settled(
        self, readings: Sequence[Reading], languages: Sequence[Language], budgets: Sequence[RedecodingBudget]
    ) -> list[Reading]:
        """The readings; those with a better text in a rival language are replaced.

        Args:
            readings: in the likeliest language.
            languages, budgets: of each reading.
        """
        settled = list(readings)
        doubted = [i for i, (own, language) in enumerate(zip(readings, languages)) if _is_doubted(own, language)]
        rivals = [(i, *rival) for i in doubted for rival in languages[i].rivals]
        others = self._read([(readings[i], code, p, budgets[i]) for i, code, p in rivals])
        for i in doubted:
            settled[i] = best_reading(readings[i], [other for (j, *_), other in zip(rivals, others) if j == i])
        return settled

    def _read(self, wanted: Sequence[tuple[Reading, str, float, RedecodingBudget]]) -> list[Reading]:
        """Decode readings in other languages.

        Args:
            wanted: a reading, the other language, its probability, and the budget to charge.
        """
        jobs = [replace(own.job, options=replace(own.job.options, language=code)) for own, code, _, _ in wanted]
        inputs = [self._decoder.input(own.input.encoded, job.options) for job, (own, *_) in zip(jobs, wanted)]
        found = self._decoder.decode(inputs, beams=1) if inputs else []
        return [
            Reading(job, item, budget.charge(decoded), probability)
            for job, item, decoded, (_, _, probability, budget) in zip(jobs, inputs, found, wanted)
        ]


def _is_doubted(own: Reading, language: Language) -> bool:
    """Whether a rival language may have a better text. Drafts are decoded only once."""
    if own.job.draft or not language.rivals or not own.decoded.text.strip():
        return False
    unsure = language.probability is not None and language.probability < UNSURE_LANGUAGE
    return unsure or own.decoded.mean_logprob < -MARGIN or is_loop(own.decoded.text, own.job.chunk)


def best_reading(own: Reading, others: Sequence[Reading]) -> Reading:
    """The reading with the best text, with the probability of its language after both detection and text.

    Args:
        own: in the likeliest language.
        others: in less likely ones.
    """
    acceptable = [
        other
        for other in others
        if other.decoded.mean_logprob >= _least_logprob(own, other)
        and rejection_reason(other.decoded, other.job.chunk) is None
    ]
    chosen = max(acceptable, key=lambda other: other.decoded.mean_logprob, default=own)
    weights = [_weight(each) for each in (own, *others)]
    rest = 1.0 - sum(each.language_probability or 0.0 for each in (own, *others))
    total = sum(weights) + max(0.0, rest) * math.exp(WEIGHT * POOR_LOGPROB)
    return replace(chosen, language_probability=_weight(chosen) / total)


def _least_logprob(own: Reading, other: Reading) -> float:
    """Mean log-probability from which another reading replaces `own`."""
    if is_loop(own.decoded.text, own.job.chunk):
        return RESAMPLE_LOGPROB  # a loop's own log-probability is high
    alike = words_of(own.decoded.text) == words_of(other.decoded.text)
    return max(RESAMPLE_LOGPROB, own.decoded.mean_logprob + (0.0 if alike else MARGIN))


def _weight(reading: Reading) -> float:
    """Relative probability of a reading's language, by detection and text."""
    looped = is_loop(reading.decoded.text, reading.job.chunk) or not reading.decoded.text.strip()
    logprob = POOR_LOGPROB if looped else reading.decoded.mean_logprob
    return (reading.language_probability or 0.0) * math.exp(WEIGHT * logprob)
