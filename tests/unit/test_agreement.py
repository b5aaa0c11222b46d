"""Stable prefixes: what two hypotheses in a row agree on, and never less than before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_server.streaming.agreement import Agreement, split_words

WORDS = st.lists(
    st.sampled_from(["the", "The", "fox", "fox,", "fox.", "jumps", "over", "a", "今日", "は。"]), max_size=8
)


def shown(*texts: str) -> list[tuple[str, str]]:
    agreement = Agreement()
    found = []
    for text in texts:
        agreement.add(text)
        found.append((agreement.stable, agreement.unstable))
    return found


def test_what_two_hypotheses_agree_on_is_stable() -> None:
    assert shown("the quick", "the quick brow", "the quick brown fox") == [
        ("", "the quick"),
        ("the quick", " brow"),
        ("the quick", " brown fox"),
    ]


def test_case_and_punctuation_are_no_disagreement() -> None:
    assert shown("hello world", "Hello, world and")[-1] == ("Hello, world", " and")


def test_the_end_of_a_sentence_is_not_stable_at_the_end_of_a_text() -> None:
    assert shown("it rains.", "it rains.")[-1] == ("it rains", ".")
    assert shown("it rains.", "it rains.", "it rains cats")[-1] == ("it rains", " cats")


def test_a_changed_mind_about_stable_words_repeats_none_of_them() -> None:
    texts = ["we saw the sea", "we saw the sea", "we saw all the sea again", "we saw all the sea again today"]
    assert shown(*texts)[-1] == ("we saw the sea again", " today")


def test_text_without_spaces_becomes_stable_by_the_character() -> None:
    assert shown("今日は", "今日はいい", "今日はいい天気")[-1] == ("今日はいい", "天気")


def test_counting_becomes_stable_number_by_number() -> None:
    assert shown("1-2-3", "1-2-3-4")[-1] == ("1-2-3", "-4")


@given(st.lists(WORDS.map(" ".join), max_size=10))
def test_stable_text_only_grows(texts: list[str]) -> None:
    agreement = Agreement()
    before = ""
    for text in texts:
        agreement.add(text)
        assert agreement.stable.startswith(before)
        before = agreement.stable


@given(WORDS.map(" ".join))
def test_a_text_said_three_times_is_stable_but_for_its_end_mark(text: str) -> None:
    agreement = Agreement()
    for _ in range(3):
        agreement.add(text)
    assert agreement.stable + agreement.unstable == text.strip()
    assert len(agreement.unstable) <= 1


@pytest.mark.parametrize(
    "text", ["", "a", "a b", "今日はGPT、いい天気です。 ok then - yes", "1-2-3 -", "«Да», — сказал он."]
)
def test_words_joined_are_the_text(text: str) -> None:
    assert "".join(split_words(text)) == text
