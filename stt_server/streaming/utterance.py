"""One utterance of a live stream until it ends: drafts, speculative recognition, interims."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from stt_server.engine.types import Hypothesis, join_text
from stt_server.errors import EngineError
from stt_server.streaming.agreement import Agreement, split_words
from stt_server.streaming.events import Interim, SpeechEnded
from stt_server.streaming.outbox import Outbox
from stt_server.streaming.recognition import Draft, StreamRecognizer, UtteranceRecognition
from stt_server.streaming.segmenter import TAIL_SECONDS, UtteranceSegmenter
from stt_server.streaming.tasks import Tasks

log = logging.getLogger(__name__)

FIRST_DRAFT_SECONDS = 0.4
"""Seconds of speech before the first draft: less is seldom a word."""

DRAFT_SECONDS = 0.5
"""Seconds of new speech between two drafts."""

LONG_SECONDS = 10.0
"""Seconds of speech above which drafts no longer start at the utterance's beginning, but after a stable sentence."""


@dataclass(frozen=True)
class _Speculation:
    """A recognition begun in a silence that may turn out to be a pause."""

    recognition: UtteranceRecognition
    speech_end: float
    """Seconds of the stream. If speech goes on after it, the recognition is out of date."""
    interim: asyncio.Task[None]

    def cancel(self) -> None:
        self.interim.cancel()
        self.recognition.cancel()


class Utterance:
    """The utterance in progress."""

    def __init__(
        self,
        number: int,
        started: float,
        recognizer: StreamRecognizer,
        outbox: Outbox,
        tasks: Tasks,
        interim_results: bool,
    ) -> None:
        """
        Args:
            number: counts from 0.
            started: where speech began, in seconds of the stream.
            outbox: receives the interims.
            tasks: run the drafts; their failure ends the stream.
        """
        self._number = number
        self._started = started
        self._recognizer = recognizer
        self._outbox = outbox
        self._tasks = tasks
        self._interim_results = interim_results
        self._agreement = Agreement()
        self._over = False
        self._draft: Draft | None = None
        self._drafting: asyncio.Task[None] | None = None
        self._drafted = started
        """End of the speech that has been drafted."""
        self._next_draft = 0.0
        """Earliest monotonic time of the next draft."""
        self._covered = 0.0
        """End of the speech that the latest interim covers."""
        self._first_interim = True
        self._anchor, self._anchor_text = 0.0, ""
        """Where drafts start, in seconds of the stream, and the stable text before it."""
        self._speculation: _Speculation | None = None

    def advance(self, segmenter: UtteranceSegmenter) -> None:
        """Start a draft or a speculative recognition if one is due. Call when all received audio is processed."""
        if segmenter.silence >= TAIL_SECONDS:
            self._speculate(segmenter)
        elif self._interim_results:
            self._advance_draft(segmenter)

    def end(self, ended: SpeechEnded) -> UtteranceRecognition | None:
        """End the utterance; no more interims follow. Return its speculative recognition if that was right."""
        self._over = True
        self._drop_draft()
        speculation = self._speculation
        if speculation is None:
            return None
        speculation.interim.cancel()
        if speculation.speech_end == ended.offset:
            return speculation.recognition
        speculation.recognition.cancel()
        return None

    def cancel(self) -> None:
        """Drop all work."""
        self._over = True
        self._drop_draft()
        if self._speculation is not None:
            self._speculation.cancel()

    def _speculate(self, segmenter: UtteranceSegmenter) -> None:
        current, speech_end = self._speculation, segmenter.last_speech
        if current is not None and (current.speech_end == speech_end or not current.interim.done()):
            return
        chunk = segmenter.chunk_so_far()
        if chunk is not None:
            self._drop_draft()
            recognition = self._recognizer.recognize(chunk, speculative=True)
            interim = self._tasks.spawn(self._send_speculative(recognition, speech_end))
            self._speculation = _Speculation(recognition, speech_end, interim)

    async def _send_speculative(self, recognition: UtteranceRecognition, until: float) -> None:
        hypothesis = await recognition.hypothesis()
        if hypothesis is not None:
            self._send(hypothesis, until, hypothesis.text)

    def _advance_draft(self, segmenter: UtteranceSegmenter) -> None:
        new_speech = segmenter.last_speech - self._drafted
        if new_speech < (DRAFT_SECONDS if self._drafted > self._started else FIRST_DRAFT_SECONDS):
            return
        if self._draft is None and time.monotonic() < self._next_draft:
            return
        chunk = segmenter.chunk_so_far(self._anchor)
        if chunk is None:
            return
        if self._draft is None:
            self._draft = self._recognizer.draft(chunk)
            self._drafting = self._tasks.spawn(self._finish_draft(self._draft))
            self._drafted = segmenter.last_speech
        elif self._draft.renew(chunk):
            self._outbox.skip_interim()
            self._drafted = segmenter.last_speech

    async def _finish_draft(self, draft: Draft) -> None:
        began = time.monotonic()
        try:
            hypothesis = await draft.result()
        except EngineError as error:
            log.debug("draft failed", exc_info=error)
            return
        finally:
            self._draft = None
            # A slow draft was long or queued: draft less often, so that the lag doesn't grow.
            self._next_draft = time.monotonic() + (time.monotonic() - began)
        until = self._drafted
        used = self._send(hypothesis, until, join_text([self._anchor_text, hypothesis.text]))
        if used and until - max(self._started, self._anchor) > LONG_SECONDS:
            self._move_anchor(hypothesis)

    def _send(self, hypothesis: Hypothesis, until: float, text: str) -> bool:
        """Send an interim if it changes the text. False if the hypothesis is unusable or out of date.

        Args:
            until: end of the speech that it covers, in seconds of the stream.
            text: of the whole utterance.
        """
        outdated = self._over or until < self._covered
        if outdated or not self._interim_results or hypothesis.looped or not hypothesis.text:
            return False
        self._covered = until
        if self._agreement.add(text):
            interim = Interim(self._number, self._agreement.stable, self._agreement.unstable, hypothesis.language)
            self._outbox.put_interim(interim, until, self._started if self._first_interim else None)
            self._first_interim = False
        return True

    def _move_anchor(self, hypothesis: Hypothesis) -> None:
        """Move the start of drafts after the last segment of which all words are stable."""
        text = self._anchor_text
        for segment in hypothesis.segments[:-1]:
            text = join_text([text, segment.text])
            if len(split_words(text)) > self._agreement.stable_words:
                return
            self._anchor, self._anchor_text = segment.end, text

    def _drop_draft(self) -> None:
        if self._draft is not None and self._drafting is not None:
            self._outbox.skip_interim()
            self._draft.cancel()
            self._drafting.cancel()
            self._draft = None
