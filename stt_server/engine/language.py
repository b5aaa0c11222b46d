"""Language detection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import ctranslate2

from stt_server.engine.acceptance import RedecodingBudget
from stt_server.engine.chunk_parts import ChunkPart, Span
from stt_server.engine.encoding import Encoded, Encoder, as_batch
from stt_server.engine.language_changes import (
    SHORT_SLICE_S,
    SHORT_TAIL_S,
    SLICE_S,
    TAIL_S,
    can_slice,
    long_regions,
    parts_of,
    slice_of,
)
from stt_server.engine.types import ChunkJob, ModelInfo

SURE_LANGUAGE = 0.9
"""Probability from which a chunk is taken to be in another language than its recording, and from which its own has no
rivals: short utterances and accented ones are sometimes detected as another one."""
UNSURE_LANGUAGE = 0.5
"""Probability below which a language is detected again on a wider window, and then has several rivals."""
UNSURE_WINDOW = 12
"""That window, in seconds. Detected wrongly of 160 recordings in 16 languages, partly synthetic, with Whisper base: 11
on windows that just fit them, 10 on 12 and 17 s, 8 on 30 s, which take three times as long as decoding a short clip."""
LIKELY_RIVAL = 0.1
"""Least probability of a rival."""
MOST_RIVALS = 2


@dataclass(frozen=True)
class Language:
    """The language of a chunk."""

    code: str
    probability: float | None
    """0 to 1; None if the language was given."""
    rivals: tuple[tuple[str, float], ...] = ()
    """Less likely ones in which the text may be more probable, with their probabilities; none if the first is sure."""


@dataclass(frozen=True)
class Survey:
    """What slices of the encoder's output show of the languages of a batch, by the job's index."""

    expected: Mapping[int, str]
    """Chunks that are in the expected language."""
    parts: Mapping[int, Sequence[ChunkPart]]
    """Chunks whose language changes."""


class LanguageDetector:
    """Detects languages with a model. Thread-safe, as the model is."""

    def __init__(self, model: ctranslate2.models.Whisper, encoder: Encoder, info: ModelInfo) -> None:
        self._model = model
        self._encoder = encoder
        self._only = None if info.multilingual else info.languages[0]

    def languages(
        self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded], budgets: Sequence[RedecodingBudget]
    ) -> list[Language]:
        """The language of each job, given or detected.

        Detects all of them in one pass, and those with a low probability in another one on a wider window.

        Args:
            budgets: of each job; the wider windows are charged to them.
        """
        given = {i: code for i, job in enumerate(jobs) if (code := job.options.language or self._only)}
        asked = [i for i in range(len(jobs)) if i not in given]
        rankings = dict(zip(asked, self._rank([encoded[i] for i in asked], [jobs[i] for i in asked])))
        unsure = [i for i in asked if rankings[i][0][1] < UNSURE_LANGUAGE and self._is_shorter(encoded[i])]
        unsure = [i for i in unsure if not jobs[i].draft and budgets[i].take(UNSURE_WINDOW)]
        wider = self._encoder.encode([jobs[i].chunk.samples for i in unsure], UNSURE_WINDOW, shortcut=False)
        rankings |= zip(unsure, self._rank(wider, [jobs[i] for i in unsure]))
        for i, ((_, probability), *_) in rankings.items():
            if jobs[i].expected_language and probability < SURE_LANGUAGE:
                given[i] = jobs[i].expected_language
        return [Language(given[i], None) if i in given else _with_rivals(rankings[i]) for i in range(len(jobs))]

    def _is_shorter(self, encoded: Encoded) -> bool:
        """Whether an output was encoded in a shorter window than `UNSURE_WINDOW`."""
        tails = self._encoder.windows.tails
        return tails is not None and self._encoder.windows.encoded(encoded.seconds, UNSURE_WINDOW) < UNSURE_WINDOW

    def survey(self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded]) -> Survey:
        """Find out which chunks are in the expected language, and where the language of others changes.

        Short slices of the regions of speech decide for most chunks; only those that show several languages take
        longer slices.
        """
        regions = {
            i: long_regions(job.chunk)
            for i, job in enumerate(jobs)
            if not (self._only or job.options.language) and (job.expected_language or job.may_change_language)
        }
        expecting = {i: jobs[i].expected_language for i in regions if jobs[i].expected_language}
        # Too little speech to doubt the expectation.
        expected = {i: code for i, code in expecting.items() if not regions[i]}
        regions = {i: own for i, own in regions.items() if can_slice(encoded[i]) and len(own) > (i not in expecting)}
        several = {}
        for i, found in self._rank_regions(jobs, encoded, regions, SHORT_SLICE_S, SHORT_TAIL_S).items():
            codes = [code for code, _ in found]
            if len({*codes, expecting.get(i, codes[0])}) > 1 and len(codes) > 1 and jobs[i].may_change_language:
                several[i] = regions[i]
            elif _of_longest(regions[i], codes) == expecting.get(i):
                expected[i] = expecting[i]
        parts = {}
        for i, found in self._rank_regions(jobs, encoded, several, SLICE_S, TAIL_S).items():
            if cut := parts_of(jobs[i].chunk, several[i], found):
                parts[i] = cut
            elif _of_longest(several[i], [code for code, _ in found]) == expecting.get(i):
                expected[i] = expecting[i]
        return Survey(expected, parts)

    def _rank_regions(
        self,
        jobs: Sequence[ChunkJob],
        encoded: Sequence[Encoded],
        regions: Mapping[int, Sequence[Span]],
        seconds: float,
        tail: float,
    ) -> dict[int, list[tuple[str, float]]]:
        """Language and probability of each region, by the job's index.

        Args:
            seconds: most seconds of speech in a slice.
            tail: seconds of silence after it.
        """
        slices = [(i, slice_of(encoded[i], region, seconds, tail)) for i, own in regions.items() for region in own]
        found = iter(self._rank([item for _, item in slices], [jobs[i] for i, _ in slices]))
        return {i: [next(found)[0] for _ in own] for i, own in regions.items()}

    def _rank(self, encoded: Sequence[Encoded], jobs: Sequence[ChunkJob]) -> list[list[tuple[str, float]]]:
        """Languages of each item and their probabilities, among its job's candidates, most probable first."""
        if not encoded:
            return []
        rankings = self._model.detect_language(as_batch(encoded))
        return [rank_languages(ranking, job.options.candidate_languages) for ranking, job in zip(rankings, jobs)]


