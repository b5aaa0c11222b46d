"""Token log-probabilities and word times."""

from __future__ import annotations

import math
from collections.abc import Sequence

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import merge_punctuations

from stt_server.engine.tokens import TimedTokens
from stt_server.engine.types import Word
from stt_server.engine.windows import FRAMES_PER_SECOND

_PREPENDED = "\"'“¿([{-"
_APPENDED = "\"'.。,，!！?？:：”)]}、"
_LEAST_PROBABILITY = 1e-10


def greedy_logprobs(
    logits: Sequence[ctranslate2.StorageView], sequence: Sequence[int], text_tokens: int
) -> list[float]:
    """Natural log-probability of each text token among all text tokens, from the decoder's logits.

    Costs a fraction of `aligned_logprobs`, but is valid for greedy decoding and sampling only: after a beam search
    CTranslate2 doesn't return the logits of the winning beam.

    Args:
        logits: one array for each decoded token, in host memory.
        sequence: the decoded tokens, including timestamps.
        text_tokens: ids below this one are text.
    """
    steps = [step for step, token in enumerate(sequence) if token < text_tokens]
    if not steps:
        return []
    values = np.stack([np.asarray(logits[step]).ravel()[:text_tokens] for step in steps])
    highest = values.max(axis=1)
    normalizers = highest + np.log(np.exp(values - highest[:, None]).sum(axis=1))
    chosen = values[np.arange(len(steps)), [sequence[step] for step in steps]]
    return [float(value) for value in chosen - normalizers]


def aligned_logprobs(
    model: WhisperModel,
    encoded: ctranslate2.StorageView,
    tokenizer: Tokenizer,
    texts: Sequence[Sequence[int]],
    seconds: Sequence[float],
) -> list[list[float]]:
    """Natural log-probability of each text token, for a batch of texts of the same language and task.

    `generate` scores timestamps too, whose probabilities are always low and would distort a mean. One pass of the
    aligner over the finished text gives the probability of every text token, after any kind of decoding.

    Args:
        encoded: the encoder's output, one item for each text.
        texts: text tokens without timestamps; none empty.
        seconds: seconds of audio in each window.
    """
    results = model.model.align(
        encoded, tokenizer.sot_sequence, [list(text) for text in texts], [_frames(value) for value in seconds]
    )
    return [[math.log(max(p, _LEAST_PROBABILITY)) for p in result.text_token_probs] for result in results]


def word_times(
    model: WhisperModel,
    encoded: ctranslate2.StorageView,
    tokenizer: Tokenizer,
    segments: Sequence[TimedTokens],
    seconds: float,
) -> list[list[Word]]:
    """The words of each segment of one window, with times in seconds from the start of the window."""
    tokens = [token for segment in segments for token in segment.tokens]
    alignment = model.find_alignment(tokenizer, [tokens], encoded, _frames(seconds))[0]
    merge_punctuations(alignment, _PREPENDED, _APPENDED)
    ends = np.cumsum([len(segment.tokens) for segment in segments])
    words: list[list[Word]] = [[] for _ in segments]
    position = 0
    for timing in alignment:
        index = min(int(np.searchsorted(ends, position, side="right")), len(segments) - 1)
        position += len(timing["tokens"])
        if timing["word"]:
            start, end = float(timing["start"]), float(timing["end"])
            words[index].append(Word(start, end, timing["word"], float(timing["probability"])))
    return words


def _frames(seconds: float) -> int:
    """Feature frames in `seconds` of audio; at least the two that the aligner needs."""
    return max(2, math.ceil(seconds * FRAMES_PER_SECOND))
