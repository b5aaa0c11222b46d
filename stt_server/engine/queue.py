"""What waits for a worker, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

from stt_server.engine.types import ChunkJob, Hypothesis


class Rank(IntEnum):
    """What is recognized first."""

    ANSWER = 0
    """Somebody waits for it."""
    AHEAD = 1
    """Begun before it is known to be needed."""
    DRAFT = 2
    """Soon out of date. Never fills the last worker, where there are two or more."""


class Owner(Protocol):
    """Whose chunk it is. Owners take turns; each is told how its chunks move, to account for time."""

    @property
    def deadline(self) -> float | None:
        """Until when it waits, on the batcher's clock; None: as long as it takes."""
        ...

    def moved(self, *, waiting: int = 0, running: int = 0) -> None: ...


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
    """Chunks by rank and owner. All that waits of one owner is of one rank."""

    def __init__(self) -> None:
        self._turns: dict[Rank, dict[Owner, deque[Entry]]] = {rank: {} for rank in Rank}
        """Whose turn is next comes first."""

    def __len__(self) -> int:
        return sum(len(queue) for turns in self._turns.values() for queue in turns.values())

    @property
    def first_rank(self) -> Rank | None:
        """The highest of which something waits."""
        return next((rank for rank in Rank if self._turns[rank]), None)

    def all(self) -> list[Entry]:
        return [entry for rank in Rank for entry in self.of(rank)]

    def of(self, rank: Rank) -> list[Entry]:
        """In the order of their owners' turns."""
        return [entry for queue in self._turns[rank].values() for entry in queue]

    def next_group(self, rank: Rank) -> Hashable:
        """Of the chunk whose turn it is; something of that rank has to wait."""
        return next(iter(self._turns[rank].values()))[0].group

    def add(self, entry: Entry, rank: Rank) -> None:
        """Behind what else its owner waits for. The owner is not told."""
        self._turns[rank].setdefault(entry.owner, deque()).append(entry)

    def remove(self, entry: Entry) -> None:
        """Takes it out, if it waits, and tells its owner."""
        for turns in self._turns.values():
            queue = turns.get(entry.owner)
            if queue and entry in queue:
                queue.remove(entry)
                entry.owner.moved(waiting=-1)
                if not queue:
                    del turns[entry.owner]

    def promote(self, owner: Owner) -> None:
        """Makes answers of what an owner waits for."""
        for rank in (Rank.AHEAD, Rank.DRAFT):
            queue = self._turns[rank].pop(owner, None)
            if queue is not None:
                self._turns[Rank.ANSWER].setdefault(owner, deque()).extend(queue)

    def renew(self, owner: Owner, job: ChunkJob, group: Hashable) -> bool:
        """Puts a newer draft in the place of the one that an owner waits for. False: none waits any more."""
        queue = self._turns[Rank.DRAFT].get(owner)
        if not queue:
            return False
        queue[0].job, queue[0].group = replace(job, wanted=queue[0].job.wanted), group
        return True

    def take(self, rank: Rank, group: Hashable) -> Iterator[Entry]:
        """Takes chunks of a group out, one of each owner at a time; who gave one goes to the end."""
        turns = self._turns[rank]
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
