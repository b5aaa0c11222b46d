"""What one stream has said so far: bytes in, beginnings and ends of utterances out, with their audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stt_server.audio import SAMPLE_RATE, AudioFormat, Chunk
from stt_server.audio.chunks import loudness_of
from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import WINDOW, VoiceActivity
from stt_server.streaming.endpointing import TAIL, Ended, Endpointer, Mark, Piece, Started
from stt_server.streaming.resampling import Intake

WINDOW_SECONDS = WINDOW / SAMPLE_RATE
TAIL_SECONDS = TAIL * WINDOW_SECONDS
"""Of silence behind an utterance; what comes later of it changes the utterance no more."""
_SAMPLE_BYTES = 4

Judge = Callable[[FloatArray], FloatArray]
"""A whole number of windows -> the probability of speech in each; remembers what it heard before."""


@dataclass(frozen=True)
class SpeechStarted:
    offset: float
    """Seconds from the start of the stream."""


@dataclass(frozen=True)
class SpeechEnded:
    chunk: Chunk
    offset: float
    """Where speech ended, seconds from the start of the stream."""
    noticed: float
    """How much of the stream had been heard when it was noticed."""


@dataclass(frozen=True)
class PerhapsSpeech:
    """May have been speech; the chunk is not certain."""

    chunk: Chunk
    started: float
    ended: float
    noticed: float


Sign = SpeechStarted | SpeechEnded | PerhapsSpeech


class Ear:
    """Hears one stream. Not thread-safe, but may be used from one thread after the other."""

    def __init__(self, format: AudioFormat, endpoint_silence: float, judge: Judge | None = None) -> None:
        """
        Args:
            format: headerless and valid.
            endpoint_silence: seconds.
            judge: what hears speech; tests script it.
        """
        self._intake = Intake(format)
        self._judge = judge or VoiceActivity().judge
        self._endpointer = Endpointer(endpoint_silence)
        self._kept = bytearray()
        """float32 samples from window `_kept_from` on, the last ones not judged yet."""
        self._kept_from = 0
        self._judged = 0
        """Windows."""

    @property
    def heard(self) -> float:
        """Seconds of the stream that have been judged."""
        return self._judged * WINDOW_SECONDS

    @property
    def in_utterance(self) -> bool:
        return self._endpointer.in_utterance

    @property
    def in_doubt(self) -> bool:
        """A sound goes on that may become an utterance."""
        return self._endpointer.in_doubt

    @property
    def silence(self) -> float:
        """Seconds since the last speech of the current utterance."""
        return self._endpointer.silence * WINDOW_SECONDS

    @property
    def last_speech(self) -> float:
        """Where the last speech of the current utterance ended, in seconds of the stream."""
        return self._endpointer.last_speech * WINDOW_SECONDS

    @property
    def utterance_bytes(self) -> int:
        """Of the current utterance as it came, roughly."""
        seconds = (self._judged - self._endpointer.kept_from) * WINDOW_SECONDS if self.in_utterance else 0.0
        return int(seconds * self._intake.bytes_per_second)

    @property
    def bytes_per_second(self) -> int:
        return self._intake.bytes_per_second

    def hear(self, data: bytes) -> list[Sign]:
        """Takes the stream's next bytes; blocks for about 3 ms for each second of audio."""
        return self._take(self._intake.add(data))

    def flush(self) -> list[Sign]:
        """Ends the current utterance now."""
        return self._signs(self._endpointer.flush())

    def finish(self) -> list[Sign]:
        """Hears the very last samples, and ends the current utterance."""
        signs = self._take(self._intake.finish())
        rest = len(self._kept) // _SAMPLE_BYTES - (self._judged - self._kept_from) * WINDOW
        if rest:
            signs += self._take(np.zeros(WINDOW - rest, dtype=np.float32))
        return signs + self.flush()

    def so_far(self, begin: float = 0.0) -> Chunk | None:
        """The current utterance as if it ended here, or what of it lies behind `begin`, in seconds of the stream."""
        piece = self._endpointer.so_far()
        return None if piece is None else self._chunk(piece, round(begin / WINDOW_SECONDS))

    def _take(self, samples: FloatArray) -> list[Sign]:
        self._kept += samples.tobytes()
        first = (self._judged - self._kept_from) * WINDOW
        count = (len(self._kept) // _SAMPLE_BYTES - first) // WINDOW
        fresh = np.frombuffer(self._kept, dtype=np.float32)[first : first + count * WINDOW].copy()
        signs: list[Sign] = []
        for probability, loudness in zip(self._judge(fresh), loudness_of(fresh)):
            self._judged += 1
            signs += self._signs(self._endpointer.push(float(probability), float(loudness)))
        self._forget()
        return signs

    def _signs(self, marks: list[Mark]) -> list[Sign]:
        return [self._sign(mark) for mark in marks]

    def _sign(self, mark: Mark) -> Sign:
        if isinstance(mark, Started):
            return SpeechStarted(mark.at * WINDOW_SECONDS)
        chunk, ended = self._chunk(mark.piece), mark.piece.speech_end * WINDOW_SECONDS
        if isinstance(mark, Ended):
            return SpeechEnded(chunk, ended, self.heard)
        return PerhapsSpeech(chunk, mark.piece.speech[0][0] * WINDOW_SECONDS, ended, self.heard)

    def _chunk(self, piece: Piece, begin: int = 0) -> Chunk:
        start = max(piece.start, begin)
        first, end = start - self._kept_from, piece.end - self._kept_from
        samples = np.frombuffer(self._kept, dtype=np.float32)[first * WINDOW : end * WINDOW].copy()
        speech = tuple(
            ((max(a, start) - start) * WINDOW_SECONDS, (b - start) * WINDOW_SECONDS)
            for a, b in piece.speech
            if b > start
        )
        return Chunk(samples, start * WINDOW_SECONDS, speech, piece.certain)

    def _forget(self) -> None:
        """Drops the audio that no utterance needs any more."""
        surplus = self._endpointer.kept_from - self._kept_from
        if surplus > 0:
            del self._kept[: surplus * WINDOW * _SAMPLE_BYTES]
            self._kept_from += surplus
