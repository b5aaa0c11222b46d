"""How far a request is, for a caller that watches it while it is processed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stt_server.engine.types import Segment


class Progress:
    """What is known and settled of one request. Event loop only."""

    def __init__(self) -> None:
        self.watched = False
        """Whether a caller follows it; without one, only the end matters."""
        self.audio_duration: float | None = None
        """Seconds of the recording, of one channel; None until it is decoded."""
        self.audio_settled = 0.0
        """Seconds from the recording's start that are settled. Never falls."""
        self.segments: list[tuple[Segment, str]] = []
        """Settled segments in the order of the transcript, each with the name of its model."""
        self._changed = asyncio.Event()

    def decoded(self, seconds: float) -> None:
        """Record the recording's duration."""
        self.audio_duration = seconds
        self._changed.set()

    def settle(self, segments: Sequence[tuple[Segment, str]], until: float) -> None:
        """Append settled segments, up to `until` seconds from the recording's start."""
        self.segments += segments
        if segments or until > self.audio_settled:
            self.audio_settled = max(self.audio_settled, until)
            self._changed.set()

    async def changed(self) -> None:
        """Wait until something has changed since the last call. For one watcher."""
        await self._changed.wait()
        self._changed.clear()
