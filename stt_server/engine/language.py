"""Language detection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import ctranslate2

from stt_server.engine.encoding import Encoded, Encoder, as_batch
from stt_server.engine.language_changes import (
    SHORT_SLICE_S,
    SHORT_TAIL_S,
    ChunkPart,
    Span,
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
        given |= self._expected({i: job for i, job in enumerate(jobs) if i not in given}, encoded)
        detected = self._detect(jobs, {i: encoded[i] for i in range(len(jobs)) if i not in given})
        if self._encoder.windows.tails is not None:
            unsure = [i for i, (_, probability) in detected.items() if probability < LANGUAGE_UNSURE]
            full = self._encoder.encode([jobs[i].chunk.samples for i in unsure], FULL_WINDOW, shortcut=False)
            detected |= self._detect(jobs, dict(zip(unsure, full)))
        for i, (_, probability) in detected.items():
            if jobs[i].expected_language and probability < SURE_LANGUAGE:
                given[i] = jobs[i].expected_language
        return [(given[i], None) if i in given else detected[i] for i in range(len(jobs))]

    def _expected(self, jobs: Mapping[int, ChunkJob], encoded: Sequence[Encoded]) -> dict[int, str]:
        """Jobs in the expected language, by a detection on a slice of each, or with too little speech to doubt it."""
        regions = {i: max(long_regions(job.chunk), key=_length, default=None) for i, job in jobs.items()}
        expecting = {i: job.expected_language for i, job in jobs.items() if job.expected_language}
        sliced = {
            i: slice_of(encoded[i], region, SHORT_SLICE_S, SHORT_TAIL_S)
            for i in expecting
            if (region := regions[i]) is not None and can_slice(encoded[i])
        }
        found = self._rank(list(sliced.values()), [jobs[i] for i in sliced])
        same = {i for i, (code, _) in zip(sliced, found) if code == expecting[i]}
        return {i: code for i, code in expecting.items() if i in same or regions[i] is None}

    def parts(self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded]) -> dict[int, list[ChunkPart]]:
        """The parts of chunks whose language changes, by the job's index."""
        if self._only:
            return {}
        regions = {
            i: found
            for i, job in enumerate(jobs)
            if job.may_change_language and job.options.language is None and can_slice(encoded[i])
            if len(found := long_regions(job.chunk)) > 1
        }
        slices = [(i, slice_of(encoded[i], region)) for i, own in regions.items() for region in own]
        found_all = self._rank([item for _, item in slices], [jobs[i] for i, _ in slices])
        cut = {}
        for i, own in regions.items():
            languages = [found for (index, _), found in zip(slices, found_all) if index == i]
            if parts := parts_of(jobs[i].chunk, own, languages):
                cut[i] = parts
        return cut

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


def _length(region: Span) -> float:
    return region[1] - region[0]
