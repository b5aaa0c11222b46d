"""Detected languages and their rivals, with a scripted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stt_server.engine.encoding import Encoded
from stt_server.engine.language import UNSURE_WINDOW, Language, LanguageDetector, Survey
from stt_server.engine.types import ChunkJob, DecodeOptions, ModelInfo
from tests.unit.test_acceptance import Clip

INFO = ModelInfo("base", "cpu", "int8", ("de", "en", "zh"))
TWO_REGIONS = ((0.2, 2.0), (2.6, 4.8))

Ranking = Sequence[tuple[str, float]]


class Model:
    """Detects the languages of the given rankings in turn."""

    def __init__(self, *rankings: Ranking) -> None:
        self.rankings = list(rankings)
        self.passes: list[tuple[int, int]] = []
        """Items and positions of each pass."""

    def detect_language(self, batch: Any) -> list[list[tuple[str, float]]]:
        self.passes.append((batch.shape[0], batch.shape[1]))
        found = [self.rankings.pop(0) for _ in range(batch.shape[0])]
        return [[(f"<|{code}|>", probability) for code, probability in ranking] for ranking in found]


def detector(*rankings: Ranking) -> tuple[LanguageDetector, Model]:
    model: Any = Model(*rankings)
    return LanguageDetector(model, INFO), model


def encoded(positions: int = 400) -> Encoded:
    return Encoded(np.zeros((positions, 4), dtype=np.float32), 5.0)


def detected(*rankings: Ranking, positions: int = 400, **job: Any) -> tuple[Language, Model]:
    finder, model = detector(*rankings)
    (found,) = finder.languages([ChunkJob(Clip(), DecodeOptions(), **job)], [encoded(positions)])
    return found, model


def surveyed(*rankings: Ranking, **job: Any) -> tuple[Survey, Model]:
    own = ChunkJob(Clip(speech=TWO_REGIONS), DecodeOptions(), **{"may_change_language": True, **job})
    finder, model = detector(*rankings)
    return finder.survey([own], [encoded()]), model


@pytest.mark.parametrize(
    ("ranking", "rivals"),
    [
        ([("en", 0.9), ("zh", 0.1)], ()),
        ([("zh", 0.8), ("en", 0.15), ("de", 0.05)], (("en", 0.15),)),
        ([("zh", 0.89), ("en", 0.09)], ()),
        ([("zh", 0.6), ("en", 0.2), ("de", 0.2)], (("en", 0.2),)),
    ],
)
def test_a_doubtful_language_has_a_likely_rival(ranking: Ranking, rivals: tuple[tuple[str, float], ...]) -> None:
    found, model = detected(ranking)
    assert (found.code, found.probability, found.rivals) == (*ranking[0], rivals)
    assert len(model.passes) == 1


def test_an_unsure_language_is_detected_again_after_more_silence() -> None:
    found, model = detected([("zh", 0.4), ("en", 0.3)], [("en", 0.45), ("zh", 0.3), ("de", 0.2), ("fr", 0.1)])
    assert found == Language("en", 0.45, (("zh", 0.3), ("de", 0.2)))
    assert model.passes == [(1, 400), (1, UNSURE_WINDOW * 50)]


@pytest.mark.parametrize("options", [{"positions": UNSURE_WINDOW * 50}, {"draft": True}])
def test_a_long_window_or_a_draft_is_detected_once(options: dict[str, Any]) -> None:
    found, model = detected([("zh", 0.4), ("en", 0.3)], **options)
    assert (found.code, len(model.passes)) == ("zh", 1)


def test_a_doubtful_language_of_a_recording_is_the_expected_one() -> None:
    assert detected([("zh", 0.8), ("en", 0.2)], expected_language="en")[0] == Language("en", None)


def test_a_known_language_is_not_detected_again() -> None:
    finder, model = detector([("en", 0.95)])
    known = Language("de", 0.97)
    jobs = [ChunkJob(Clip(), DecodeOptions())] * 2
    assert finder.languages(jobs, [encoded()] * 2, {0: known}) == [known, Language("en", 0.95)]
    assert model.passes == [(1, 400)]


def test_slices_that_surely_show_the_same_language_settle_it() -> None:
    survey, model = surveyed([("en", 0.97)], [("en", 0.93)])
    assert (survey.sure, survey.parts, survey.expected) == ({0: Language("en", 0.93)}, {}, {})
    assert [items for items, _ in model.passes] == [2]


def test_an_unsure_slice_leaves_the_language_to_detection() -> None:
    assert surveyed([("en", 0.97)], [("en", 0.85)])[0].sure == {}


def test_slices_in_another_language_than_the_expected_one_settle_it() -> None:
    sure = [("de", 0.97)], [("de", 0.95)]
    assert surveyed(*sure, expected_language="en", may_change_language=False)[0].sure == {0: Language("de", 0.95)}
    survey, _ = surveyed(*sure, expected_language="de")
    assert (survey.sure, survey.expected) == ({}, {0: "de"})
