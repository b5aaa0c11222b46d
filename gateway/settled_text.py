"""A transcript's text in pieces, as its segments are settled."""

from __future__ import annotations

from stt_client.recordings.merging import join_text
from stt_client.results import Segment


class SettledText:
    """Makes pieces that put together are the text of the transcript."""

    def __init__(self) -> None:
        self._sent = ""

    def add(self, segment: Segment) -> str:
        """The piece that a segment adds, with the space before it, if any; empty if it has no text."""
        return self._advance(join_text((self._sent, segment.text)))

    def finish(self, text: str) -> tuple[str, str]:
        """The last piece, and the whole text: all pieces put together.

        A model may write spaces where scripts have none between segments, or none between words that it divides over
        two. Such a text differs from the pieces in its white space, and is given as they have it.

        Args:
            text: of the transcript.
        """
        if text.startswith(self._sent):
            return self._advance(text), text
        rest = _after(self._sent, text)
        return self._advance(self._sent + rest), self._sent

    def _advance(self, text: str) -> str:
        piece, self._sent = text[len(self._sent) :], text
        return piece


def _after(sent: str, text: str) -> str:
    """What follows in `text` once as many characters other than white space have passed as `sent` has."""
    left = sum(not character.isspace() for character in sent)
    for at, character in enumerate(text):
        if left == 0:
            return text[at:]
        left -= not character.isspace()
    return ""
