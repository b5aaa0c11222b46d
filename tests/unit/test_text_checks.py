"""Repetition loops, early stops and impossible word rates."""

from __future__ import annotations

import pytest

from stt_server.engine.text_checks import (
    compression_ratio,
    is_looped,
    is_sparse,
    is_spoken_repetition,
    is_too_fast,
    repeated_words,
    stops_early,
    words_of,
)


@pytest.mark.parametrize(
    "text",
    [
        "I am here I am here",
        "no no no no no",
        "well well this this this this this",
        "thank you very much thank you very much thank you very much",
        "ha" * 60,
        "ありがとうございますありがとうございます",
    ],
)
def test_repetition_is_a_loop(text: str) -> None:
    assert is_looped(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no",
        "That that is, is; that that is not, is not.",
        "One two three four five six seven eight nine ten.",
        "to be or not to be, that is the question",
        "一二三四五六七八九十。",
        "いろはにほへと散りぬるを我が世誰ぞ常ならん。",
        "a very very very good day",
    ],
)
def test_usual_text_is_not_a_loop(text: str) -> None:
    assert not is_looped(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world!", ["hello", "world"]),
        ("  ", []),
        ("...?!", []),
        ("你好世界。", ["你", "好", "世", "界"]),
        ("Tokyoは東京", ["tokyo", "は", "東", "京"]),
        ("สวัสดี", ["ส", "ว", "ั", "ส", "ด", "ี"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("don't stop", ["dont", "stop"]),
        ("1-2-3, 45.", ["1", "2", "3", "45"]),
        ("well-known", ["well", "known"]),
        ("你好，世界！", ["你", "好", "世", "界"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),
    ],
)
def test_words_are_split_by_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_compression_ratio() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("a" * 1000) > 50


def test_too_many_words_for_the_time_are_too_fast() -> None:
    sentence = "one two three four five six seven eight nine ten eleven twelve thirteen"
    assert is_too_fast(sentence, 1.0)
    assert not is_too_fast(sentence, 4.0)
    assert not is_too_fast("", 0.0)
    assert not is_too_fast("天地玄黄宇宙洪荒日月盈昃辰宿列张", 3.0)


@pytest.mark.parametrize(
    ("text", "count"),
    [("no no no no no no", 1), ("stop it " * 6, 2), ("please try again please try again", 3), ("one two three", 1)],
)
def test_words_of_the_repeated_run_are_counted(text: str, count: int) -> None:
    assert repeated_words(text) == count


def test_few_letters_for_the_time_are_sparse() -> None:
    assert is_sparse("Whoever lived on the ranch did that.", 3.9)
    assert not is_sparse("Whoever lived on the ranch did that.", 2.0)
    assert is_sparse("天地玄黄宇宙", 3.0)
    assert not is_sparse("天地玄黄宇宙洪荒日月盈昃", 2.5)


def test_early_stop_is_relative_to_the_end_of_speech() -> None:
    assert stops_early(2.0, 3.0)
    assert not stops_early(2.5, 3.0)


def bursts(count: int, seconds: float) -> list[tuple[float, float]]:
    """Speech in `count` bursts of this many seconds, with pauses of 0.3 s."""
    return [(index * (seconds + 0.3), index * (seconds + 0.3) + seconds) for index in range(count)]


@pytest.mark.parametrize(
    ("text", "speech"),
    [
        ("Nine, nine, nine, nine, nine.", bursts(5, 0.58)),
        ("No, no, no, no, no, no, no, I said no.", bursts(7, 0.5)),
        ("Stop it, stop it, stop it, stop it, stop it!", bursts(5, 0.6)),
        ("Whoever lived on the ranch did that. Whoever lived on the ranch did that.", bursts(2, 1.95)),
    ],
)
def test_repetition_that_the_speech_holds_is_spoken(text: str, speech: list[tuple[float, float]]) -> None:
    assert is_spoken_repetition(text, speech)


@pytest.mark.parametrize(
    ("text", "speech"),
    [
        ("Nine. " * 70, bursts(5, 0.58)),  # faster than anybody speaks
        ("thank you very much thank you very much", bursts(2, 10.0)),  # far slower
        ("I'm going to go to the next one. " * 4, bursts(3, 3.0)),  # more phrases than bursts
        ("I am here I am here", []),
    ],
)
def test_repetition_that_the_speech_cannot_hold_is_not_spoken(text: str, speech: list[tuple[float, float]]) -> None:
    assert not is_spoken_repetition(text, speech)
