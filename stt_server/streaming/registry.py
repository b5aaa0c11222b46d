"""All live streams of a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stt_server.errors import Overloaded
from stt_server.streaming.events import Watch
from stt_server.streaming.session import Session


class Streams:
    """Lets streams in while there are fewer than a limit."""

    def __init__(self, limit: int, watch: Watch) -> None:
        self.limit = limit
        """May be changed while streams are open: none of them ends by that."""
        self._watch = watch
        self._sessions: set[Session] = set()

    @contextmanager
    def admit(self, session: Session) -> Iterator[None]:
        """Counts a stream for as long as the context lasts.

        Raises:
            Overloaded: there are as many as may be.
        """
        if len(self._sessions) >= self.limit:
            said = f"{self.limit} live streams are open, as many as may be; try again, or another service"
            raise Overloaded(said, "streams")
        self._sessions.add(session)
        self._watch.opened()
        try:
            yield
        finally:
            self._sessions.discard(session)
            self._watch.closed()

    def drain(self, within_s: float) -> None:
        """Ends each stream as soon as nobody speaks in it, after `within_s` seconds at the latest."""
        for session in list(self._sessions):
            session.drain(within_s)
