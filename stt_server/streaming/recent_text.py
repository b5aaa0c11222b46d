"""Text of a stream's recent utterances, as context for the next one."""

from __future__ import annotations

from stt_server.engine.text_checks import is_looped
from stt_server.engine.types import join_text
from stt_server.request import Transcript

MAX_CHARACTERS = 600
"""Characters kept: more than the engine uses."""

MAX_PAUSE = 10.0
"""Seconds of silence after which earlier text is not used: it is probably unrelated."""


class RecentText:
    """The latest finals of one stream."""

    def __init__(self) -> None:
        self._text = ""
        self.language = ""
        """Language of the latest final; empty before the first."""
        self._ended = 0.0

    def add(self, transcript: Transcript, ended: float) -> None:
        """Add a final. One of low confidence, or with a repetition loop, clears the text, so that errors don't spread.

        Args:
            ended: where its speech ended, in seconds of the stream.
        """
        answer = transcript.answer
        unsure = transcript.decision.confidence_below and not transcript.fallback_used
        usable = bool(answer.text) and not unsure and not is_looped(answer.text)
        if not usable or answer.language != self.language:
            self._text = ""
        if usable:
            self._text = join_text([self._text, answer.text])[-MAX_CHARACTERS:]
        self.language = answer.language
        self._ended = ended

    def before(self, start: float) -> str:
        """Context of an utterance that starts at `start` seconds of the stream; empty after a long pause."""
        return self._text if start - self._ended <= MAX_PAUSE else ""
