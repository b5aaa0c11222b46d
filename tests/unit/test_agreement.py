"""Stable prefixes: words that two hypotheses in a row share, and that never change again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_server.streaming.agreement import Agreement, split_words

WORDS = st.lists(
    st.sampled_from(["the", "The", "fox", "fox,", "fox.", "jumps", "over", "a", "今日", "は。"]), max_size=8
)


def texts_after(*hypotheses: str) -> list[tuple[str, str]]:
    agreement = Agreement()
    found = []
    for text in hypotheses:
        agreement.add(text)
        found.append((agreement.stable, agreement.unstable))
    return found


def test_words_of_two_hypotheses_in_a_row_are_stable() -> None:
    assert texts_after("the quick", "the quick brow", "the quick brown fox") == [
        ("", "the quick"),
        ("the quick", " brow"),
        ("the quick", " brown fox"),
    ]


def test_case_and_punctuation_are_ignored() -> None:
    assert texts_after("hello world", "Hello, world and")[-1] == ("Hello, world", " and")


def test_a_mark_at_the_end_of_a_text_is_not_stable() -> None:
    assert texts_after("it rains.", "it rains.")[-1] == ("it rains", ".")
    assert texts_after("it rains.", "it rains.", "it rains cats")[-1] == ("it rains", " cats")


def test_contradicted_stable_words_are_not_repeated() -> None:
    texts = ["we saw the sea", "we saw the sea", "we saw all the sea again", "we saw all the sea again today"]
    assert texts_after(*texts)[-1] == ("we saw the sea again", " today")


def test_unspaced_text_becomes_stable_per_character() -> None:
    assert texts_after("今日は", "今日はいい", "今日はいい天気")[-1] == ("今日はいい", "天気")


def test_hyphenated_counting_becomes_stable_per_number() -> None:
    assert texts_after("1-2-3", "1-2-3-4")[-1] == ("1-2-3", "-4")


@given(st.lists(WORDS.map(" ".join), max_size=10))
def test_stable_text_only_grows(texts: list[str]) -> None:
    agreement = Agreement()
    before = ""
    for text in texts:
        agreement.add(text)
        assert agreement.stable.startswith(before)
        before = agreement.stable


@given(WORDS.map(" ".join))
def test_a_text_repeated_three_times_is_stable_up_to_its_mark(text: str) -> None:
    agreement = Agreement()
    for _ in range(3):
        agreement.add(text)
    assert agreement.stable + agreement.unstable == text.strip()
    assert len(agreement.unstable) <= 1


@pytest.mark.parametrize(
    "text", ["", "a", "a b", "今日はGPT、いい天気です。 ok then - yes", "1-2-3 -", "«Да», — сказал он."]
)
def test_joined_words_are_the_text(text: str) -> None:
    assert "".join(split_words(text)) == text
