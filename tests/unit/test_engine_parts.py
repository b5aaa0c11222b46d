"""Windows, languages, segments and confidence, without a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from stt_server.engine.alignment import greedy_logprobs
from stt_server.engine.language import rank_languages
from stt_server.engine.tokens import (
    MAX_LENGTH,
    MAX_PROMPT_TOKENS,
    TimedTokens,
    earlier_tokens,
    max_length,
    prompt_tokens,
    split_segments,
    tokens_per_second,
)
from stt_server.engine.types import DecodeOptions, confidence_of, join_text
from stt_server.engine.windows import (
    _EDGE_POSITIONS,
    _TAIL_POSITIONS,
    CAUTIOUS,
    POSITIONS_PER_SECOND,
    TAILS,
    WINDOW_SECONDS,
    Tails,
    Windows,
    features,
    lengthened,
)

EOT, FIRST_TIMESTAMP = 100, 200


class WordTokenizer:
    """A tokenizer with one token per word."""

    eot, timestamp_begin, sot_prev, sot_sequence = EOT, FIRST_TIMESTAMP, 101, [102, 103]

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


def at(seconds: float) -> int:
    return FIRST_TIMESTAMP + round(seconds / 0.02)


BASE = Windows.of(512, "adaptive")


@pytest.mark.parametrize(
    ("seconds", "window"),
    [(0.1, 8), (6.0, 8), (6.01, 12), (10.0, 12), (15.0, 17), (15.1, 23), (21.1, 30), (30.0, 30)],
)
def test_decoder_window_fits_the_audio_and_its_silence(seconds: float, window: int) -> None:
    assert BASE.decoded(seconds) == window
    assert Windows.of(512, "full").decoded(seconds) == 30


@pytest.mark.parametrize(
    ("seconds", "window", "encoded"),
    [(0.1, 8, 4.0), (4.0, 8, 6.0), (4.1, 8, 6.5), (22.0, 30, 24.0), (29.9, 30, 30.0)],
)
def test_encoder_window_fits_the_audio_and_a_little_silence(seconds: float, window: int, encoded: float) -> None:
    assert BASE.encoded(seconds, window) == encoded
    assert Windows.of(512, "full").encoded(seconds, 30) == 30.0


def test_unmeasured_model_gets_more_silence() -> None:
    small, tiny = Windows.of(768, "adaptive"), Windows.of(384, "adaptive")
    assert (small.decoded(4.5), small.encoded(4.5, 12)) == (12, 8.5)
    assert (tiny.decoded(4.5), tiny.encoded(4.5, 8)) == (8, 6.5)


@pytest.mark.parametrize("tails", [*TAILS.values(), CAUTIOUS])
def test_repeated_positions_are_encoded_silence(tails: Tails) -> None:
    assert tails.decoded >= tails.encoded
    assert tails.encoded * POSITIONS_PER_SECOND >= _TAIL_POSITIONS + _EDGE_POSITIONS


def test_encoded_silence_is_repeated_to_fill_the_window() -> None:
    encoded = np.arange(250, dtype=np.float32)[:, None] * np.ones((1, 4), dtype=np.float32)
    longer = lengthened(encoded, 12)
    assert longer.shape == (600, 4)
    assert list(longer[:248, 0]) == list(range(248)), "audio keeps its place"
    assert list(longer[-2:, 0]) == [248, 249], "the edge stays last"
    assert set(longer[248:-2, 0]) == set(range(173, 248)), "the last 1.5 s of silence are repeated"
    assert lengthened(longer, 12) is longer


@pytest.mark.parametrize("window", [3.5, *WINDOW_SECONDS])
def test_features_fill_their_window_and_end_in_silence(window: float) -> None:
    extractor = FeatureExtractor()
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 16000).astype(np.float32)
    mel = features(extractor, noise, window)
    assert mel.shape == (1, 80, round(window * 100))
    assert mel.flags.c_contiguous
    assert mel.dtype == np.float32
    assert np.ptp(mel[0, :, 310:]) == 0.0, "all frames after the audio are silence"


@pytest.mark.parametrize("seconds", [0.01, 0.5, 2.345, 7.99, 8.0, 9.0])
@pytest.mark.parametrize("level", [0.0, 1e-6, 0.1, 1.0])
def test_filled_in_silence_equals_computed_silence(seconds: float, level: float) -> None:
    extractor = FeatureExtractor()
    noise = np.random.default_rng(1).normal(0, 1, int(seconds * 16000)).astype(np.float32) * np.float32(level)
    computed = np.zeros(8 * 16000 + 400, dtype=np.float32)
    computed[: min(len(noise), 8 * 16000)] = noise[: 8 * 16000]
    np.testing.assert_allclose(features(extractor, noise, 8)[0], extractor(computed, padding=0)[:, :800], atol=1e-5)


def test_candidate_languages_share_the_probability() -> None:
    ranking = [("<|en|>", 0.6), ("<|nl|>", 0.2), ("<|de|>", 0.1), ("<|fr|>", 0.1)]
    assert rank_languages(ranking, ())[0] == ("en", 0.6)
    (code, probability), (other, _) = rank_languages(ranking, ("de", "nl"))
    assert (code, round(probability, 6)) == ("nl", round(0.2 / 0.3, 6))
    assert other == "de"


def test_tokens_are_split_at_timestamps() -> None:
    tokens = [at(0), 1, 2, at(1.5), at(2.0), 3, at(3.0)]
    assert split_segments(tokens, WordTokenizer(), 5.0) == [
        TimedTokens(0.0, 1.5, (1, 2)),
        TimedTokens(2.0, 3.0, (3,)),
    ]


def test_open_segment_ends_with_the_audio() -> None:
    assert split_segments([at(1.0), 7, 8], WordTokenizer(), 4.2) == [TimedTokens(1.0, 4.2, (7, 8))]
    assert split_segments([7, 8], WordTokenizer(), 4.2) == [TimedTokens(0.0, 4.2, (7, 8))]
    assert split_segments([], WordTokenizer(), 4.2) == []


def test_no_segment_ends_after_the_audio() -> None:
    assert split_segments([at(0), 1, at(9.0)], WordTokenizer(), 4.0) == [TimedTokens(0.0, 4.0, (1,))]


def test_segments_after_the_end_are_left_out() -> None:
    said = [at(0), 1, at(3.0), at(3.0), 2, at(7.9)]
    wanted = [TimedTokens(0.0, 3.0, (1,)), TimedTokens(3.0, 7.9, (2,))]
    assert split_segments([*said, at(9.0), 2, at(12.0), at(12.0), 2, at(15.0)], WordTokenizer(), 7.9) == wanted
    assert split_segments([*said, at(9.0), 2], WordTokenizer(), 7.9) == wanted


def test_repetition_before_segments_after_the_end_is_left_out() -> None:
    first = [at(0), 1, at(3.0), at(3.0), 2, at(7.0)]
    wanted = [TimedTokens(0.0, 3.0, (1,)), TimedTokens(3.0, 7.0, (2,))]
    hurried, late = [at(7.0), 2, at(7.9)], [at(10.0), 2, at(15.0)]
    assert split_segments([*first, *hurried, *late], WordTokenizer(), 7.9) == wanted
    # It may have been said again: nothing shows a loop, or there was time.
    assert split_segments([*first, *hurried], WordTokenizer(), 7.9) == [*wanted, TimedTokens(7.0, 7.9, (2,))]
    said = [at(7.0), 2, at(9.5)]
    assert split_segments([*first, *said, *late], WordTokenizer(), 9.9) == [*wanted, TimedTokens(7.0, 9.5, (2,))]


def test_only_segment_may_be_timed_late() -> None:
    assert split_segments([at(1.0), 1, at(1.2)], WordTokenizer(), 0.5) == [TimedTokens(1.0, 0.5, (1,))]


def test_prompt_keeps_its_end_and_hotwords_their_start() -> None:
    tokenizer: Any = WordTokenizer()
    assert prompt_tokens(tokenizer, earlier_tokens(tokenizer, DecodeOptions())) == [102, 103]
    long = " ".join(["aa"] * 500 + ["bbb"])
    tokens = prompt_tokens(tokenizer, earlier_tokens(tokenizer, DecodeOptions(prompt=long, hotwords=("cccc",))))
    assert tokens[0] == 101
    assert tokens[1] == 4
    assert tokens[-3:] == [3, 102, 103]
    assert len(tokens) == 1 + MAX_PROMPT_TOKENS + 2


@pytest.mark.parametrize("prompt", [1, 3, 200, 226])
@pytest.mark.parametrize("seconds", [0.1, 2.0, 10.0, 30.0])
@pytest.mark.parametrize("rate", [tokens_per_second("en"), tokens_per_second("th")])
def test_max_length_leaves_room_after_a_prompt(rate: int, seconds: float, prompt: int) -> None:
    bound = max_length(seconds, rate, prompt)
    generated = min(bound // 2, bound - prompt)
    assert bound <= MAX_LENGTH
    assert generated >= min(16 + rate * seconds, MAX_LENGTH // 2, MAX_LENGTH - prompt) - 1


def test_scripts_without_words_in_the_vocabulary_have_more_tokens() -> None:
    assert tokens_per_second("th") > tokens_per_second("en") == tokens_per_second("ja")


def test_confidence_is_the_geometric_mean_of_probabilities() -> None:
    logprobs = [math.log(p) for p in (0.9, 0.8, 0.5, 0.9)]
    assert confidence_of(logprobs) == pytest.approx((0.9 * 0.8 * 0.5 * 0.9) ** 0.25)
    assert confidence_of([]) is None


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([" One two.", " Three."], "One two. Three."),
        (["One two.", "", "Three."], "One two. Three."),
        (["你好，", "世界。", "天地"], "你好，世界。天地"),
        (["こんにちは", "世界"], "こんにちは世界"),
        (["안녕하세요", "세계"], "안녕하세요 세계"),
        (["สวัสดี", "ชาวโลก"], "สวัสดีชาวโลก"),
        (["नमस्ते", "दुनिया"], "नमस्ते दुनिया"),
        ([], ""),
    ],
)
def test_texts_are_joined_by_script(parts: list[str], text: str) -> None:
    assert join_text(parts) == text


def test_greedy_logprobs_are_among_text_tokens_only() -> None:
    # Ids 0 to 2 are text and 3 is a timestamp, whose logit must not matter.
    logits = [np.log([[0.5, 0.25, 0.25, 9.0]]), np.log([[0.1, 0.1, 0.1, 9.0]]), np.array([[-3e38, 0.0, -3e38, 5.0]])]
    found = greedy_logprobs(logits, [0, 3, 1], text_tokens=3)
    assert found == pytest.approx([math.log(0.5), 0.0])
    assert greedy_logprobs(logits[:1], [3], text_tokens=3) == []
