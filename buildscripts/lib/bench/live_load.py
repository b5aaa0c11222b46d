"""Live recordings with known speech, streamed in real time, and the latency of each result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np

from buildscripts.lib.bench.live_ways import LiveTarget, Way
from buildscripts.lib.load.closed_loop import Recording
from buildscripts.lib.load.corpus import Clip, CorpusError
from stt_client import Final, Interim, SpeechEvent
from stt_server.audio import SAMPLE_RATE
from stt_server.audio.vad import detect_speech, speech_spans

CHUNK_S = 0.1
LONGEST_CLIP_S = 26.0
"""Longer clips are excluded: an utterance is cut before 28 s, where there is no reference for its end."""
PAUSES_S = (1.2, 1.6, 2.0)
"""Pauses between the clips of a recording, in turn; each is longer than the endpoint silence."""
NEAR_S = 0.5
"""Longest distance between an utterance's detected and true start or end that still counts as the same."""


@dataclass(frozen=True, eq=False)
class LiveRecording:
    """Clips in one language, joined with pauses."""

    whole: Recording
    speech: tuple[tuple[float, float], ...]
    """True speech in seconds: spans without a silence that ends an utterance."""


@dataclass(frozen=True)
class Latencies:
    """Latencies of one utterance, in seconds."""

    first_interim: float | None
    """Since its first sound; None: no interim, or its start matches no known speech."""
    final: float | None
    """Since its last sound; None: its end matches no known speech."""


@dataclass(frozen=True)
class Trace:
    """Results of one stream."""

    utterances: tuple[Latencies, ...]
    text: str
    """Text of the finals, joined."""
    lag: float
    """From the end of the audio to the end of the stream, in seconds."""
    fallbacks: int
    """Number of finals with the fallback's text."""


@dataclass
class _Utterance:
    """Times of its events, on the clock of the stream: 0 is when its first sample was spoken."""

    started: float
    ended: float | None = None
    first_interim: float | None = None
    final: float | None = None


def live_recordings(clips: Sequence[Clip], count: int, seconds: float, endpoint_silence: float) -> list[LiveRecording]:
    """Make `count` recordings of about `seconds` each; each begins with another clip.

    Raises:
        CorpusError: no clip is strict and short enough.
    """
    usable = [clip for clip in clips if clip.strict and clip.seconds <= LONGEST_CLIP_S]
    if not usable:
        raise CorpusError(f"no strict clip of at most {LONGEST_CLIP_S:g} s")
    # A recording is in one language: take the one with most audio.
    language = max(
        {clip.language for clip in usable}, key=lambda code: sum(c.seconds for c in usable if c.language == code)
    )
    pool = [clip for clip in usable if clip.language == language]
    spans = {clip.name: _speech(clip, endpoint_silence) for clip in pool}
    made = []
    for number in range(count):
        taken: list[Clip] = []
        for clip in islice(cycle(pool), number * len(pool) // count, None):
            taken.append(clip)
            if sum(each.seconds + pause for each, pause in zip(taken, cycle(PAUSES_S))) >= seconds:
                break
        made.append(_join(f"live-{number}", taken, spans))
    return made


def _speech(clip: Clip, endpoint_silence: float) -> list[tuple[float, float]]:
    """Speech spans of a clip; silences shorter than `endpoint_silence` are part of them."""
    spans: list[tuple[float, float]] = []
    for first, behind in speech_spans(detect_speech(clip.samples), len(clip.samples)):
        begin, end = first / SAMPLE_RATE, behind / SAMPLE_RATE
        if spans and begin - spans[-1][1] < endpoint_silence:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
    return spans


def _join(name: str, clips: Sequence[Clip], spans: dict[str, list[tuple[float, float]]]) -> LiveRecording:
    parts, speech, length = [], [], 0
    for clip, pause in zip(clips, cycle(PAUSES_S)):
        at = length / SAMPLE_RATE
        speech += [(at + begin, at + end) for begin, end in spans[clip.name]]
        parts += [clip.samples, np.zeros(int(pause * SAMPLE_RATE), dtype=np.float32)]
        length += sum(map(len, parts[-2:]))
    samples = np.concatenate(parts)
    text = " ".join(clip.text for clip in clips)
    whole = Recording.of(Clip(name, clips[0].language, text, length / SAMPLE_RATE, True, lambda: samples))
    return LiveRecording(whole, tuple(speech))


async def spoken(pcm: bytes, began: float) -> AsyncIterator[bytes]:
    """Chunks, paced like those of a microphone.

    Args:
        began: on the clock of `time.monotonic`.
    """
    size = int(CHUNK_S * SAMPLE_RATE) * 2
    for start in range(0, len(pcm), size):
        chunk = pcm[start : start + size]
        due = began + (start + len(chunk)) / 2 / SAMPLE_RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield chunk


@dataclass
class _Listener:
    """Records the times of events."""

    began: float
    utterances: list[_Utterance] = field(default_factory=list)
    ends: int = 0
    texts: list[str] = field(default_factory=list)
    fallbacks: int = 0

    def hear(self, event: SpeechEvent | Interim | Final) -> None:
        now = time.monotonic() - self.began
        if isinstance(event, SpeechEvent):
            if event.type == "started":
                self.utterances.append(_Utterance(event.offset))
            else:
                self.utterances[self.ends].ended = event.offset
                self.ends += 1
        elif isinstance(event, Interim):
            utterance = self.utterances[event.utterance]
            if utterance.first_interim is None and event.stable_text + event.unstable_text:
                utterance.first_interim = now
        else:
            self.utterances[event.utterance].final = now
            self.texts.append(event.result.text)
            self.fallbacks += event.result.routing.fallback_used


async def stream(way: Way, target: LiveTarget, recording: LiveRecording, delay: float) -> Trace:
    """Stream one recording in real time.

    Args:
        delay: seconds to wait first, so that streams are not synchronous.
    """
    listener = _Listener(time.monotonic() + delay)
    await asyncio.sleep(delay)
    async for event in way(target, spoken(recording.whole.pcm, listener.began)):
        listener.hear(event)
    return Trace(
        utterances=tuple(latencies(each, recording.speech) for each in listener.utterances),
        text=" ".join(listener.texts),
        lag=time.monotonic() - listener.began - recording.whole.seconds,
        fallbacks=listener.fallbacks,
    )


def latencies(utterance: _Utterance, speech: Sequence[tuple[float, float]]) -> Latencies:
    """Latency of the first interim and of the final, relative to true speech and not to the detected one."""
    begin = _nearest(utterance.started, [begin for begin, _ in speech])
    end = None if utterance.ended is None else _nearest(utterance.ended, [end for _, end in speech])
    return Latencies(
        first_interim=None if utterance.first_interim is None or begin is None else utterance.first_interim - begin,
        final=None if utterance.final is None or end is None else utterance.final - end,
    )


def _nearest(offset: float, known: Sequence[float]) -> float | None:
    best = min(known, key=lambda each: abs(each - offset), default=None)
    return best if best is not None and abs(best - offset) <= NEAR_S else None
