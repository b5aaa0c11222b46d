"""Messages as they come: the rules of a stream, its flow control, its idle timeout."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from stt_server.errors import DeadlineExceeded, InvalidArgument, SttError
from stt_server.streaming.events import MAX_AUDIO_MESSAGE, Audio, Flush, Message, Nothing, StreamConfig

_PENDING_SECONDS = 1.0
"""Of audio not heard yet; no message is read while there is more."""

_ARRIVAL_SECONDS = 0.02
"""Arrivals nearer to each other than this are one."""

_ARRIVALS = 4096
"""Remembered: over a minute of messages of 20 ms."""


@dataclass(frozen=True)
class End:
    """Nothing more is to be heard."""

    error: SttError | None = None
    """What the stream ends with, once its last final is sent."""


@dataclass(frozen=True)
class Drain:
    """The service is stopping: the stream is to end as soon as nobody speaks."""


Item = bytes | Flush | Drain | End


class Inbox:
    """What one caller sends."""

    def __init__(self, messages: AsyncIterator[Message], idle_timeout_s: float, clock: Callable[[], float]) -> None:
        """
        Args:
            idle_timeout_s: seconds without a message that end the stream.
        """
        self._messages = messages
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._items: deque[Item | SttError] = deque()
        self._changed = asyncio.Event()
        self._pending = 0
        """Bytes of audio in `items`."""
        self._pending_limit = MAX_AUDIO_MESSAGE
        self._bytes = 0
        self._bytes_per_second = 1
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=_ARRIVALS)
        """Seconds of the stream that had come, and when."""

    @property
    def empty(self) -> bool:
        return not self._items

    async def config(self) -> StreamConfig:
        """The first message.

        Raises:
            InvalidArgument: it isn't a config, or there is none.
            DeadlineExceeded: it does not come.
        """
        message = await self._next()
        if isinstance(message, StreamConfig):
            return message
        if isinstance(message, End):
            raise message.error or InvalidArgument("the stream ended without a message; send a config first")
        raise InvalidArgument("the first message must carry the config")

    async def read(self, bytes_per_second: int) -> None:
        """Reads all messages behind the config, no faster than they are taken."""
        self._bytes_per_second = bytes_per_second
        self._pending_limit = int(_PENDING_SECONDS * bytes_per_second)
        while True:
            message = await self._next()
            try:
                self._accept(message)
            except SttError as error:
                self._put(error)
                return
            if isinstance(message, End):
                return
            while self._pending > self._pending_limit:
                await self._wait()

    async def take(self, most: int) -> Item:
        """The next thing to do: up to `most` bytes of audio that came in a row, or something else.

        Raises:
            InvalidArgument: a message broke the rules.
        """
        while not self._items:
            await self._wait()
        item = self._items[0]
        if isinstance(item, SttError):
            raise item
        if not isinstance(item, bytes):
            return self._items.popleft()  # type: ignore[return-value]
        parts: list[bytes] = []
        size = 0
        while self._items and size < most and isinstance(part := self._items[0], bytes):
            self._items.popleft()
            if size + len(part) > most:
                self._items.appendleft(part[most - size :])
                part = part[: most - size]
            parts.append(part)
            size += len(part)
        self._pending -= size
        self._changed.set()
        return b"".join(parts)

    def interrupt(self, item: Drain | End, *, at_once: bool) -> None:
        """Adds something that the caller did not say: behind what came so far, or before it."""
        if at_once:
            self._items.appendleft(item)
        else:
            self._items.append(item)
        self._changed.set()

    def arrived(self, seconds: float) -> float:
        """When the audio up to `seconds` of the stream had come, on the clock."""
        for until, when in reversed(self._arrivals):
            if until < seconds:
                break
            found = when
        else:
            return self._arrivals[0][1] if self._arrivals else self._clock()
        return found if self._arrivals[-1][0] >= seconds else self._arrivals[-1][1]

    def _accept(self, message: Message | End) -> None:
        if isinstance(message, StreamConfig):
            raise InvalidArgument("config: only the first message carries it")
        if isinstance(message, Nothing):
            raise InvalidArgument("a message carries audio or a flush; one had neither")
        if not isinstance(message, Audio):
            self._put(message)
            return
        size = len(message.data)
        if size > MAX_AUDIO_MESSAGE:
            raise InvalidArgument(f"audio: at most {MAX_AUDIO_MESSAGE} bytes a message, not {size}")
        if size:
            self._bytes += size
            self._pending += size
            self._note_arrival()
            self._put(message.data)

    def _note_arrival(self) -> None:
        until, now = self._bytes / self._bytes_per_second, self._clock()
        if self._arrivals and now - self._arrivals[-1][1] < _ARRIVAL_SECONDS:
            self._arrivals[-1] = (until, self._arrivals[-1][1])
        else:
            self._arrivals.append((until, now))

    async def _next(self) -> Message | End:
        try:
            message = await asyncio.wait_for(anext(self._messages, None), self._idle_timeout_s)
        except asyncio.TimeoutError:
            said = f"nothing was sent for {self._idle_timeout_s:g} s; send audio, silence too, or end the stream"
            return End(DeadlineExceeded(said))
        return End() if message is None else message

    def _put(self, item: Item | SttError) -> None:
        self._items.append(item)
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
