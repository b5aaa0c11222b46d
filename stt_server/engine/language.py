"""Language detection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import ctranslate2

from stt_server.engine.encoding import Encoded, Encoder, as_batch
from stt_server.engine.types import ChunkJob, ModelInfo
from stt_server.engine.windows import FULL_WINDOW

LANGUAGE_UNSURE = 0.5
"""A language detected with a lower probability is detected again on the full window, where short clips do better."""


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
        return [(given[i], None) if i in given else detected[i] for i in range(len(jobs))]

    def _detect(self, jobs: Sequence[ChunkJob], encoded: Mapping[int, Encoded]) -> dict[int, tuple[str, float]]:
        """Language and probability by the job's index."""
        if not encoded:
            return {}
        rankings = self._model.detect_language(as_batch([*encoded.values()]))
        return {
            i: choose_language(ranking, jobs[i].options.candidate_languages) for i, ranking in zip(encoded, rankings)
        }


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
