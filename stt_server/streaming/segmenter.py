"""Splits one stream into utterances: bytes in, speech events out, and the audio of each utterance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stt_server.audio import AudioFormat, Chunk
from stt_server.audio.chunks import loudness_of
from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import WINDOW, VoiceActivity
from stt_server.streaming.endpointing import TAIL, Endpointer
from stt_server.streaming.events import WINDOW_SECONDS, SpeechEvent, UtteranceBounds
from stt_server.streaming.resampling import StreamResampler

TAIL_SECONDS = TAIL * WINDOW_SECONDS
"""Silence that belongs to an utterance; later silence does not change it."""

_SAMPLE_BYTES = 4

Detector = Callable[[FloatArray], FloatArray]
"""Samples of whole windows -> probability of speech in each window, 0 to 1. Stateful."""


class UtteranceSegmenter:
    """Segments one stream. Not thread-safe, but not bound to one thread either."""

    def __init__(self, format: AudioFormat, endpoint_silence: float, detect: Detector | None = None) -> None:
        """
        Args:
            format: headerless and validated.
            endpoint_silence: seconds of silence that end an utterance.
            detect: voice activity detection; Silero by default.
        """
        self._resampler = StreamResampler(format)
        self._detect = detect or VoiceActivity().judge
        self._endpointer = Endpointer(endpoint_silence)
        self._kept = bytearray()
        """float32 samples from window `_kept_from` on."""
        self._kept_from = 0
        self._processed = 0
        """Windows."""

    @property
    def audio_processed(self) -> float:
        """Seconds of the stream processed so far."""
        return self._processed * WINDOW_SECONDS

    @property
    def in_utterance(self) -> bool:
        return self._endpointer.in_utterance

    @property
    def silence(self) -> float:
        """Seconds since the last speech of the current utterance."""
        return self._endpointer.silence * WINDOW_SECONDS

    @property
    def last_speech(self) -> float:
        """End of the current utterance's last speech, in seconds of the stream."""
        return self._endpointer.last_speech * WINDOW_SECONDS

    @property
    def utterance_bytes(self) -> int:
        """Approximate size of the current utterance in the stream's own format."""
        seconds = (self._processed - self._endpointer.kept_from) * WINDOW_SECONDS if self.in_utterance else 0.0
        return int(seconds * self.bytes_per_second)

    @property
    def bytes_per_second(self) -> int:
        return self._resampler.bytes_per_second

    def add(self, data: bytes) -> list[SpeechEvent]:
        """Process the stream's next bytes. Blocks while voice activity is detected in them.

        Drops the audio of earlier events: get their chunks first.
        """
        return self._process(self._resampler.add(data))

    def flush(self) -> list[SpeechEvent]:
        """End the current utterance at once."""
        return self._endpointer.flush()

    def finish(self) -> list[SpeechEvent]:
        """Process the last samples, padded with silence to a whole window, and end the current utterance."""
        last = self._resampler.finish()
        samples = self._unprocessed + len(last)
        padding = np.zeros(-samples % WINDOW, dtype=np.float32)
        return self._process(np.concatenate([last, padding])) + self.flush()

    def chunk(self, bounds: UtteranceBounds) -> Chunk:
        """The audio of an utterance. Available until more audio is added."""
        return self._cut(bounds, bounds.start)

    def chunk_so_far(self, start: float = 0.0) -> Chunk | None:
        """The current utterance as if it ended here; None outside of one.

        Args:
            start: cut off everything before it, in seconds of the stream.
        """
        bounds = self._endpointer.so_far()
        return None if bounds is None else self._cut(bounds, max(bounds.start, round(start / WINDOW_SECONDS)))

    @property
    def _unprocessed(self) -> int:
        """Samples that do not fill a window yet."""
        return len(self._kept) // _SAMPLE_BYTES - (self._processed - self._kept_from) * WINDOW

    def _process(self, samples: FloatArray) -> list[SpeechEvent]:
        self._forget()
        self._kept += samples.tobytes()
        first = (self._processed - self._kept_from) * WINDOW
        count = self._unprocessed // WINDOW
        fresh = np.frombuffer(self._kept, dtype=np.float32)[first : first + count * WINDOW].copy()
        events: list[SpeechEvent] = []
        for probability, loudness in zip(self._detect(fresh), loudness_of(fresh)):
            self._processed += 1
            events += self._endpointer.push(float(probability), float(loudness))
        return events

    def _cut(self, bounds: UtteranceBounds, start: int) -> Chunk:
        first, end = start - self._kept_from, bounds.end - self._kept_from
        samples = np.frombuffer(self._kept, dtype=np.float32)[first * WINDOW : end * WINDOW].copy()
        speech = tuple(
            ((max(a, start) - start) * WINDOW_SECONDS, (b - start) * WINDOW_SECONDS)
            for a, b in bounds.speech
            if b > start
        )
        return Chunk(samples, start * WINDOW_SECONDS, speech, bounds.certain)

    def _forget(self) -> None:
        """Drop the audio before the current utterance."""
        surplus = self._endpointer.kept_from - self._kept_from
        if surplus > 0:
            del self._kept[: surplus * WINDOW * _SAMPLE_BYTES]
            self._kept_from += surplus
