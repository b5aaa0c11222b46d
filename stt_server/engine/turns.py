"""Chunks that wait, and whose turn is next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from stt_server.engine.types import ChunkJob, Hypothesis


class Owner(Protocol):
    """Whose chunk it is. Owners take turns; each is told how its chunks move, to account for time."""

    def moved(self, *, waiting: int = 0, running: int = 0) -> None: ...


@dataclass(eq=False)
class Waiting:
    job: ChunkJob
    group: Hashable
    owner: Owner
    result: asyncio.Future[Hypothesis] = field(repr=False)


class Turns:
    """A queue for each owner; the owners take turns."""

    def __init__(self) -> None:
        self._queues: dict[Owner, deque[Waiting]] = {}
        """Whose turn is next comes first."""

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def group(self) -> Hashable:
        """Of the chunk whose turn it is; there must be one."""
        return next(iter(self._queues.values()))[0].group

    def add(self, entry: Waiting) -> None:
        self._queues.setdefault(entry.owner, deque()).append(entry)

    def remove(self, entry: Waiting) -> bool:
        """Whether it waited here."""
        queue = self._queues.get(entry.owner)
        if not queue or entry not in queue:
            return False
        queue.remove(entry)
        if not queue:
            del self._queues[entry.owner]
        return True

    def all_of(self, owner: Owner) -> list[Waiting]:
        return list(self._queues.get(owner, ()))

    def count(self, group: Hashable) -> int:
        """How many of a group wait."""
        return sum(entry.group == group for queue in self._queues.values() for entry in queue)

    def take(self, group: Hashable, most: int) -> list[Waiting]:
        """Takes up to so many chunks of a group, one of each owner at a time; who gave one goes to the end."""
        return list(islice(self._in_turn(group), max(0, most)))

    def _in_turn(self, group: Hashable) -> Iterator[Waiting]:
        while True:
            owner = next((o for o, queue in self._queues.items() if any(e.group == group for e in queue)), None)
            if owner is None:
                return
            queue = self._queues.pop(owner)
            entry = next(entry for entry in queue if entry.group == group)
            queue.remove(entry)
            if queue:
                self._queues[owner] = queue
            yield entry
