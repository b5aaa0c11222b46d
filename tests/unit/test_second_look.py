"""The second look at texts that greedy decoding leaves in doubt, with a scripted decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from stt_server.engine.acceptance import RedecodingBudget
from stt_server.engine.generation import Decoded
from stt_server.engine.language_choice import Reading
from stt_server.engine.second_look import DOUBTED_CONFIDENCE, SecondLook, is_doubted
from stt_server.engine.tokens import TimedTokens
from stt_server.engine.types import ChunkJob, DecodeOptions
from tests.support.chunks import chunk

TEXT, OTHER = " the red fox runs", " the red fox ran"
LOOP = " so we go" * 4
SURE, UNSURE = math.log(DOUBTED_CONFIDENCE) + 0.01, math.log(DOUBTED_CONFIDENCE) - 0.01


def decoded(text: str, logprob: float = SURE, end: float = 3.0) -> Decoded:
    count = len(text.split())
    segments = [TimedTokens(0.0, end, tuple(range(count)))] if count else []
    return Decoded(segments, [[logprob] * count] if count else [], [[]], 0.01, text)


class Searcher:
    """A decoder whose beam search finds the given texts; records the batches it was given."""

    beam_size = 1

    def __init__(self, *found: Decoded) -> None:
        self.found = list(found)
        self.batches: list[tuple[list[Any], int | None]] = []

    def decode(self, batch: Sequence[Any], temperature: float = 0.0, *, beams: int | None = None) -> list[Decoded]:
        self.batches.append((list(batch), beams))
        return [self.found.pop(0) for _ in batch]


def job(**options: Any) -> ChunkJob:
    return ChunkJob(options.pop("chunk", chunk()), DecodeOptions("en"), **options)


def look(searcher: Searcher, jobs: Sequence[ChunkJob], first: Sequence[Decoded], beams: int = 5) -> list[str]:
    inputs: Any = [f"input {i}" for i in range(len(jobs))]
    readings = [Reading(*each, None) for each in zip(jobs, inputs, first)]
    budgets = [RedecodingBudget(5.0, 8) for _ in jobs]
    found = SecondLook(searcher, beams).improved(readings, budgets)  # type: ignore[arg-type]
    return [each.decoded.text for each in found]


def test_only_doubted_texts_are_searched_all_in_one_batch() -> None:
    searcher = Searcher(decoded(OTHER), decoded(OTHER))
    first = [decoded(TEXT, UNSURE), decoded(TEXT), decoded(TEXT, UNSURE)]
    assert look(searcher, [job()] * 3, first) == [OTHER, TEXT, OTHER]
    assert searcher.batches == [(["input 0", "input 2"], 5)]


def test_search_is_charged() -> None:
    budget = RedecodingBudget(5.0, 8)
    reading: Any = Reading(job(), None, decoded(TEXT, UNSURE), None)  # type: ignore[arg-type]
    SecondLook(Searcher(decoded(OTHER)), 5).improved([reading], [budget])  # type: ignore[arg-type]
    assert budget.spent > 0


def test_nothing_is_searched_without_a_doubt() -> None:
    searcher = Searcher()
    assert look(searcher, [job()] * 2, [decoded(TEXT)] * 2) == [TEXT] * 2
    assert searcher.batches == []


@pytest.mark.parametrize("beams", [1])
def test_search_with_no_more_beams_is_left_out(beams: int) -> None:
    searcher = Searcher()
    assert look(searcher, [job()], [decoded(TEXT, UNSURE)], beams) == [TEXT]
    searcher.beam_size = 5
    assert look(searcher, [job()], [decoded(TEXT, UNSURE)], 5) == [TEXT]
    assert searcher.batches == []


@pytest.mark.parametrize(
    ("first", "searched", "expected"),
    [
        (decoded(TEXT, UNSURE), decoded(OTHER, UNSURE - 1), OTHER),
        (decoded(TEXT, UNSURE), decoded(LOOP, SURE), TEXT),
        (decoded(TEXT, UNSURE), decoded("", SURE), TEXT),
        (decoded(TEXT, UNSURE), decoded(OTHER, SURE, end=1.0), TEXT),
        (decoded("", SURE), decoded(OTHER, UNSURE), OTHER),
        (decoded(TEXT, SURE, end=1.0), decoded(LOOP, SURE), TEXT),
    ],
    ids=[
        "both acceptable: the search's",
        "a loop was found",
        "nothing was found",
        "found too short",
        "instead of nothing",
        "loop instead of too short",
    ],
)
def test_acceptable_text_wins(first: Decoded, searched: Decoded, expected: str) -> None:
    assert look(Searcher(searched), [job()], [first]) == [expected]


def test_drafts_uncertain_speech_and_loops_are_not_searched() -> None:
    searcher = Searcher()
    jobs = [job(draft=True), job(chunk=chunk(speech_certain=False)), job()]
    first = [decoded(TEXT, UNSURE), decoded(TEXT, UNSURE), decoded(LOOP, UNSURE)]
    assert look(searcher, jobs, first) == [TEXT, TEXT, LOOP]
    assert searcher.batches == []


def test_doubt_begins_below_the_limit() -> None:
    assert is_doubted(decoded(TEXT, UNSURE), chunk())
    assert not is_doubted(decoded(TEXT, SURE), chunk())
    assert is_doubted(decoded("", SURE), chunk())
