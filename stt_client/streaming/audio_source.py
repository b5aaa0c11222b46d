"""The audio of a live stream on its way out: pulled as it is sent, and kept for as long as it may be needed again."""

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
"""Most audio in one message, as the contract has it."""
KEPT_BYTES = 16 * MIB
KEPT_S = 60.0
"""Kept to be sent again: so many bytes, or so many seconds if that is more. The longest utterance has 30 s."""


def frame_bytes(format_: AudioFormat) -> int:
    """Bytes of one sample of each channel."""
    return (2 if format_.encoding == "linear16" else 1) * format_.channels


@dataclass(frozen=True)
class _Item:
    start: int
    """Byte position in the stream."""
    payload: bytes | Flush

    @property
    def end(self) -> int:
        return self.start + (len(self.payload) if isinstance(self.payload, bytes) else 0)


class AudioSource:
    """The caller's audio as messages, for one reader at a time.

    The caller's iterator is pulled in one task, and only when the reader has read all there is, so that flow control
    reaches whoever makes the audio. A reader that is cancelled loses nothing: the pull goes on.

    Args:
        audio: the caller's.
        format_: of that audio.
        keep: keep what was read until it is covered, so that another reader can begin with it.
    """

    def __init__(self, audio: AsyncIterable[bytes | Flush], format_: AudioFormat, *, keep: bool) -> None:
        self._audio = audio
        self._keep = keep
        self._frame = frame_bytes(format_)
        self._rate = format_.sample_rate
        self._most = max(KEPT_BYTES, int(KEPT_S * self._rate * self._frame))
        self._items: deque[_Item] = deque()
        self._next = 0
        self._end = 0
        self._over = False
        self.needed = False
        """An utterance is under way: none of what is kept may be dropped for lack of room."""
        self._closing = False
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        self._pull: asyncio.Task[None] | None = None
        self.error: Exception | None = None
        """What the caller's iterator raised."""

    @property
    def exhausted(self) -> bool:
        """The audio is over, and all of it is covered."""
        return self._over and not self._items

    def rewind(self) -> float:
        """Begins again with the oldest audio kept. Returns its offset in seconds."""
        self._next = 0
        start = self._items[0].start if self._items else self._end
        return start / self._frame / self._rate

    def cover(self, offset: float, *, needed: bool) -> None:
        """Lets go of the audio before `offset` seconds; `needed`: an utterance is under way in what follows."""
        self._trim(round(offset * self._rate) * self._frame)
        self.needed = needed
        self._news.set()

    def flush_after(self, offset: float) -> float | None:
        """Where the first flush kept stands that is not before `offset`, in seconds; None: there is none."""
        starts = (item.start / self._frame / self._rate for item in self._items if isinstance(item.payload, Flush))
        return next((start for start in starts if start >= offset), None)

    async def next(self) -> bytes | Flush | None:
        """The next message: at most `MESSAGE_BYTES` of audio, or a flush; None: there is no more.

        Raises:
            Exception: what the caller's iterator raised.
        """
        while self._next >= len(self._items):
            if self._over:
                if self.error is not None:
                    raise self.error
                return None
            if self._pull is None:
                self._pull = asyncio.create_task(self._pull_all())
            self._news.clear()
            if self._has_room():
                self._wanted.set()
            await self._news.wait()
        if not self._keep:
            return self._items.popleft().payload
        self._next += 1
        return self._items[self._next - 1].payload

    async def close(self) -> None:
        """Ends the pull and closes the caller's iterator, where that can be closed."""
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
                    self._wanted.clear()
                    self._news.set()
                    await self._wanted.wait()
        except asyncio.CancelledError:
            if self._closing:
                raise
            self.error = Cancelled("the audio iterator was cancelled")
        except Exception as error:
            self.error = error
        finally:
            self._over = True
            self._news.set()
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
            raise TypeError(f"audio takes chunks of bytes, or FLUSH, not {type(chunk).__name__}")
        data = bytes(chunk)
        for start in range(0, len(data), MESSAGE_BYTES):
            piece = data[start : start + MESSAGE_BYTES]
            self._items.append(_Item(self._end, piece))
            self._end += len(piece)

    def _has_room(self) -> bool:
        """Makes room by dropping the oldest, which is silence where no utterance is under way."""
        over = self._end - self._items[0].start - self._most if self._items else 0
        if over <= 0:
            return True
        if self.needed:
            return False
        frames = -(-(self._items[0].start + over) // self._frame)
        self._trim(frames * self._frame)
        return True

    def _trim(self, position: int) -> None:
        """Drops what was read and ends at `position` or before it, and the part before it of what goes across."""
        while self._next and self._items[0].end <= position:
            self._items.popleft()
            self._next -= 1
        if self._next and self._items[0].start < position:
            first = self._items[0]
            assert isinstance(first.payload, bytes)  # noqa: S101 - a flush has no length to go across
            self._items[0] = _Item(position, first.payload[position - first.start :])
