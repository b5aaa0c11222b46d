"""Resuming: several connections appear to the caller as one stream, without gaps or repetitions."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from stt_client.results import Segment, Transcript, Word
from stt_client.streaming.audio_source import AudioSource
from stt_client.streaming.results import Final, Interim, SpeechEvent, StreamEvent


@dataclass(frozen=True)
class Backoff:
    """Schedule of reconnection attempts."""

    first_s: float = 0.25
    """First pause; each further one is twice as long."""
    most_s: float = 4.0
    """Longest pause."""
    rounds: int = 10
    """Pauses without progress before giving up: about half a minute in all."""
    lasting_s: float = 60.0
    """A connection that lasted this long counts as progress, even without a final."""


RESUME = Backoff()

TAIL_S = 0.3
"""Seconds after the end of speech that are not sent again: the remainder of a sound might start an utterance."""
PRE_ROLL_S = 0.4
"""Seconds before the start of speech that a service needs to detect it."""


class Attempts:
    """Attempts since the last progress."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failed: set[str] = set()
        self._rounds = 0
        self._since = time.monotonic()

    @property
    def failed(self) -> Collection[str]:
        """Targets that failed in the current round."""
        return self._failed

    def begin(self) -> None:
        """Start an attempt."""
        self._since = time.monotonic()

    def progress(self) -> None:
        """Forget earlier attempts."""
        self._failed.clear()
        self._rounds = 0

    def next_pause(self, target: str, members: int) -> float | None:
        """Note a failed attempt at `target`. Returns the seconds to wait before the next one; None: give up.

        There is no pause until each of the `members` services has been tried once.
        """
        if time.monotonic() - self._since >= self._backoff.lasting_s:
            self.progress()
        self._failed.add(target)
        if len(self._failed) < members:
            return 0.0
        if self._rounds >= self._backoff.rounds:
            return None
        self._failed.clear()
        self._rounds += 1
        pause = min(self._backoff.most_s, self._backoff.first_s * 2.0 ** (self._rounds - 1))
        # Jitter: clients that lost the same service must not all return at once.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    async def pause(self, seconds: float, left: float | None) -> None:
        """Wait for the pause, or `left` seconds until the deadline if that is less."""
        await asyncio.sleep(seconds if left is None else min(seconds, left))


class Continuity:
    """Shifts the events of each connection to their place in the stream, and drops repetitions.

    Each connection counts utterances and seconds from 0. Its n-th STARTED and n-th ENDED belong to its n-th utterance.
    After a lost connection, audio is sent again from shortly after the end of the last utterance that has a final, so
    that the remainder of its last sound doesn't start a new utterance.

    Args:
        audio: releases the audio that finals cover.
        endpoint_silence: seconds of silence that end an utterance.
    """

    def __init__(self, audio: AudioSource, endpoint_silence: float) -> None:
        self._audio = audio
        # Speech this soon after the end would have continued the utterance.
        self._tail = min(TAIL_S, endpoint_silence / 2)
        self._finals = self._started = self._ended = 0
        self._processed = 0.0
        self._begins: dict[int, float] = {}
        self._ends: dict[int, float] = {}
        self._stable: dict[int, str] = {}
        self._base = 0.0
        self._first = self._starts = self._stops = 0

    @property
    def finals(self) -> int:
        """Number of utterances with a final."""
        return self._finals

    def connect(self) -> None:
        """Start a connection at the oldest audio that no final covers."""
        self._base = self._audio.rewind()
        self._first = self._starts = self._stops = self._finals

    def take(self, event: StreamEvent) -> StreamEvent | None:
        """Translate an event for the caller; None for a repetition."""
        # Audio that is sent again must not make `audio_processed` decrease.
        self._processed = max(self._processed, _later(event.audio_processed, self._base))
        if isinstance(event, SpeechEvent):
            return self._speech(event)
        if isinstance(event, Interim):
            return self._interim(event)
        return self._final(event)

    def _speech(self, event: SpeechEvent) -> SpeechEvent | None:
        offset = _later(event.offset, self._base)
        if event.type == "started":
            number, self._starts = self._starts, self._starts + 1
            known, self._started = number < self._started, max(self._started, self._starts)
            self._begins[number] = offset
            self._audio.needed = True
        else:
            number, self._stops = self._stops, self._stops + 1
            known, self._ended = number < self._ended, max(self._ended, self._stops)
            self._ends[number] = offset
        return None if known else SpeechEvent(event.type, offset, self._processed)

    def _interim(self, event: Interim) -> Interim | None:
        """Drop interims of an interrupted utterance until they include its stable text again."""
        number = self._first + event.utterance
        before = self._stable.get(number, "")
        stable, unstable = event.stable_text, event.unstable_text
        if not stable.startswith(before):
            if not (stable + unstable).startswith(before):
                return None
            stable, unstable = before, (stable + unstable)[len(before) :]
        self._stable[number] = stable
        return Interim(number, stable, unstable, event.language, self._processed)

    def _final(self, event: Final) -> Final | None:
        number = self._first + event.utterance
        if number < self._finals:
            return None
        self._finals = number + 1
        self._begins.pop(number, None)
        self._stable.pop(number, None)
        end = self._ends.pop(number, None)
        if end is not None:
            self._audio.cover(self._covered(end, number), needed=self._starts > self._finals)
        return Final(number, _shifted(event.result, self._base), self._processed)

    def _covered(self, end: float, number: int) -> float:
        """Offset up to which audio need not be sent again, given the end of speech of an utterance.

        After an utterance that was split or flushed, the next one may follow without a pause.
        """
        begin = self._begins.get(number + 1, math.inf) - PRE_ROLL_S
        flush = self._audio.flush_after(end)
        return max(end, min(end + self._tail, begin, math.inf if flush is None else flush))


def _later(offset: float, seconds: float) -> float:
    """Sum, rounded to the microsecond like the offsets of services: 2.7 instead of 2.6999999999999997."""
    return round(offset + seconds, 6)


def _shifted(result: Transcript, seconds: float) -> Transcript:
    """Shift all times of a result by `seconds`."""

    def shift_word(word: Word) -> Word:
        return replace(word, start=_later(word.start, seconds), end=_later(word.end, seconds))

    def shift_segment(segment: Segment) -> Segment:
        start, end = _later(segment.start, seconds), _later(segment.end, seconds)
        return replace(segment, start=start, end=end, words=tuple(map(shift_word, segment.words)))

    return replace(result, segments=tuple(map(shift_segment, result.segments))) if seconds else result
