"""What goes into the engine and what comes out of it. Times are seconds, log-probabilities natural."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
"""Mono audio at 16 kHz, -1 to 1."""


class Chunk(Protocol):
    """At most 30 s of a recording: what `stt_server.audio.split` makes and what the engine recognizes."""

    @property
    def samples(self) -> Samples: ...

    @property
    def start(self) -> float:
        """Seconds from the start of the recording."""
        ...

    @property
    def speech(self) -> tuple[tuple[float, float], ...]:
        """Spans in which speech was heard, in seconds from the start of the chunk."""
        ...


@dataclass(frozen=True)
class DecodeOptions:
    """How a request wants its chunks decoded."""

    language: str | None = None
    """ISO 639-1 code; None: detected."""
    candidate_languages: tuple[str, ...] = ()
    """Detection chooses among these; empty: among all that the model knows."""
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = ""
    hotwords: tuple[str, ...] = ()
    word_timestamps: bool = False


@dataclass(frozen=True)
class Word:
    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    start: float
    end: float
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Hypothesis:
    """What one model made of one chunk. Times are from the start of the recording."""

    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None
    """0 to 1; None if the language was forced, or the model knows only one."""
    token_logprobs: tuple[float, ...]
    """Of the text tokens, in order; never of timestamps."""
    looped: bool
    """The text repeats itself, on the full window too."""

    @property
    def text(self) -> str:
        return join_text(segment.text for segment in self.segments)


@dataclass(frozen=True)
class Confidence:
    """How sure a model was of a text, from its token log-probabilities."""

    mean: float
    """exp(mean token log-probability), 0 to 1."""
    weakest: float
    """The same over the least sure quarter of the tokens."""

    @classmethod
    def of(cls, logprobs: Iterable[float]) -> Confidence | None:
        """None where there is no token, so nothing to be sure of."""
        values = sorted(logprobs)
        if not values:
            return None
        quarter = values[: max(1, len(values) // 4)]
        return cls(math.exp(sum(values) / len(values)), math.exp(sum(quarter) / len(quarter)))


@dataclass(frozen=True)
class ModelInfo:
    name: str
    device: str
    """`cpu` or `cuda`."""
    compute_type: str
    languages: tuple[str, ...] = field(repr=False)
    """Codes that can be forced, sorted; just `en` for an English-only model."""

    @property
    def multilingual(self) -> bool:
        return len(self.languages) > 1


class Recognizer(Protocol):
    """A loaded model. `recognize` blocks and may be called from several threads at once."""

    @property
    def info(self) -> ModelInfo: ...

    def recognize(self, chunk: Chunk, options: DecodeOptions) -> Hypothesis:
        """Raises:
        EngineError: the model failed on this chunk.
        OutOfMemory: the device had no room for it.
        """
        ...


def join_text(parts: Iterable[str]) -> str:
    """Segment texts as one text. Whisper marks a word's start with a space, so parts of a script written without
    spaces join without one."""
    return "".join(parts).strip()
