"""The audio side of a Realtime session: audio and commands in, items out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.openai.realtime.items import Conversation, Item
from gateway.openai.realtime.settings import SessionSettings
from gateway.openai.realtime.stretch import CallMaker, Stretch
from gateway.openai.realtime.turns import DetectedTurns, ManualTurn
from stt_client.errors import SttError

CLOSE_S = 1.0
"""Seconds for a call without unfinished speech to end after the caller has disconnected, before it is cancelled."""


class Transcriber:
    """Transcribes the audio of a session. Each command takes effect behind the audio before it, one after the other.

    Args:
        on_failure: called with the error if the session cannot go on, unless a method raises it.
    """

    def __init__(
        self,
        maker: CallMaker,
        conversation: Conversation,
        settings: SessionSettings,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._maker = maker
        self._conversation = conversation
        self._settings = settings
        self._on_failure = on_failure
        self._turns = self._new_turns()
        self._stretch: Stretch | None = None
        self._ending = False
        """Whether the end of the stretch is awaited."""
        self._seconds = 0.0
        """Of the session's audio."""
        self._item_start = 0.0
        """Start of the audio that belongs to no item, in seconds of the session."""
        self._items_before = 0
        """Items that were committed by then."""

    @property
    def idle(self) -> bool:
        """Whether nothing that was said awaits its transcript."""
        if self._stretch is None:
            return True
        return not self._ending and isinstance(self._turns, DetectedTurns) and not self._turns.pending

    async def add(self, audio: bytes) -> None:
        """Transcribe audio. Waits while the service is busy."""
        if self._stretch is None:
            self._stretch = Stretch(self._maker, self._settings, self._turns, self._seconds)
            self._stretch.task.add_done_callback(self._note_failure)
        self._seconds += len(audio) / self._settings.bytes_per_second
        await self._stretch.add(audio)

    async def commit(self, items_before: int) -> None:
        """End the current item, and send its transcript.

        Args:
            items_before: items that were committed when the caller sent this. If turns are detected, and one was
                committed since, that is the item; else nothing was said, and the item is empty.

        Raises:
            SttError: the session cannot go on.
        """
        if isinstance(self._turns, ManualTurn):
            await self._commit_manually(self._turns)
        else:
            await self._finish()
            if self._conversation.committed == max(items_before, self._items_before):
                item = Item()
                await self._conversation.commit(item)
                start = max(self._item_start, self._conversation.heard_until)
                await self._conversation.complete(item, self._seconds - start)
        self._begin_item()

    async def clear(self) -> None:
        """Drop the audio that belongs to no committed item."""
        others = isinstance(self._turns, DetectedTurns) and self._turns.drop_uncommitted()
        await self._conversation.send("input_audio_buffer.cleared")
        if others:
            await self._finish(discard=True)
        await self.cancel()
        self._turns = self._new_turns()
        self._begin_item()

    async def change(self, settings: SessionSettings) -> None:
        """Use other settings for the audio that follows, once all before is transcribed."""
        await self._finish()
        turns, manual_before = self._turns, self._settings.manual
        self._settings = settings
        if settings.manual == manual_before:
            return
        if isinstance(turns, ManualTurn) and (turns.item.has_text or turns.error):
            await self._commit_manually(turns)
        self._turns = self._new_turns()
        self._begin_item()

    async def finish(self) -> None:
        """Send the transcripts of what was said, unless the caller has to commit it first."""
        if isinstance(self._turns, DetectedTurns):
            await self._finish()

    async def close(self) -> None:
        """End the call of a caller that has disconnected: normally if no transcript is due, else as cancelled."""
        if self._stretch is not None and self.idle:
            await self._stretch.end()
            await asyncio.wait((self._stretch.task,), timeout=CLOSE_S)
        await self.cancel()

    async def cancel(self) -> None:
        """End the call at once."""
        if self._stretch is not None:
            await self._stretch.cancel()
            self._stretch = None

    def _begin_item(self) -> None:
        self._item_start, self._items_before = self._seconds, self._conversation.committed

    def _new_turns(self) -> DetectedTurns | ManualTurn:
        return (ManualTurn if self._settings.manual else DetectedTurns)(self._conversation)

    async def _finish(self, discard: bool = False) -> None:
        """End the stretch, and wait for its last event. Raises SttError.

        Args:
            discard: drop the audio that the service has not received.
        """
        if self._stretch is not None:
            self._ending = True
            await (self._stretch.discard() if discard else self._stretch.finish())
            self._stretch, self._ending = None, False

    async def _commit_manually(self, turn: ManualTurn) -> None:
        await self._conversation.commit(turn.item)
        try:
            await self._finish()
        except SttError:
            await turn.settle(self._seconds - self._item_start)  # it has failed
            raise
        await turn.settle(self._seconds - self._item_start)
        self._turns = self._new_turns()

    def _note_failure(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._ending:
            self._on_failure(error)
