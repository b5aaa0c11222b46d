"""Detected languages and their rivals, with a scripted model."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stt_server.engine.acceptance import RedecodingBudget
from stt_server.engine.encoding import Encoded
from stt_server.engine.language import UNSURE_WINDOW, Language, LanguageDetector
from stt_server.engine.types import ChunkJob, DecodeOptions, ModelInfo, Samples
from stt_server.engine.windows import Windows
from tests.unit.test_acceptance import Clip

INFO = ModelInfo("base", "cpu", "int8", ("de", "en", "zh"))

Ranking = Sequence[tuple[str, float]]


class Model:
    """Detects a language on the first encoding, and another one on wider windows."""

    def __init__(self, *rankings: Ranking) -> None:
        self.rankings = list(rankings)

    def detect_language(self, batch: Any) -> list[list[tuple[str, float]]]:
        return [[(f"<|{code}|>", probability) for code, probability in self.rankings.pop(0)]]


class Encoder:
    windows = Windows.of(512, "adaptive")

    def __init__(self) -> None:
        self.wider: list[int] = []

    def encode(self, batch: Sequence[Samples], window: int, *, shortcut: bool) -> list[Encoded]:
        self.wider += [window] * len(batch)
        return [Encoded(np.zeros((window * 50, 4), dtype=np.float32), 5.0) for _ in batch]


def detected(*rankings: Ranking, seconds: float = 5.0, **job: Any) -> tuple[Language, SimpleNamespace]:
    model: Any = Model(*rankings)
    encoder: Any = Encoder()
    budget = RedecodingBudget(seconds, 8)
    encoded = Encoded(np.zeros((400, 4), dtype=np.float32), 5.0)
    jobs = [ChunkJob(Clip(), DecodeOptions(), **job)]
    (found,) = LanguageDetector(model, encoder, INFO).languages(jobs, [encoded], [budget])
    return found, SimpleNamespace(wider=encoder.wider, spent=budget.spent)


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
    found, work = detected(ranking)
    assert (found.code, found.probability, found.rivals) == (*ranking[0], rivals)
    assert (work.wider, work.spent) == ([], 0.0)


def test_an_unsure_language_is_detected_on_a_wider_window() -> None:
    found, work = detected([("zh", 0.4), ("en", 0.3)], [("en", 0.45), ("zh", 0.3), ("de", 0.2)])
    assert found == Language("en", 0.45, (("zh", 0.3), ("de", 0.2)))
    assert (work.wider, work.spent) == ([UNSURE_WINDOW], UNSURE_WINDOW)


@pytest.mark.parametrize("options", [{"seconds": 0.5}, {"draft": True}])
def test_no_wider_window_for_drafts_or_without_budget(options: dict[str, Any]) -> None:
    found, work = detected([("zh", 0.4), ("en", 0.3)], **options)
    assert (found.code, work.wider) == ("zh", [])


def test_a_doubtful_language_of_a_recording_is_the_expected_one() -> None:
    assert detected([("zh", 0.8), ("en", 0.2)], expected_language="en")[0] == Language("en", None)
