"""Where the language changes within a chunk, without a model."""

from __future__ import annotations

import numpy as np
import pytest

from stt_server.audio import Chunk
from stt_server.engine.encoding import Encoded
from stt_server.engine.language_changes import can_slice, joined, long_regions, parts_of, slice_of
from stt_server.engine.types import Hypothesis, Segment

SPEECH = ((0.4, 2.0), (2.1, 4.0), (5.0, 5.4), (6.0, 9.0))
CHUNK = Chunk(np.arange(9.4 * 16000, dtype=np.float32), 10.0, SPEECH)


def test_regions_are_divided_by_pauses_and_have_enough_speech() -> None:
    assert long_regions(CHUNK) == [(0.4, 4.0), (6.0, 9.0)]


def test_a_chunk_is_cut_in_the_last_pause_before_the_other_language() -> None:
    first, second = parts_of(CHUNK, long_regions(CHUNK), [("en", 0.95), ("de", 0.85)])
    assert first.start == 10.0
    assert second.start == pytest.approx(15.7)
    assert first.speech == SPEECH[:3]
    assert second.speech[0] == pytest.approx((0.3, 3.3))
    assert len(first.samples) == pytest.approx(5.7 * 16000, abs=1)
    assert second.samples[0] == pytest.approx(5.7 * 16000, abs=1)
    assert second.samples[-1] == CHUNK.samples[-1]


@pytest.mark.parametrize(
    "found", [[("en", 0.95), ("en", 0.9)], [("en", 0.75), ("de", 0.7)], [("en", 0.4), ("de", 0.9)]]
)
def test_a_chunk_is_not_cut_in_doubt(found: list[tuple[str, float]]) -> None:
    assert parts_of(CHUNK, long_regions(CHUNK), found) == []


@pytest.mark.parametrize(
    ("found", "parts"),
    [
        ([("en", 0.95), ("fr", 0.3), ("de", 0.9)], 2),
        ([("en", 0.95), ("fr", 0.6), ("de", 0.9)], 3),
        ([("fr", 0.3), ("en", 0.9), ("de", 0.9)], 2),
        ([("en", 0.95), ("de", 0.4), ("de", 0.9)], 2),
    ],
)
def test_a_short_region_of_a_mere_guess_does_not_divide_a_part(found: list[tuple[str, float]], parts: int) -> None:
    speech = ((0.4, 2.4), (3.0, 5.0), (5.6, 7.6))
    chunk = Chunk(np.zeros(8 * 16000, dtype=np.float32), 0.0, speech)
    cut = parts_of(chunk, list(speech), found)
    assert len(cut) == parts
    assert sum(len(part.speech) for part in cut) == 3


def test_a_long_region_of_a_mere_guess_is_a_part_of_its_own() -> None:
    speech = ((0.4, 2.4), (3.0, 7.0), (8.0, 10.0))
    chunk = Chunk(np.zeros(11 * 16000, dtype=np.float32), 0.0, speech)
    cut = parts_of(chunk, list(speech), [("en", 0.95), ("la", 0.49), ("de", 0.9)])
    assert [len(part.speech) for part in cut] == [1, 1, 1]


def test_a_slice_is_the_output_for_a_region_and_silence() -> None:
    output = np.zeros((600, 4), dtype=np.float32)
    output[20:200] = 1.0
    encoded = Encoded(output, 10.0)
    assert can_slice(encoded)
    assert not can_slice(Encoded(output, 11.0))
    sliced = slice_of(encoded, (0.4, 4.0))
    assert sliced.output.shape == (300, 4)
    assert sliced.output[:, 0].sum() == 180
    assert slice_of(encoded, (0.4, 4.0), 2.0, 1.0).output.shape == (150, 4)


def test_joined_parts_name_their_languages() -> None:
    def hypothesis(language: str, probability: float) -> Hypothesis:
        segment = Segment(0.0, 1.0, f" {language}", -0.1, 0.0, 1.0)
        return Hypothesis((segment,), language, probability, (-0.1,), False)

    parts = parts_of(CHUNK, long_regions(CHUNK), [("en", 0.95), ("de", 0.85)])
    both = joined(list(zip(parts, (hypothesis("en", 0.95), hypothesis("de", 0.85)))))
    assert [(segment.text, segment.language) for segment in both.segments] == [(" en", "en"), (" de", "de")]
    assert (both.language, both.language_probability) == ("en", 0.85)
    assert both.token_logprobs == (-0.1, -0.1)
    same = joined(list(zip(parts, (hypothesis("en", 0.95), hypothesis("en", 0.85)))))
    assert [segment.language for segment in same.segments] == ["", ""]
