"""The services of a pool: their health, and which of them takes the next call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from stt_client.client import SttClient
from stt_client.rpc import seconds_left

FIRST_STATE_S = 0.5
"""Longest wait of the first call for the health of each service. Seconds."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    client: SttClient
    serving: bool | None = None
    """Last state of its health watch; None: not known yet."""
    has_served: bool = False
    in_flight: int = 0


class PoolMembers:
    """The services of a pool, each with its health watch. Close it."""

    def __init__(self, clients: Sequence[SttClient]) -> None:
        self._members = [Member(client) for client in clients]
        self._turn = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._settled = len(clients) == 1
        self._closed = False

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def first(self) -> SttClient:
        """A client whose options are those of all."""
        return self._members[0].client

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(member.client.target for member in self._members)

    @property
    def serving(self) -> tuple[str, ...]:
        """Targets that are SERVING according to their health watches."""
        return tuple(member.client.target for member in self._members if member.serving)

    async def close(self) -> None:
        """Stop the health watches and disconnect. Idempotent."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for member in self._members:
            await member.client.close()

    def candidates(self) -> list[Member]:
        """The services that may be SERVING; if none is, all of them, as the watches may be out of date."""
        return [member for member in self._members if member.serving is not False] or list(self._members)

    @contextmanager
    def reserved(self, candidates: Sequence[Member]) -> Iterator[Member]:
        """Count one more call in flight at the least loaded of `candidates`."""
        member = self._least_loaded(candidates)
        member.in_flight += 1
        try:
            yield member
        finally:
            member.in_flight -= 1

    def _least_loaded(self, candidates: Sequence[Member]) -> Member:
        count = len(self._members)

        def rank(member: Member) -> tuple[int, int, int]:
            health = {True: 0, None: 1, False: 2}[member.serving]
            return health, member.in_flight, (self._members.index(member) - self._turn) % count

        chosen = min(candidates, key=rank)
        self._turn = (self._members.index(chosen) + 1) % count
        return chosen

    def follow_health(self) -> None:
        """Start the health watches, once. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the pool is closed; create a new one")
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._follow(member)) for member in self._members]

    async def _follow(self, member: Member) -> None:
        try:
            async with aclosing(member.client.watch_health()) as states:
                async for serving in states:
                    await self._note(member, serving)
        except Exception:
            _log.exception("health watch failed: %s; it stays in the pool", member.client.target)
            await self._note(member, None)

    async def _note(self, member: Member, serving: bool | None) -> None:
        if member.serving is not serving:
            _log.info("health changed: %s is %s", member.client.target, "serving" if serving else "not serving")
        async with self._changed:
            member.serving = serving
            member.has_served = member.has_served or serving is True
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the health of the services holds."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def settle(self, deadline: float | None) -> None:
        """Start the health watches; before the first call, wait briefly for the health of each service."""
        self.follow_health()
        if self._settled:
            return
        known = self.until(lambda: all(member.serving is not None for member in self._members))
        left = seconds_left(deadline)
        try:
            await asyncio.wait_for(known, FIRST_STATE_S if left is None else min(FIRST_STATE_S, left))
        except asyncio.TimeoutError:
            _log.info("health not known yet: some of %s", ", ".join(self.targets))
        self._settled = True
