"""Language detection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import ctranslate2

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
from stt_server.engine.windows import FULL_WINDOW

LANGUAGE_UNSURE = 0.5
"""A language detected with a lower probability is detected again on the full window, where short clips do better."""

SURE_LANGUAGE = 0.9
"""Probability from which a chunk is taken to be in another language than its recording: short utterances are sometimes
detected as another one."""


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

    def languages(self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded]) -> list[tuple[str, float | None]]:
        """The language of each job, with its probability if it was detected and not given.

        Detects all of them in one pass, and those with a low probability in another one on the full window.
        """
        given = {i: code for i, job in enumerate(jobs) if (code := job.options.language or self._only)}
        detected = self._detect(jobs, {i: encoded[i] for i in range(len(jobs)) if i not in given})
        if self._encoder.windows.tails is not None:
            unsure = [i for i, (_, probability) in detected.items() if probability < LANGUAGE_UNSURE]
            full = self._encoder.encode([jobs[i].chunk.samples for i in unsure], FULL_WINDOW, shortcut=False)
            detected |= self._detect(jobs, dict(zip(unsure, full)))
        for i, (_, probability) in detected.items():
            if jobs[i].expected_language and probability < SURE_LANGUAGE:
                given[i] = jobs[i].expected_language
        return [(given[i], None) if i in given else detected[i] for i in range(len(jobs))]

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
        return {i: [next(found) for _ in own] for i, own in regions.items()}

    def _rank(self, encoded: Sequence[Encoded], jobs: Sequence[ChunkJob]) -> list[tuple[str, float]]:
        """Language and probability of each item, among its job's candidates."""
        if not encoded:
            return []
        rankings = self._model.detect_language(as_batch(encoded))
        return [choose_language(ranking, job.options.candidate_languages) for ranking, job in zip(rankings, jobs)]

    def _detect(self, jobs: Sequence[ChunkJob], encoded: Mapping[int, Encoded]) -> dict[int, tuple[str, float]]:
        """Language and probability by the job's index."""
        return dict(zip(encoded, self._rank([*encoded.values()], [jobs[i] for i in encoded])))


def choose_language(ranking: Sequence[tuple[str, float]], candidates: Collection[str]) -> tuple[str, float]:
    """The most probable language and its probability.

    Args:
        ranking: CTranslate2's `(token, probability)` pairs, most probable first; tokens such as `<|en|>`.
        candidates: codes to choose from; their probabilities are scaled to a sum of 1. Empty: all languages.

    Returns:
        An ISO 639-1 code and a probability from 0 to 1.
    """
    known = [(token[2:-2], probability) for token, probability in ranking]
    if candidates:
        known = [(code, probability) for code, probability in known if code in candidates]
        total = sum(probability for _, probability in known)
        if total > 0:
            known = [(code, probability / total) for code, probability in known]
    return known[0]


def _of_longest(regions: Sequence[Span], codes: Sequence[str]) -> str:
    """The language of the longest region."""
    return max(zip(regions, codes), key=lambda item: item[0][1] - item[0][0])[1]
