"""Several connections as one stream: what the caller sees is continuous, and nothing comes twice."""

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
    """How long to go on trying to reconnect, and how fast."""

    first_s: float = 0.25
    """The first pause; each next one is twice as long."""
    most_s: float = 4.0
    rounds: int = 10
    """Pauses without progress until it is given up: about half a minute."""
    lasting_s: float = 60.0
    """A connection that held for so long was progress, even if nobody spoke."""


RESUME = Backoff()

TAIL_S = 0.3
PRE_ROLL_S = 0.4
"""Seconds before the start of speech that a service wants to hear too."""


class Attempts:
    """Who was tried since the last progress, and what to wait."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failed: set[str] = set()
        self._rounds = 0
        self._since = time.monotonic()

    @property
    def failed(self) -> Collection[str]:
        """Targets that failed in this round."""
        return self._failed

    def begin(self) -> None:
        """An attempt begins."""
        self._since = time.monotonic()

    def progress(self) -> None:
        """What was tried before counts no more."""
        self._failed.clear()
        self._rounds = 0

    def next_pause(self, target: str, members: int) -> float | None:
        """An attempt at `target` failed: seconds to wait before the next one; None: give up.

        Each of the `members` is tried once, without a pause, before there is one.
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
        # Clients that lost the same service must not all come back in the same moment.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    async def pause(self, seconds: float, left: float | None) -> None:
        """Waits, though not past what is `left` of the caller's time."""
        await asyncio.sleep(seconds if left is None else min(seconds, left))


class Continuity:
    """Shifts what each connection says to its place in the one stream, and leaves out what the caller has had.

    A connection numbers its utterances from 0 and counts its seconds from 0. The n-th STARTED and the n-th ENDED
    belong to its n-th utterance. After a break, the audio is sent again that follows the last utterance whose final
    came, from a little behind the end of its speech: what is left of a last sound is not to be heard as a new one.

    Args:
        audio: told what finals cover.
        endpoint_silence: seconds of silence that end an utterance.
    """

    def __init__(self, audio: AudioSource, endpoint_silence: float) -> None:
        self._audio = audio
        # Nobody speaks so soon after the end of an utterance, or it would not have been the end.
        self._tail = min(TAIL_S, endpoint_silence / 2)
        self._finals = self._started = self._ended = 0
        self._heard = 0.0
        self._begins: dict[int, float] = {}
        self._ends: dict[int, float] = {}
        self._stable: dict[int, str] = {}
        self._base = 0.0
        self._first = self._starts = self._stops = 0

    @property
    def finals(self) -> int:
        """Utterances finished."""
        return self._finals

    def connect(self) -> None:
        """A connection begins, with the oldest audio that no final covers."""
        self._base = self._audio.rewind()
        self._first = self._starts = self._stops = self._finals

    def take(self, event: StreamEvent) -> StreamEvent | None:
        """The event as the caller is to see it; None: not at all."""
        # What one service had heard, another has to hear again: the caller sees no time run backwards.
        self._heard = max(self._heard, _later(event.audio_processed, self._base))
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
        return None if known else SpeechEvent(event.type, offset, self._heard)

    def _interim(self, event: Interim) -> Interim | None:
        """Interims of an utterance that was interrupted wait until they say again what was stable."""
        number = self._first + event.utterance
        before = self._stable.get(number, "")
        stable, unstable = event.stable_text, event.unstable_text
        if not stable.startswith(before):
            if not (stable + unstable).startswith(before):
                return None
            stable, unstable = before, (stable + unstable)[len(before) :]
        self._stable[number] = stable
        return Interim(number, stable, unstable, event.language, self._heard)

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
        return Final(number, _shifted(event.result, self._base), self._heard)

    def _covered(self, end: float, number: int) -> float:
        """Up to where the audio has been heard for good, given where the speech of an utterance ended.

        One that was cut, or flushed, may be followed by the next one without a pause.
        """
        begin = self._begins.get(number + 1, math.inf) - PRE_ROLL_S
        flush = self._audio.flush_after(end)
        return max(end, min(end + self._tail, begin, math.inf if flush is None else flush))


def _later(offset: float, seconds: float) -> float:
    """To the microsecond, as services say it: 2.7, where a sum of floats may be 2.6999999999999997."""
    return round(offset + seconds, 6)


def _shifted(result: Transcript, seconds: float) -> Transcript:
    """A result with its times so many seconds later."""

    def word(given: Word) -> Word:
        return replace(given, start=_later(given.start, seconds), end=_later(given.end, seconds))

    def segment(given: Segment) -> Segment:
        start, end = _later(given.start, seconds), _later(given.end, seconds)
        return replace(given, start=start, end=end, words=tuple(map(word, given.words)))

    return replace(result, segments=tuple(map(segment, result.segments))) if seconds else result
