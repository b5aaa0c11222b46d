"""What becomes an item: an utterance that the service finds (server VAD), or all audio up to a commit (manual)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.openai.realtime.items import Conversation, Item
from stt_client import Final, Interim
from stt_client.streaming.results import StreamEvent


class Turns(Protocol):
    """Makes items of the events of calls."""

    @property
    def pending(self) -> bool:
        """Whether an item that has begun has no result yet."""

    def begin_call(self, start: float) -> None:
        """Expect the events of another call, whose audio begins `start` seconds into the session."""

    async def take(self, event: StreamEvent, sent: float) -> None:
        """Send what an event of the call means.

        Args:
            sent: seconds of the session's audio that calls have received. The service counts in whole windows, and the
                last one of a call may be longer than the audio.
        """

    async def fail(self, error: Mapping[str, Any]) -> None:
        """Let the pending items fail, since the call failed. `error`: JSON for the caller."""

    async def refuse(self, error: Mapping[str, Any]) -> None:
        """Report that the service refuses the settings, so that the audio is not transcribed."""


class DetectedTurns:
    """Server VAD: each utterance is an item."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._start = 0.0
        self._begun = self._ended = 0
        """Utterances of the call."""
        self._items: dict[int, Item] = {}
        """Items without a result, by utterance of the call."""
        self._processed = 0.0
        """Seconds of the session."""
        self._dropping = False

    @property
    def pending(self) -> bool:
        return bool(self._items)

    def begin_call(self, start: float) -> None:
        self._start = self._processed = start
        self._begun = self._ended = 0
        self._items.clear()

    def drop_uncommitted(self) -> bool:
        """Send no more events about items that are not committed. Returns whether others have no result yet."""
        self._dropping = True
        self._items = {number: item for number, item in self._items.items() if item.committed}
        return self.pending

    async def take(self, event: StreamEvent, sent: float) -> None:
        self._processed = min(self._start + event.audio_processed, sent)
        if isinstance(event, Interim):
            item = self._items.get(event.utterance)
            if item is not None:
                await self._conversation.delta(item, item.grow(event.stable_text))
        elif isinstance(event, Final):
            await self._finish(event)
        elif event.type == "started":
            number, self._begun = self._begun, self._begun + 1
            if not self._dropping:
                item = self._items[number] = Item()
                await self._conversation.speech_started(item, min(self._start + event.offset, sent))
        else:
            number, self._ended = self._ended, self._ended + 1
            if number in self._items:
                await self._commit(self._items[number], min(self._start + event.offset, sent))

    async def _commit(self, item: Item, end: float) -> None:
        self._conversation.heard_until = self._processed
        await self._conversation.speech_stopped(item, end)
        await self._conversation.commit(item)

    async def _finish(self, final: Final) -> None:
        item = self._items.pop(final.utterance, None)
        if item is None:
            if self._dropping:
                return
            item = Item()
        if not item.committed:  # a service that sends no speech events
            await self._conversation.commit(item)
        await self._conversation.delta(item, item.finish_utterance(final.result))
        await self._conversation.complete(item)

    async def fail(self, error: Mapping[str, Any]) -> None:
        items, self._items = list(self._items.values()), {}
        for item in items:
            if not item.committed:
                await self._conversation.speech_stopped(item, self._processed)
                await self._conversation.commit(item)
            await self._conversation.fail(item, error)

    async def refuse(self, error: Mapping[str, Any]) -> None:
        if self.pending:
            await self.fail(error)
        else:
            await self._conversation.send("error", error={**error, "event_id": None})


class ManualTurn:
    """No turn detection: one item, up to the caller's commit, of any number of utterances and calls."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.item = Item()
        self.error: Mapping[str, Any] | None = None
        """Why the item has failed; None: it has not."""

    @property
    def pending(self) -> bool:
        return True

    def begin_call(self, start: float) -> None:
        pass

    async def take(self, event: StreamEvent, sent: float) -> None:
        if isinstance(event, Interim):
            await self._conversation.delta(self.item, self.item.grow(event.stable_text))
        elif isinstance(event, Final):
            await self._conversation.delta(self.item, self.item.finish_utterance(event.result))

    async def fail(self, error: Mapping[str, Any]) -> None:
        """The item fails once it is committed."""
        self.error = self.error or error

    async def refuse(self, error: Mapping[str, Any]) -> None:
        await self.fail(error)

    async def settle(self, seconds: float) -> None:
        """Send the result of the committed item, of `seconds` of audio."""
        if self.error is not None:
            await self._conversation.fail(self.item, self.error)
        else:
            await self._conversation.complete(self.item, seconds)
