"""Audio of a live stream: pulled from the caller as it is sent, and kept while it may have to be sent again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass

from stt_client.channel import MIB
from stt_client.errors import Cancelled
from stt_client.request import AudioFormat
from stt_client.streaming.results import Flush

MESSAGE_BYTES = MIB
"""Largest audio message that the contract allows."""
KEPT_BYTES = 16 * MIB
KEPT_S = 60.0
"""Audio kept for resending: `KEPT_BYTES` or `KEPT_S` seconds, whichever is more. Utterances last up to 30 s."""


def frame_bytes(format_: AudioFormat) -> int:
    """Bytes per frame: one sample of each channel."""
    return (2 if format_.encoding == "linear16" else 1) * format_.channels


@dataclass(frozen=True)
class _Item:
    start: int
    """Position in the stream, in bytes."""
    payload: bytes | Flush

    @property
    def end(self) -> int:
        return self.start + (len(self.payload) if isinstance(self.payload, bytes) else 0)


class AudioSource:
    """The caller's audio as messages, for one reader at a time.

    A task pulls the caller's iterator, but only once the reader has read everything, so that flow control reaches the
    source of the audio. Cancelling a reader loses no audio: the task continues.

    Args:
        audio: the caller's iterator.
        format_: of that audio.
        keep: keep audio that was read until it is covered, so that another reader can start with it.
    """

    def __init__(self, audio: AsyncIterable[bytes | Flush], format_: AudioFormat, *, keep: bool) -> None:
        self._audio = audio
        self._keep = keep
        self._frame = frame_bytes(format_)
        self._rate = format_.sample_rate
        self._limit = max(KEPT_BYTES, int(KEPT_S * self._rate * self._frame))
        self._items: deque[_Item] = deque()
        self._next = 0
        self._end = 0
        self._over = False
        self.needed = False
        """Whether an utterance is in progress, so that kept audio must not be dropped to limit memory."""
        self._closing = False
        self._demand = asyncio.Event()
        self._changed = asyncio.Event()
        self._pull: asyncio.Task[None] | None = None
        self.error: Exception | None = None
        """Exception of the caller's iterator."""

    @property
    def exhausted(self) -> bool:
        """Whether the audio has ended and all of it is covered."""
        return self._over and not self._items

    def rewind(self) -> float:
        """Restart at the oldest audio that is kept. Returns its offset in seconds."""
        self._next = 0
        start = self._items[0].start if self._items else self._end
        return start / self._frame / self._rate

    def cover(self, offset: float, *, needed: bool) -> None:
        """Release the audio before `offset` seconds; `needed`: an utterance is in progress after it."""
        self._trim(round(offset * self._rate) * self._frame)
        self.needed = needed
        self._changed.set()

    def flush_after(self, offset: float) -> float | None:
        """Offset of the first kept flush at or after `offset`, in seconds; None if there is none."""
        starts = (item.start / self._frame / self._rate for item in self._items if isinstance(item.payload, Flush))
        return next((start for start in starts if start >= offset), None)

    async def next(self) -> bytes | Flush | None:
        """Return the next message: at most `MESSAGE_BYTES` of audio, or a flush; None at the end.

        Raises:
            Exception: whatever the caller's iterator raised.
        """
        while self._next >= len(self._items):
            if self._over:
                if self.error is not None:
                    raise self.error
                return None
            if self._pull is None:
                self._pull = asyncio.create_task(self._pull_all())
            self._changed.clear()
            if self._has_room():
                self._demand.set()
            await self._changed.wait()
        if not self._keep:
            return self._items.popleft().payload
        self._next += 1
        return self._items[self._next - 1].payload

    async def close(self) -> None:
        """Stop pulling, and close the caller's iterator if it has `aclose`."""
        self._closing = True
        if self._pull is None:
            await self._close_audio()
        else:
            self._pull.cancel()
            await asyncio.gather(self._pull, return_exceptions=True)
        self._items.clear()

    async def _pull_all(self) -> None:
        try:
            async for chunk in self._audio:
                self._take(chunk)
                if self._next < len(self._items):
                    self._demand.clear()
                    self._changed.set()
                    await self._demand.wait()
        except asyncio.CancelledError:
            if self._closing:
                raise
            self.error = Cancelled("the audio iterator was cancelled")
        except Exception as error:
            self.error = error
        finally:
            self._over = True
            self._changed.set()
            await self._close_audio()

    async def _close_audio(self) -> None:
        close = getattr(self._audio, "aclose", None)
        if close is not None:
            await close()

    def _take(self, chunk: bytes | Flush) -> None:
        if isinstance(chunk, Flush):
            self._items.append(_Item(self._end, chunk))
            return
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(f"invalid chunk of type {type(chunk).__name__}: audio must yield bytes or FLUSH")
        data = bytes(chunk)
        for start in range(0, len(data), MESSAGE_BYTES):
            piece = data[start : start + MESSAGE_BYTES]
            self._items.append(_Item(self._end, piece))
            self._end += len(piece)

    def _has_room(self) -> bool:
        """Whether more audio may be kept; drops the oldest if it is silence between utterances."""
        over = self._end - self._items[0].start - self._limit if self._items else 0
        if over <= 0:
            return True
        if self.needed:
            return False
        frames = -(-(self._items[0].start + over) // self._frame)
        self._trim(frames * self._frame)
        return True

    def _trim(self, position: int) -> None:
        """Drop audio that was read, up to `position` in bytes."""
        while self._next and self._items[0].end <= position:
            self._items.popleft()
            self._next -= 1
        first = self._items[0] if self._next else None
        if first is not None and first.start < position and isinstance(first.payload, bytes):
            self._items[0] = _Item(position, first.payload[position - first.start :])
