"""Messages of one stream as they arrive: the protocol's rules, flow control and idle timeout."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from stt_server.errors import DeadlineExceeded, InvalidArgument, SttError
from stt_server.streaming.events import MAX_AUDIO_MESSAGE, Audio, Empty, Flush, Message, StreamConfig

_PENDING_SECONDS = 1.0
"""Unprocessed audio above which no further message is read, in seconds."""

_ARRIVAL_SECONDS = 0.02
"""Messages that arrive within this many seconds count as one arrival."""

_ARRIVALS = 4096
"""Arrivals remembered: over a minute of 20 ms messages."""


@dataclass(frozen=True)
class End:
    """The end of the input."""

    error: SttError | None = None
    """Status of the stream, after its last final; None for OK."""


@dataclass(frozen=True)
class Drain:
    """The service has begun to stop."""


Item = bytes | Flush | Drain | End


async def read_config(messages: AsyncIterator[Message], idle_timeout_s: float) -> StreamConfig:
    """Read the first message.

    Raises:
        InvalidArgument: it is not a config, or the stream ended without a message.
        DeadlineExceeded: none arrived within `idle_timeout_s` seconds.
    """
    message = await _next_message(messages, idle_timeout_s)
    if isinstance(message, StreamConfig):
        return message
    if isinstance(message, End):
        raise message.error or InvalidArgument("the stream ended before its first message; send a config first")
    raise InvalidArgument("the first message must be a config")


async def _next_message(messages: AsyncIterator[Message], idle_timeout_s: float) -> Message | End:
    try:
        message = await asyncio.wait_for(anext(messages, None), idle_timeout_s)
    except asyncio.TimeoutError:
        return End(
            DeadlineExceeded(
                f"no message received for {idle_timeout_s:g} s; send audio (silence too), or close the stream"
            )
        )
    return End() if message is None else message


class Arrivals:
    """When each part of a stream's audio arrived."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._bytes = 0
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=_ARRIVALS)
        """(seconds of audio received, monotonic time), in order."""

    def add(self, size: int) -> None:
        """Record that `size` bytes have just arrived."""
        self._bytes += size
        received, now = self._bytes / self._bytes_per_second, time.monotonic()
        if self._arrivals and now - self._arrivals[-1][1] < _ARRIVAL_SECONDS:
            self._arrivals[-1] = (received, self._arrivals[-1][1])
        else:
            self._arrivals.append((received, now))

    def time_of(self, seconds: float) -> float:
        """Monotonic time at which the audio up to `seconds` of the stream had arrived."""
        found = self._arrivals[-1][1] if self._arrivals else time.monotonic()
        for received, when in reversed(self._arrivals):
            if received < seconds:
                break
            found = when
        return found


class Inbox:
    """The messages after the config, as a queue. The reader is paused while too much audio is unprocessed."""

    def __init__(self, messages: AsyncIterator[Message], bytes_per_second: int, idle_timeout_s: float) -> None:
        """
        Args:
            messages: all messages after the config.
            bytes_per_second: of the stream's audio format.
            idle_timeout_s: seconds without a message after which the stream ends.
        """
        self.arrivals = Arrivals(bytes_per_second)
        self._messages = messages
        self._idle_timeout_s = idle_timeout_s
        self._items: deque[Item | SttError] = deque()
        self._changed = asyncio.Event()
        self._pending = 0
        """Bytes of audio in `_items`."""
        self._pending_limit = int(_PENDING_SECONDS * bytes_per_second)

    @property
    def empty(self) -> bool:
        return not self._items

    async def read(self) -> None:
        """Read messages until the stream ends or breaks a rule."""
        while True:
            message = await _next_message(self._messages, self._idle_timeout_s)
            try:
                self._accept(message)
            except SttError as error:
                self._put(error)
                return
            if isinstance(message, End):
                return
            while self._pending > self._pending_limit:
                await self._wait()

    async def take(self, max_bytes: int) -> Item:
        """Return the next item; consecutive audio is joined, up to `max_bytes`.

        Raises:
            InvalidArgument: a message broke a rule.
        """
        while not self._items:
            await self._wait()
        item = self._items[0]
        if isinstance(item, SttError):
            raise item
        if not isinstance(item, bytes):
            self._items.popleft()
            return item
        parts: list[bytes] = []
        size = 0
        while self._items and size < max_bytes and isinstance(part := self._items[0], bytes):
            self._items.popleft()
            if size + len(part) > max_bytes:
                self._items.appendleft(part[max_bytes - size :])
                part = part[: max_bytes - size]
            parts.append(part)
            size += len(part)
        self._pending -= size
        self._changed.set()
        return b"".join(parts)

    def drain(self) -> None:
        """Add a `Drain` behind everything received so far."""
        self._put(Drain())

    def end_now(self, error: SttError) -> None:
        """End the input before everything that is still queued."""
        self._items.appendleft(End(error))
        self._changed.set()

    def _accept(self, message: Message | End) -> None:
        if isinstance(message, StreamConfig):
            raise InvalidArgument("config: allowed in the first message only")
        if isinstance(message, Empty):
            raise InvalidArgument("a message has neither audio nor flush; send one of them")
        if not isinstance(message, Audio):
            self._put(message)
            return
        size = len(message.data)
        if size > MAX_AUDIO_MESSAGE:
            raise InvalidArgument(f"audio: a message may hold at most {MAX_AUDIO_MESSAGE} bytes, got {size}; split it")
        if size:
            self._pending += size
            self.arrivals.add(size)
            self._put(message.data)

    def _put(self, item: Item | SttError) -> None:
        self._items.append(item)
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
