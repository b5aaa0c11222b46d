"""What was said before an utterance, as far as it helps to understand it."""

from __future__ import annotations

from stt_server.engine.text_checks import is_looped
from stt_server.engine.types import join_text
from stt_server.request import Transcript

MAX_CHARACTERS = 600
"""More than the engine takes."""

MAX_PAUSE = 10.0
"""Seconds after which what is said has likely nothing to do with what was said before."""


class Context:
    """The latest finals of one stream."""

    def __init__(self) -> None:
        self._text = ""
        self.language = ""
        """Of the text."""
        self._ended = 0.0

    def add(self, transcript: Transcript, ended: float) -> None:
        """Takes the next final.

        A doubtful one clears all: a wrong text breeds the next one.

        Args:
            ended: seconds from the start of the stream.
        """
        answer = transcript.answer
        doubtful = transcript.decision.confidence_below and not transcript.fallback_used
        if not answer.text or doubtful or is_looped(answer.text) or answer.language != self.language:
            self._text = ""
        if answer.text and not doubtful and not is_looped(answer.text):
            self._text = join_text([self._text, answer.text])[-MAX_CHARACTERS:]
        self.language = answer.language
        self._ended = ended

    def before(self, start: float) -> str:
        """What was said before an utterance that begins at `start` seconds; empty if that is long ago."""
        return self._text if start - self._ended <= MAX_PAUSE else ""