def rank_languages(ranking: Sequence[tuple[str, float]], candidates: Collection[str]) -> list[tuple[str, float]]:
    """Languages and their probabilities, most probable first.

    Args:
        ranking: CTranslate2's `(token, probability)` pairs, most probable first; tokens such as `<|en|>`.
        candidates: codes to choose from; their probabilities are scaled to a sum of 1. Empty: all languages.

    Returns:
        ISO 639-1 codes, each with a probability from 0 to 1.
    """
    known = [(token[2:-2], probability) for token, probability in ranking]
    if candidates:
        known = [(code, probability) for code, probability in known if code in candidates]
        total = sum(probability for _, probability in known)
        if total > 0:
            known = [(code, probability / total) for code, probability in known]
    return known


def _with_rivals(ranking: Sequence[tuple[str, float]]) -> Language:
    """The most probable language, with the others that it may be confused with."""
    (code, probability), *others = ranking
    count = 0 if probability >= SURE_LANGUAGE else 1 if probability >= UNSURE_LANGUAGE else MOST_RIVALS
    return Language(code, probability, tuple(other for other in others[:count] if other[1] >= LIKELY_RIVAL))


def _of_longest(regions: Sequence[Span], codes: Sequence[str]) -> str:
    """The language of the longest region."""
    return max(zip(regions, codes), key=lambda item: item[0][1] - item[0][0])[1]
