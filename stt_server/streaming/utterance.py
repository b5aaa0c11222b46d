"""One utterance while it lasts: when it is drafted, when its recognition begins, what its interims say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from stt_server.audio import Chunk
from stt_server.engine.types import DecodeOptions, Hypothesis, join_text
from stt_server.errors import EngineError
from stt_server.request import Recognition, Trace, Transcript
from stt_server.streaming.agreement import Agreement, split_words
from stt_server.streaming.events import Interim
from stt_server.streaming.segmenter import TAIL_SECONDS, Ear, SpeechEnded

log = logging.getLogger(__name__)

FIRST_DRAFT_SECONDS = 0.4
"""Of speech before the first draft: less is seldom a word."""
DRAFT_SECONDS = 0.5
"""Of new speech between two drafts."""
LONG_SECONDS = 10.0
"""A longer utterance is not drafted from its beginning, but from the last sentence that is stable."""


class Draft(Protocol):
    """A recognition whose result is soon out of date."""

    def renew(self, chunk: Chunk, options: DecodeOptions) -> bool:
        """Takes newer audio if the recognition has not begun; whether it has not."""
        ...

    def cancel(self) -> None: ...

    async def result(self) -> Hypothesis:
        """Raises EngineError."""
        ...


class Hearing(Protocol):
    """The recognition of a whole utterance."""

    @property
    def trace(self) -> Trace: ...

    def cancel(self) -> None: ...

    async def recognition(self) -> Recognition | None:
        """The own model's recognition; None if only the fallback is to answer."""
        ...

    async def transcript(self) -> Transcript:
        """The answer. Raises SttError."""
        ...


class Recognizer(Protocol):
    """The engine behind one stream, with its options."""

    def draft(self, chunk: Chunk, options: DecodeOptions) -> Draft: ...

    def hear(self, chunk: Chunk, *, ahead: bool) -> Hearing: ...


class Utterance:
    """What is being said."""

    def __init__(
        self,
        number: int,
        started: float,
        recognition: Recognizer,
        options: DecodeOptions,
        show: Callable[[Interim, float], None] | None,
        thinned: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            number: from 0.
            started: where speech began, in seconds of the stream.
            options: of drafts.
            show: is given each interim, and up to where it has heard, in seconds of the stream; None: no interims.
            thinned: is told of each interim that is left out.
            spawn: runs a part of the session; a bug in it ends the stream.
        """
        self.number = number
        self.started = started
        self.shown = 0
        """Interims."""
        self._recognition = recognition
        self._options = options
        self._show = show
        self._thinned = thinned
        self._spawn = spawn
        self._clock = clock
        self._agreement = Agreement()
        self._over = False
        self._drafts: asyncio.Task[None] | None = None
        self._draft: Draft | None = None
        self._drafted = started
        """Speech up to here is in a draft."""
        self._shown_until = 0.0
        self._not_before = 0.0
        """The next draft, on the clock."""
        self._anchor, self._anchored = 0.0, ""
        """Drafts begin here, in seconds of the stream; the stable text before."""
        self._ahead: Hearing | None = None
        self._ahead_speech = 0.0
        self._aheads: asyncio.Task[None] | None = None

    def consider(self, ear: Ear) -> None:
        """Begins what is worth beginning now that the ear has heard all that came."""
        if ear.silence >= TAIL_SECONDS:
            self._hear_ahead(ear)
        elif self._show is not None:
            self._consider_draft(ear)

    def end(self, ended: SpeechEnded) -> Hearing:
        """The utterance is over: its recognition, which may have begun already. Nothing is shown from now on."""
        self._over = True
        self._drop_draft()
        if self._aheads is not None:
            self._aheads.cancel()
        if self._ahead is not None:
            if self._ahead_speech == ended.offset:
                return self._ahead
            self._ahead.cancel()
        return self._recognition.hear(ended.chunk, ahead=False)

    def cancel(self) -> None:
        """Drops everything."""
        self._over = True
        self._drop_draft()
        for work in (self._aheads, self._ahead):
            if work is not None:
                work.cancel()

    def _hear_ahead(self, ear: Ear) -> None:
        if self._ahead is not None and self._ahead_speech == ear.last_speech:
            return
        if self._aheads is not None and not self._aheads.done():
            return
        chunk = ear.so_far()
        if chunk is not None:
            self._drop_draft()
            self._ahead, self._ahead_speech = self._recognition.hear(chunk, ahead=True), ear.last_speech
            self._aheads = self._spawn(self._show_ahead(self._ahead, ear.last_speech))

    async def _show_ahead(self, hearing: Hearing, until: float) -> None:
        found = await hearing.recognition()
        if found is not None and found.hypotheses:
            self._say(found.hypotheses[0], until, whole=True)

    def _consider_draft(self, ear: Ear) -> None:
        fresh = ear.last_speech - self._drafted
        if fresh < (DRAFT_SECONDS if self._drafted > self.started else FIRST_DRAFT_SECONDS):
            return
        if self._draft is None and self._clock() < self._not_before:
            return
        chunk = ear.so_far(self._anchor)
        if chunk is None:
            return
        if self._draft is None:
            self._draft = self._recognition.draft(chunk, self._options)
            self._drafts = self._spawn(self._finish_draft(self._draft))
            self._drafted = ear.last_speech
        elif self._draft.renew(chunk, self._options):
            self._thinned()
            self._drafted = ear.last_speech

    async def _finish_draft(self, draft: Draft) -> None:
        began = self._clock()
        try:
            hypothesis = await draft.result()
        except EngineError as error:
            log.debug("a draft failed", exc_info=error)
            return
        finally:
            self._draft = None
            # A draft that took long was a large one, or had to wait: the stream makes do with fewer.
            self._not_before = self._clock() + (self._clock() - began)
        self._say(hypothesis, self._drafted, whole=False)

    def _say(self, hypothesis: Hypothesis, until: float, *, whole: bool) -> None:
        if self._over or self._show is None or until < self._shown_until or hypothesis.looped or not hypothesis.text:
            return
        self._shown_until = until
        text = hypothesis.text if whole else join_text([self._anchored, hypothesis.text])
        if self._agreement.add(text):
            self.shown += 1
            self._show(
                Interim(self.number, self._agreement.stable, self._agreement.unstable, hypothesis.language), until
            )
        if not whole and until - max(self.started, self._anchor) > LONG_SECONDS:
            self._move_anchor(hypothesis)

    def _move_anchor(self, hypothesis: Hypothesis) -> None:
        """Behind the last segment all of whose words are stable."""
        text = self._anchored
        for segment in hypothesis.segments[:-1]:
            text = join_text([text, segment.text])
            if len(split_words(text)) > self._agreement.stable_words:
                return
            self._anchor, self._anchored = segment.end, text

    def _drop_draft(self) -> None:
        if self._draft is not None and self._drafts is not None:
            self._thinned()
            self._draft.cancel()
            self._drafts.cancel()
            self._draft = None
