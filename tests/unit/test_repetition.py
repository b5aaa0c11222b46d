"""Where a chunk with repeated speech is cut into stretches that are decoded one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from stt_server.engine.repetition import may_miss_repetitions, stretches_after, stretches_of_loop
from stt_server.engine.types import Samples

SENTENCE = "Whoever lived on the ranch did that."
TWICE = ((0.1, 2.0), (3.1, 5.1))
FIVE_WORDS = tuple((index * 0.7, index * 0.7 + 0.5) for index in range(5))


@dataclass
class Clip:
    speech: tuple[tuple[float, float], ...] = TWICE
    speech_certain: bool = True
    samples: Samples = field(default_factory=lambda: np.zeros(round(5.5 * 16000), dtype=np.float32))
    start: float = 0.0


def covers(stretch: tuple[float, float], first: float, last: float) -> bool:
    """Whether a stretch holds this speech, and at most 0.3 s more on each side."""
    return first - 0.3 <= stretch[0] <= first and last <= stretch[1] <= last + 0.31


@pytest.mark.parametrize(
    ("text", "clip", "expected"),
    [
        (SENTENCE, Clip(), True),  # 7 words in 3.9 s
        (f"{SENTENCE} {SENTENCE}", Clip(), True),  # a third one may be missing
        ("It was my reports from the north which chiefly induced people to buy.", Clip(), False),
        (SENTENCE, Clip(speech=((0.1, 5.1),)), False),  # without a pause
        (SENTENCE, Clip(speech_certain=False), False),
        ("", Clip(), False),
    ],
)
def test_sparse_or_repetitive_text_may_miss_repetitions(text: str, clip: Clip, expected: bool) -> None:
    assert may_miss_repetitions(text, clip) is expected


def test_loop_over_short_words_is_cut_at_each_pause() -> None:
    found = stretches_of_loop("No, " * 60, Clip(FIVE_WORDS))
    assert len(found) == 5
    assert all(covers(stretch, *word) for stretch, word in zip(found, FIVE_WORDS, strict=True))
    assert all(one[1] <= other[0] for one, other in pairwise(found))


def test_loop_over_sentences_is_not_cut_within_them() -> None:
    speech = ((0.1, 1.1), (1.2, 3.2), (3.9, 4.9), (5.1, 7.0))
    samples = np.zeros(round(7.2 * 16000), dtype=np.float32)
    text = "They are his tongue by which he makes his knowledge articulate. " * 9
    first, second = stretches_of_loop(text, Clip(speech, samples=samples))
    assert covers(first, 0.1, 3.2)
    assert covers(second, 3.9, 7.0)


def test_loop_over_speech_without_a_pause_is_not_cut() -> None:
    assert stretches_of_loop("No, " * 60, Clip(((0.0, 5.0),))) == []


def test_stretches_after_a_text_are_as_long_as_what_it_covers() -> None:
    (second,) = stretches_after(1.9, Clip())
    assert covers(second, 3.1, 5.1)
    halves = ((0.0, 0.9), (1.1, 2.0), (2.5, 3.4), (3.6, 4.5), (4.9, 5.4))
    found = stretches_after(2.0, Clip(halves))
    assert len(found) == 2
    assert covers(found[0], 2.5, 4.5)
    assert covers(found[1], 4.9, 5.4)


def test_speech_that_the_text_reaches_is_left_out() -> None:
    assert stretches_after(5.0, Clip()) == []
