"""Order of the segments of a recording whose chunks are settled in any order, in one or several channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from stt_server.audio import Chunk
from stt_server.engine.types import Segment
from stt_server.request import Answer

ModelSegment = tuple[Segment, str]
"""A segment, and the name of the model whose text it is."""


class SegmentOrder:
    """Gives out segments by start, then channel, as soon as no earlier one can follow.

    Within a channel, segments keep the order of their chunks.
    """

    def __init__(self, chunks: Sequence[Chunk], audio_seconds: float) -> None:
        """
        Args:
            chunks: of all channels; those of one channel in order.
            audio_seconds: duration of the recording.
        """
        self._audio_seconds = audio_seconds
        self._channels: dict[int, _Channel] = {}
        self._channel_of: list[_Channel] = []
        self._numbers: list[int] = []
        for chunk in chunks:
            channel = self._channels.setdefault(chunk.channel, _Channel())
            self._channel_of.append(channel)
            self._numbers.append(len(channel.starts))
            channel.starts.append(chunk.start)
        self.segments: list[ModelSegment] = []
        """Given out so far."""

    @property
    def settled(self) -> float:
        """Seconds from the recording's start in which every chunk of every channel is settled."""
        return min((channel.settled for channel in self._channels.values()), default=self._audio_seconds)

    def add(self, index: int, part: Answer) -> list[ModelSegment]:
        """Add the answer of the chunk at `index`, and return the segments that come next."""
        channel = self._channel_of[index]
        channel.add(self._numbers[index], list(zip(part.segments, part.segment_models)), self._audio_seconds)
        ready = list(self._ready())
        self.segments += ready
        return ready

    def _ready(self) -> list[ModelSegment]:
        found: list[ModelSegment] = []
        while True:
            heads = [(c.queue[0][0].start, number, c) for number, c in sorted(self._channels.items()) if c.queue]
            if not heads:
                return found
            start, _, channel = min(heads, key=lambda head: head[:2])
            if any(not c.queue and c.settled <= start for c in self._channels.values() if not c.done):
                return found
            found.append(channel.queue.popleft())


class _Channel:
    """Chunks of one channel, and the settled segments that wait for other channels'."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        """Of each chunk, in seconds from the recording's start."""
        self.queue: deque[ModelSegment] = deque()
        self.settled = 0.0
        self._next = 0
        self._early: dict[int, list[ModelSegment]] = {}
        """Segments of chunks that were settled before one in front of them."""

    @property
    def done(self) -> bool:
        return self._next == len(self.starts)

    def add(self, number: int, segments: list[ModelSegment], end: float) -> None:
        """Add a chunk's segments; `end`: of the recording, in seconds."""
        self._early[number] = segments
        while self._next in self._early:
            self.queue += self._early.pop(self._next)
            self._next += 1
        self.settled = end if self.done else self.starts[self._next]
