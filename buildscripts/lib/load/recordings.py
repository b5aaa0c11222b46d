"""The sample recordings in several containers, and a check that a text belongs to a recording."""

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
"""PyAV's names of container and codec, and the sample rate in Hz."""

MAX_ERROR_RATE = 0.5
"""Largest share of wrong words: the smallest models make many, but a text of another recording shares almost none."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class EncodedClip:
    """A recording with its encoded files."""

    name: str
    language: str
    text: str
    """Reference text."""
    pcm: bytes = field(repr=False)
    """Mono, 16-bit, at 16 kHz."""
    files: Mapping[str, bytes] = field(repr=False)
    """Encoded files by container."""

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 32000


def encode_clip(clip: Clip, containers: Sequence[Container] = ("wav", *CONTAINERS)) -> EncodedClip:
    """Encode a clip in each container."""
    recording = Recording.of(clip)
    files: dict[str, bytes] = {
        name: recording.wav if name == "wav" else encode(recording.pcm, name) for name in containers
    }
    return EncodedClip(clip.name, clip.language, clip.text, recording.pcm, files)


def encode(pcm: bytes, container: Container) -> bytes:
    """Encode mono 16-bit audio at 16 kHz in another container."""
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
        raise CorpusError(f"no samples in {language!r}; run buildscripts/models samples")
    return clips


def long_clip(name: str, clips: Sequence[Clip], seconds: float) -> Clip:
    """Repeat clips to a recording of at least `seconds`."""
    chosen: list[Clip] = []
    while sum(clip.seconds + 0.8 for clip in chosen) < seconds:
        chosen.append(clips[len(chosen) % len(clips)])
    return joined(name, chosen)


def matches(text: str, to: EncodedClip, others: Sequence[EncodedClip]) -> bool:
    """Whether `text` roughly matches a recording's reference, and no other recording's better."""
    errors, words = _errors(to, text)
    if errors > MAX_ERROR_RATE * words:
        return False
    return all(errors <= _errors(other, text)[0] for other in others)


def _errors(said: EncodedClip, text: str) -> tuple[int, int]:
    """Wrong words of a text, and words of the reference. Numbers up to ten may be figures, even joined."""
    spelt = re.sub(r"10|\d", lambda digits: f" {_NUMBERS[int(digits[0])]} ", text)
    return word_errors(said.text, spelt, "")  # no language: the English normalization would join numbers
