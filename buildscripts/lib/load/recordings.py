"""The sample recordings in the containers that callers send, and whether a text is what was said in one."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import av
import numpy as np

from buildscripts.lib.load.closed_loop import Recording
from buildscripts.lib.load.corpus import Clip, CorpusError, joined, load, word_errors
from buildscripts.lib.models.pins import ROOT

Container = Literal["wav", "flac", "mp3", "ogg", "m4a"]
CONTAINERS: Mapping[Container, tuple[str, str, int]] = {
    "flac": ("flac", "flac", 16000),
    "mp3": ("mp3", "mp3", 16000),
    "ogg": ("ogg", "libopus", 48000),
    "m4a": ("ipod", "aac", 16000),
}
"""PyAV's names of the container and of the codec, and the rate in Hz."""

MAX_WRONG = 0.5
"""Of the words: the smallest models mishear, but an answer to another request shares next to none."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Spoken:
    """A recording as callers send it."""

    name: str
    language: str
    text: str
    """What is said."""
    pcm: bytes = field(repr=False)
    """Mono, 16-bit, at 16 kHz."""
    files: Mapping[str, bytes] = field(repr=False)
    """By container."""

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 32000


def spoken(clip: Clip, containers: Sequence[Container] = ("wav", *CONTAINERS)) -> Spoken:
    """Encodes a clip once."""
    recording = Recording.of(clip)
    files: dict[str, bytes] = {
        name: recording.wav if name == "wav" else encode(recording.pcm, name) for name in containers
    }
    return Spoken(clip.name, clip.language, clip.text, recording.pcm, files)


def encode(pcm: bytes, container: Container) -> bytes:
    """Mono, 16-bit at 16 kHz, as a file of another kind."""
    format_, codec, rate = CONTAINERS[container]
    out = io.BytesIO()
    with av.open(out, "w", format=format_) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[None, :], format="s16", layout="mono")
        frame.sample_rate = 16000
        resampler = av.AudioResampler(stream.format.name, "mono", rate, frame_size=stream.frame_size or 1024)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return out.getvalue()


def sample_clips(language: str) -> list[Clip]:
    """The sample recordings of one language.

    Raises:
        CorpusError: there are none.
    """
    clips = [clip for clip in load(ROOT / "samples") if clip.language == language]
    if not clips:
        raise CorpusError(f"there are no samples of {language!r}: run buildscripts/models samples first")
    return clips


def long_clip(name: str, clips: Sequence[Clip], seconds: float) -> Clip:
    """Clips over and over, for at least so long."""
    chosen: list[Clip] = []
    while sum(clip.seconds + 0.8 for clip in chosen) < seconds:
        chosen.append(clips[len(chosen) % len(clips)])
    return joined(name, chosen)


def is_answer(text: str, to: Spoken, others: Sequence[Spoken]) -> bool:
    """Whether a text is what was said in a recording, roughly, and not rather what was said in another one."""
    errors, words = _errors(to, text)
    if errors > MAX_WRONG * words:
        return False
    return all(errors <= _errors(other, text)[0] for other in others)


def _errors(said: Spoken, text: str) -> tuple[int, int]:
    """Wrong words of a text, and words of the recording. Numbers up to ten may come as figures, even joined."""
    spelt = re.sub(r"10|\d", lambda digits: f" {_NUMBERS[int(digits[0])]} ", text)
    return word_errors(said.text, spelt, "")  # no language: what is normalized for English joins numbers
