"""Loops, early stops and impossible rates of words."""

from __future__ import annotations

import pytest

from stt_server.engine import text_checks as guard


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
def test_a_text_that_repeats_itself_is_a_loop(text: str) -> None:
    assert guard.is_looped(text)


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
def test_speech_is_not_a_loop(text: str) -> None:
    assert not guard.is_looped(text)


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
def test_words_are_counted_as_their_script_writes_them(text: str, words: list[str]) -> None:
    assert guard.words_of(text) == words


def test_compression_ratio_of_nothing_is_zero() -> None:
    assert guard.compression_ratio("") == 0.0
    assert guard.compression_ratio("a" * 1000) > 50


def test_a_text_nobody_could_say_in_the_time_is_too_fast() -> None:
    sentence = "one two three four five six seven eight nine ten eleven twelve thirteen"
    assert guard.is_too_fast(sentence, 1.0)
    assert not guard.is_too_fast(sentence, 4.0)
    assert not guard.is_too_fast("", 0.0)
    assert not guard.is_too_fast("天地玄黄宇宙洪荒日月盈昃辰宿列张", 3.0)


def test_an_early_stop_is_measured_against_the_last_speech() -> None:
    assert guard.stops_early(2.0, 3.0)
    assert not guard.stops_early(2.5, 3.0)
