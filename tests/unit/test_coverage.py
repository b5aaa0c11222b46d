"""Speech in the middle of a chunk that its text leaves out, without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stt_server.audio import Chunk
from stt_server.engine.coverage import adds_text, extent_of, inserted, is_apart, is_slow, uncovered
from stt_server.engine.types import Hypothesis, Segment, Word

SPEECH = ((0.1, 2.8), (3.4, 4.5), (4.8, 6.7), (7.1, 9.1))
CHUNK = Chunk(np.zeros(round(9.4 * 16000), dtype=np.float32), 10.0, SPEECH)
SENTENCE = " The moon had already begun its westward decline."


def segment(start: float, end: float, text: str, *words: tuple[float, float]) -> Segment:
    return Segment(start, end, text, -0.1, 0.0, 1.0, tuple(Word(a, b, text, 0.9) for a, b in words))


def hypothesis(*segments: Segment, language: str = "en") -> Hypothesis:
    return Hypothesis(segments, language, None, (-0.1,) * len(segments), False)


def test_speech_between_two_segments_is_uncovered() -> None:
    assert uncovered(CHUNK, [(0.0, 3.0), (7.0, 9.0)]) == {1: (3.0, 7.0)}


def test_speech_in_front_of_the_first_segment_is_uncovered() -> None:
    assert uncovered(CHUNK, [(3.0, 9.0)]) == {0: (0.0, 3.0)}


def test_speech_behind_the_last_segment_is_not_included() -> None:
    assert uncovered(CHUNK, [(0.0, 3.0)]) == {}


@pytest.mark.parametrize(
    "covered", [[(0.0, 3.0), (3.0, 9.0)], [(0.0, 2.4), (3.8, 9.0)], [(0.0, 4.2), (5.2, 9.0)], [(0.0, 4.5), (3.4, 9.0)]]
)
def test_pauses_and_remnants_of_words_are_no_gap(covered: list[tuple[float, float]]) -> None:
    assert uncovered(CHUNK, covered) == {}


def test_a_gap_begins_and_ends_beyond_the_remnants_of_words() -> None:
    assert uncovered(CHUNK, [(0.0, 2.6), (6.4, 9.0)]) == {1: (2.8, 6.4)}


def test_a_text_is_slow_if_the_speech_holds_much_more() -> None:
    assert not is_slow(SENTENCE, CHUNK, (0.0, 3.0))
    assert not is_slow(SENTENCE, CHUNK, (0.0, 4.6))
    assert is_slow(SENTENCE, CHUNK, (0.0, 7.0))


def test_characters_of_scripts_without_spaces_take_longer() -> None:
    assert not is_slow("吾輩は猫である名前はまだ無い", CHUNK, (0.0, 4.6))
    assert is_slow("吾輩は猫", CHUNK, (0.0, 4.6))


def test_words_end_where_the_segment_does_not() -> None:
    assert extent_of((0.0, 7.0), []) == (0.0, 7.0)
    assert extent_of((0.0, 7.0), segment(0.0, 7.0, "x", (0.0, 0.4), (2.0, 2.7)).words) == (0.0, 2.7)


def test_a_first_word_stretched_over_what_is_left_out_begins_near_its_end() -> None:
    words = segment(3.0, 9.0, "x", (3.0, 7.4), (7.4, 9.0)).words
    assert extent_of((3.0, 9.0), words) == pytest.approx((6.9, 9.0))


def test_nothing_is_doubled_beside_a_gap() -> None:
    found = hypothesis(segment(10.0, 13.0, SENTENCE), segment(17.0, 19.0, " Whoever lived on the ranch did that."))
    assert adds_text(hypothesis(segment(13.0, 17.0, " Crickets began to chirp.")), found, 1, apart=False)
    assert not adds_text(hypothesis(segment(13.0, 17.0, " Westward decline.")), found, 1, apart=False)
    assert not adds_text(hypothesis(segment(13.0, 17.0, " Whoever lived?")), found, 1, apart=False)
    assert not adds_text(hypothesis(), found, 1, apart=False)
    assert not adds_text(replace(hypothesis(segment(13.0, 17.0, " La la la")), looped=True), found, 1, apart=False)


def test_a_sentence_said_again_after_a_pause_is_no_remnant() -> None:
    found = hypothesis(segment(10.0, 17.0, " Start again."))
    again = hypothesis(segment(13.4, 17.0, " Start again."))
    assert is_apart(CHUNK, (3.0, 7.0))
    assert not is_apart(CHUNK, (3.6, 7.0))
    assert not is_apart(CHUNK, (3.0, 6.7))
    assert adds_text(again, found, 1, apart=True)
    both = inserted(again, found, 1)
    assert [(s.start, s.end) for s in both.segments] == [(10.0, 13.4), (13.4, 17.0)]


def test_the_text_of_a_gap_comes_between_the_segments() -> None:
    found = hypothesis(
        segment(10.0, 17.0, " first", (10.0, 12.7)), segment(17.0, 19.0, " last", (12.9, 17.2), (17.2, 19.0))
    )
    both = inserted(hypothesis(segment(13.2, 17.1, " middle")), found, 1)
    assert [(s.start, s.end, s.text) for s in both.segments] == [
        (10.0, 13.2, " first"),
        (13.2, 17.1, " middle"),
        (17.1, 19.0, " last"),
    ]
    assert both.segments[2].words[0].start == 17.1, "the first word was stretched over the gap"
    assert [s.language for s in both.segments] == ["", "", ""]
    assert both.token_logprobs == (-0.1, -0.1, -0.1)


def test_a_gap_in_another_language_names_it() -> None:
    found = hypothesis(segment(10.0, 13.0, " first"), segment(17.0, 19.0, " last"))
    both = inserted(hypothesis(segment(13.2, 16.8, " Mitte"), language="de"), found, 1)
    assert [s.language for s in both.segments] == ["en", "de", "en"]
    assert both.language == "en"
