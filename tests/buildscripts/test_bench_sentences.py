"""buildscripts/bench: whether texts look like sentences."""

from __future__ import annotations

import pytest

from buildscripts.lib.bench.sentences import Sentences, sentences, starts_lower, written_errors
from buildscripts.lib.load.closed_loop import Recording
from stt_server.engine.text_checks import ends_sentence


def a_recording(text: str, strict: bool = True) -> Recording:
    return Recording("a", "en", text, strict, bytes(2 * 16000))


@pytest.mark.parametrize(
    ("text", "lower", "ended"),
    [
        (" Yes, it is.", False, True),
        ("“yes, it is.”", True, True),
        ("- it is", True, False),
        ("21 of them", False, False),
        ("好的。", False, True),
        ("Is it? (Yes!)", False, True),
        ("And so on,", False, False),
    ],
)
def test_first_letter_and_end_of_a_text(text: str, lower: bool, ended: bool) -> None:
    assert (starts_lower(text), ends_sentence(text)) == (lower, ended)


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("The red fox, he said, runs.", "the red fox he said runs.", (6, 3)),
        ("“It’s mine.”", "It's mine.", (2, 0)),
        ("The red fox runs.", "The blue fox, runs", (3, 2)),
    ],
)
def test_case_and_punctuation_count_on_right_words_only(reference: str, text: str, expected: tuple[int, int]) -> None:
    assert written_errors(reference, text) == expected


def test_sentences_are_counted_where_the_reference_is_written() -> None:
    recordings = [a_recording("The fox runs."), a_recording("the fox runs"), a_recording("Aha.", strict=False)]
    found = sentences(recordings, [("the fox runs", "The fox runs.", "aha"), ("The fox runs.", "", "aha")])
    assert found == Sentences(texts=3, lower_case=1, unended=1, words=6, miswritten=2)
    assert found.miswritten_rate == pytest.approx(1 / 3)
    assert sentences([], []).miswritten_rate is None
