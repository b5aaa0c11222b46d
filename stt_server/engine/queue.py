"""What waits for a worker, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

from stt_server.engine.types import ChunkJob, Hypothesis


class Priority(IntEnum):
    """What is recognized first."""

    ANSWER = 0
    """Somebody waits for it."""
    SPECULATIVE = 1
    """Begun before it is known to be needed."""
    DRAFT = 2
    """Soon out of date. Never fills the last worker, where there are two or more."""


class Owner(Protocol):
    """Whose chunk it is. Owners take turns; each is told how its chunks move, to account for time."""

    @property
    def deadline(self) -> float | None:
        """Until when it waits, on the batcher's clock; None: as long as it takes."""
        ...

    def adjust(self, *, waiting: int = 0, running: int = 0) -> None: ...


@dataclass(eq=False)
class Entry:
    """A chunk that waits, or is being recognized."""

    job: ChunkJob
    group: Hashable
    owner: Owner
    result: asyncio.Future[Hypothesis] = field(repr=False)

    def fail(self, error: Exception) -> None:
        """Tells its caller, who may have left."""
        if not self.result.done():
            self.result.set_exception(error)


class Waiting:
    """Chunks by priority and owner. All that waits of one owner is of one priority."""

    def __init__(self) -> None:
        self._turns: dict[Priority, dict[Owner, deque[Entry]]] = {priority: {} for priority in Priority}
        """Whose turn is next comes first."""

    def __len__(self) -> int:
        return sum(len(queue) for turns in self._turns.values() for queue in turns.values())

    @property
    def first_priority(self) -> Priority | None:
        """The highest of which something waits."""
        return next((priority for priority in Priority if self._turns[priority]), None)

    def all(self) -> list[Entry]:
        return [entry for priority in Priority for entry in self.of(priority)]

    def of(self, priority: Priority) -> list[Entry]:
        """In the order of their owners' turns."""
        return [entry for queue in self._turns[priority].values() for entry in queue]

    def next_group(self, priority: Priority) -> Hashable:
        """Of the chunk whose turn it is; something of that priority has to wait."""
        return next(iter(self._turns[priority].values()))[0].group

    def add(self, entry: Entry, priority: Priority) -> None:
        """Behind what else its owner waits for. The owner is not told."""
        self._turns[priority].setdefault(entry.owner, deque()).append(entry)

    def remove(self, entry: Entry) -> None:
        """Takes it out, if it waits, and tells its owner."""
        for turns in self._turns.values():
            queue = turns.get(entry.owner)
            if queue and entry in queue:
                queue.remove(entry)
                entry.owner.adjust(waiting=-1)
                if not queue:
                    del turns[entry.owner]

    def promote(self, owner: Owner) -> None:
        """Makes answers of what an owner waits for."""
        for priority in (Priority.SPECULATIVE, Priority.DRAFT):
            queue = self._turns[priority].pop(owner, None)
            if queue is not None:
                self._turns[Priority.ANSWER].setdefault(owner, deque()).extend(queue)

    def renew(self, owner: Owner, job: ChunkJob, group: Hashable) -> bool:
        """Puts a newer draft in the place of the one that an owner waits for. False: none waits any more."""
        queue = self._turns[Priority.DRAFT].get(owner)
        if not queue:
            return False
        queue[0].job, queue[0].group = replace(job, wanted=queue[0].job.wanted), group
        return True

    def take(self, priority: Priority, group: Hashable) -> Iterator[Entry]:
        """Takes chunks of a group out, one of each owner at a time; who gave one goes to the end."""
        turns = self._turns[priority]
        while True:
            owner = next((o for o, queue in turns.items() if any(e.group == group for e in queue)), None)
            if owner is None:
                return
            queue = turns.pop(owner)
            entry = next(entry for entry in queue if entry.group == group)
            queue.remove(entry)
            if queue:
                turns[owner] = queue
            yield entry
