"""The engine's inputs and outputs. Times are in seconds, log-probabilities are natural logarithms."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
"""Mono audio at 16 kHz, -1 to 1."""


class Chunk(Protocol):
    """At most 30 s of a recording, as `stt_server.audio.split` cuts it."""

    @property
    def samples(self) -> Samples: ...

    @property
    def start(self) -> float:
        """Seconds from the start of the recording."""
        ...

    @property
    def speech(self) -> tuple[tuple[float, float], ...]:
        """Detected speech: (start, end) in seconds from the start of the chunk, in order."""
        ...

    @property
    def speech_certain(self) -> bool:
        """Whether the VAD was certain of speech. If not, the model's own output decides whether there was any."""
        ...


def speech_seconds(chunk: Chunk) -> float:
    """Total duration of the detected speech."""
    return sum(end - start for start, end in chunk.speech)


def speech_end(chunk: Chunk) -> float:
    """End of the last detected speech, in seconds from the start of the chunk; 0 if there is none."""
    return chunk.speech[-1][1] if chunk.speech else 0.0


@dataclass(frozen=True)
class DecodeOptions:
    """A request's options for decoding its chunks."""

    language: str | None = None
    """ISO 639-1 code; None: detect it."""
    candidate_languages: tuple[str, ...] = ()
    """Codes to choose from when detecting; empty: all that the model supports."""
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = ""
    context: str = ""
    """Text recognized just before this audio. Unlike the caller's prompt it is cut to a fixed number of tokens, so that
    chunks of different streams can share a batch."""
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
    language: str = ""
    """ISO 639-1 code, where the recording changes its language; empty: that of the whole answer."""
    channel: int = 0
    """1 for the first; 0 where the channels were mixed."""


@dataclass(frozen=True)
class Hypothesis:
    """One model's result for one chunk. Times count from the start of the recording."""

    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None
    """0 to 1; None if the language was given, or the model supports only one."""
    token_logprobs: tuple[float, ...]
    """Of the text tokens, in order, without timestamps."""
    looped: bool
    """Whether the text is a repetition loop, even after decoding again. What the speaker may have repeated is none."""
    suppressed: str | None = None
    """Why a text over uncertain speech was dropped as a hallucination, one of `hallucination.REASONS`; there are no
    segments then. Over certain speech, a dropped text is just empty: a doubt, for the fallback to settle."""
    redecoded_seconds: float = 0.0
    """What decoding again took, in the seconds of `acceptance.RedecodingBudget`."""
    parts: tuple[tuple[Chunk, Hypothesis], ...] = ()
    """The parts of a chunk between which its language changes, each with its own hypothesis; empty: it doesn't."""

    @property
    def text(self) -> str:
        """Segments' texts joined as they are: Whisper starts each word with a space."""
        return "".join(segment.text for segment in self.segments).strip()


def confidence_of(logprobs: Iterable[float]) -> float | None:
    """exp(mean log-probability) of text tokens, 0 to 1: the geometric mean of their probabilities.

    None if there are no tokens.
    """
    values = list(logprobs)
    return math.exp(sum(values) / len(values)) if values else None


@dataclass(frozen=True)
class ModelInfo:
    name: str
    device: str
    """`cpu` or `cuda`."""
    compute_type: str
    languages: tuple[str, ...] = field(repr=False)
    """Supported codes, sorted; just `en` for an English-only model."""

    @property
    def multilingual(self) -> bool:
        return len(self.languages) > 1


@dataclass(frozen=True)
class ChunkJob:
    """A chunk to recognize, with its options."""

    chunk: Chunk
    options: DecodeOptions
    draft: bool = False
    """A draft of an unfinished utterance: decoded only once, however good the result."""
    expected_language: str = ""
    """Of the recording: the chunk's own language is another one only if that is detected surely. Empty: unknown."""
    may_change_language: bool = False
    """Whether the chunk is cut where its language changes. Never if the language is given."""
    begins: bool = False
    """Whether it begins a recording or an utterance, and no text before it is known that a sentence would continue."""
    wanted: Callable[[], bool] = field(default=lambda: True, compare=False, repr=False)
    """Whether a caller is still waiting for the result. May be called in any thread."""


class Recognizer(Protocol):
    """A loaded model. Thread-safe."""

    @property
    def info(self) -> ModelInfo: ...

    def group_of(self, job: ChunkJob) -> Hashable:
        """Jobs of the same group can share a batch."""
        ...

    def batch_limit(self, group: Hashable) -> int:
        """Most jobs of a group that are worth batching on this device, at least 1."""
        ...

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        """Recognize jobs of one group. Blocks.

        Args:
            more: returns jobs of the same group that join the batch, and an empty list once there are no more. A
                recognizer need not call it.

        Returns:
            A hypothesis for each job, then for each that joined, in order.

        Raises:
            Abandoned: no caller is waiting for any of the jobs.
            Exception: any error of the model; `health.failures.failure_of` classifies it.
        """
        ...


def join_text(parts: Iterable[str]) -> str:
    """Join texts with spaces, except between characters of scripts written without spaces."""
    joined = ""
    for part in filter(None, (part.strip() for part in parts)):
        spaced = joined and not (_stands_alone(joined[-1]) or _stands_alone(part[0]))
        joined += f" {part}" if spaced else part
    return joined


def _stands_alone(character: str) -> bool:
    """Whether a character takes no space beside it: Chinese, Japanese, their punctuation, Thai, Lao, Myanmar, Khmer."""
    return (unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3") or (
        "\u0e00" <= character <= "\u0eff" or "\u1000" <= character <= "\u109f" or "\u1780" <= character <= "\u17ff"
    )
