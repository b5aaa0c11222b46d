"""Language detection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import ctranslate2

from stt_server.engine.chunk_parts import ChunkPart, Span
from stt_server.engine.encoding import Encoded, as_batch
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
from stt_server.engine.windows import POSITIONS_PER_SECOND, lengthened

SURE_LANGUAGE = 0.9
"""Probability from which a chunk is taken to be in another language than its recording, and from which its own has no
rivals: short utterances and accented ones are sometimes detected as another one."""
UNSURE_LANGUAGE = 0.5
"""Probability below which a language is detected again after more silence, and then has several rivals."""
UNSURE_WINDOW = 12
"""Seconds of that speech and silence. The encoder's output for silence is repeated, so nothing is encoded for it.

Whisper base, 162 recordings and beginnings of 2.5 s, partly synthetic: 7 are wrong, as with a window of 12 s encoded
whole, which takes as long as decoding a short clip; without a second detection 8.
"""
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
    sure: Mapping[int, Language]
    """Chunks whose slices all show the same language, each surely; with the least of the slices' probabilities."""


class LanguageDetector:
    """Detects languages with a model. Thread-safe, as the model is."""

    def __init__(self, model: ctranslate2.models.Whisper, info: ModelInfo) -> None:
        self._model = model
        self._only = None if info.multilingual else info.languages[0]

    def languages(
        self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded], known: Mapping[int, Language] = MappingProxyType({})
    ) -> list[Language]:
        """The language of each job: given, known, or detected.

        Detects all of them in one pass, and those with a low probability in another one, after more silence.

        Args:
            known: languages that a survey has found, by the job's index.
        """
        given = {i: Language(code, None) for i, job in enumerate(jobs) if (code := job.options.language or self._only)}
        found = {**known, **given}
        asked = [i for i in range(len(jobs)) if i not in found]
        rankings = dict(zip(asked, self._rank([encoded[i] for i in asked], [jobs[i] for i in asked])))
        unsure = [
            i for i in asked if rankings[i][0][1] < UNSURE_LANGUAGE and _is_short(encoded[i]) and not jobs[i].draft
        ]
        longer = [replace(encoded[i], output=lengthened(encoded[i].output, UNSURE_WINDOW)) for i in unsure]
        rankings |= zip(unsure, self._rank(longer, [jobs[i] for i in unsure]))
        for i, ranking in rankings.items():
            expected = jobs[i].expected_language
            doubtful = ranking[0][1] < SURE_LANGUAGE
            found[i] = Language(expected, None) if expected and doubtful else _with_rivals(ranking)
        return [found[i] for i in range(len(jobs))]

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
        several, sure = {}, {}
        for i, found in self._rank_regions(jobs, encoded, regions, SHORT_SLICE_S, SHORT_TAIL_S).items():
            codes = [code for code, _ in found]
            if len({*codes, expecting.get(i, codes[0])}) > 1 and len(codes) > 1 and jobs[i].may_change_language:
                several[i] = regions[i]
            elif _of_longest(regions[i], codes) == expecting.get(i):
                expected[i] = expecting[i]
            elif len(set(codes)) == 1 < len(codes) and (least := min(p for _, p in found)) >= SURE_LANGUAGE:
                sure[i] = Language(codes[0], least)
        parts = {}
        for i, found in self._rank_regions(jobs, encoded, several, SLICE_S, TAIL_S).items():
            if cut := parts_of(jobs[i].chunk, several[i], found):
                parts[i] = cut
            elif _of_longest(several[i], [code for code, _ in found]) == expecting.get(i):
                expected[i] = expecting[i]
        return Survey(expected, parts, sure)

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


def _is_short(encoded: Encoded) -> bool:
    """Whether an output is shorter than `UNSURE_WINDOW`."""
    return len(encoded.output) < UNSURE_WINDOW * POSITIONS_PER_SECOND


def _with_rivals(ranking: Sequence[tuple[str, float]]) -> Language:
    """The most probable language, with the others that it may be confused with."""
    (code, probability), *others = ranking
    count = 0 if probability >= SURE_LANGUAGE else 1 if probability >= UNSURE_LANGUAGE else MOST_RIVALS
    return Language(code, probability, tuple(other for other in others[:count] if other[1] >= LIKELY_RIVAL))


def _of_longest(regions: Sequence[Span], codes: Sequence[str]) -> str:
    """The language of the longest region."""
    return max(zip(regions, codes), key=lambda item: item[0][1] - item[0][0])[1]
