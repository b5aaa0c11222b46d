"""What goes into the engine and what comes out of it. Times are seconds, log-probabilities natural."""

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

    @property
    def speech_certain(self) -> bool:
        """Voice activity detection was sure; else the model itself decides whether anybody spoke."""
        ...


def speech_seconds(chunk: Chunk) -> float:
    """How long speech was heard in a chunk."""
    return sum(end - start for start, end in chunk.speech)


@dataclass(frozen=True)
class DecodeOptions:
    """How a request wants its chunks decoded."""

    language: str | None = None
    """ISO 639-1 code; None: detected."""
    candidate_languages: tuple[str, ...] = ()
    """Detection chooses among these; empty: among all that the model knows."""
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = ""
    context: str = ""
    """What was said just before the audio. Unlike the prompt it is no wish of the caller's: it is cut to a length that
    other chunks have too, so that they can be recognized together."""
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
    suppressed: str | None = None
    """Why a text was dropped as invented, of `invention.REASONS`; there are no segments then."""

    @property
    def text(self) -> str:
        """Whisper marks a word's start with a space, so segments join as they are."""
        return "".join(segment.text for segment in self.segments).strip()


def confidence_of(logprobs: Iterable[float]) -> float | None:
    """exp(mean log-probability) of text tokens, 0 to 1: the geometric mean of their probabilities.

    None where there is no token, so nothing to be sure of.
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
    """Codes that can be forced, sorted; just `en` for an English-only model."""

    @property
    def multilingual(self) -> bool:
        return len(self.languages) > 1


@dataclass(frozen=True)
class ChunkJob:
    """One chunk to be recognized."""

    chunk: Chunk
    options: DecodeOptions
    draft: bool = False
    """Soon out of date: decoded once, whatever comes out."""
    wanted: Callable[[], bool] = field(default=lambda: True, compare=False, repr=False)
    """Whether somebody still waits for it; asked in any thread."""


class Recognizer(Protocol):
    """A loaded model. Its methods may be called from several threads at once."""

    @property
    def info(self) -> ModelInfo: ...

    def group_of(self, job: ChunkJob) -> Hashable:
        """Jobs of one group can be recognized together."""
        ...

    def batch_limit(self, group: Hashable) -> int:
        """How many jobs of a group are worth recognizing together on this device, at least 1."""
        ...

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        """Recognizes jobs of one group; blocks.

        Args:
            more: gives jobs of the same group that may join, until it gives none; a recognizer need not ask.

        Returns:
            A hypothesis for each job, then for each that joined, in order.

        Raises:
            Abandoned: none of them is wanted any more.
            Exception: whatever the model failed with; `failures.failure_of` knows what it means.
        """
        ...


def join_text(parts: Iterable[str]) -> str:
    """Texts as one text: with a space between them, but for scripts that are written without."""
    joined = ""
    for part in filter(None, (part.strip() for part in parts)):
        spaced = joined and not (_stands_alone(joined[-1]) or _stands_alone(part[0]))
        joined += f" {part}" if spaced else part
    return joined


def _stands_alone(character: str) -> bool:
    """Whether no space belongs beside a character: Chinese and Japanese with their punctuation, Thai and its kin."""
    return (unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3") or (
        "\u0e00" <= character <= "\u0eff" or "\u1000" <= character <= "\u109f" or "\u1780" <= character <= "\u17ff"
    )
