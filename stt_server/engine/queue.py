"""Chunks waiting for a worker, ordered by priority and shared fairly between requests."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

from stt_server.engine.types import ChunkJob, Hypothesis


class Priority(IntEnum):
    """Lower values are recognized first."""

    ANSWER = 0
    """A caller is waiting for the result."""
    SPECULATIVE = 1
    """Begun before it is sure that the utterance ended."""
    DRAFT = 2
    """A draft of an unfinished utterance. With two workers or more, drafts never occupy the last one."""


class Owner(Protocol):
    """The request that a chunk belongs to. Owners take turns."""

    @property
    def deadline(self) -> float | None:
        """Deadline on the batcher's clock, in seconds; None: no deadline."""
        ...

    def adjust(self, *, waiting: int = 0, running: int = 0) -> None:
        """Add to the counts of the owner's chunks that are waiting and running."""
        ...


@dataclass(eq=False)
class Entry:
    """A chunk that is waiting or being recognized."""

    job: ChunkJob
    group: Hashable
    owner: Owner
    result: asyncio.Future[Hypothesis] = field(repr=False)

    def settle(self, outcome: Hypothesis | BaseException) -> None:
        """Set the result, unless it is set or cancelled already."""
        if self.result.done():
            return
        if isinstance(outcome, Hypothesis):
            self.result.set_result(outcome)
        else:
            self.result.set_exception(outcome)


class ChunkQueue:
    """Waiting chunks by priority and owner. All chunks of one owner have the same priority."""

    def __init__(self) -> None:
        self._owners: dict[Priority, dict[Owner, deque[Entry]]] = {priority: {} for priority in Priority}
        """In the order of their turns."""

    def __len__(self) -> int:
        return sum(len(entries) for owners in self._owners.values() for entries in owners.values())

    @property
    def first_priority(self) -> Priority | None:
        """The most urgent priority with a waiting chunk; None if the queue is empty."""
        return next((priority for priority in Priority if self._owners[priority]), None)

    def all(self) -> list[Entry]:
        """Every waiting chunk, the most urgent priority first."""
        return [entry for priority in Priority for entry in self.of(priority)]

    def of(self, priority: Priority) -> list[Entry]:
        """The waiting chunks of one priority, in the order of their owners' turns."""
        return [entry for entries in self._owners[priority].values() for entry in entries]

    def next_group(self, priority: Priority) -> Hashable:
        """The group of the next chunk of this priority. At least one must be waiting."""
        return next(iter(self._owners[priority].values()))[0].group

    def add(self, entry: Entry, priority: Priority) -> None:
        """Add a chunk to its owner's, which are served by their start. Does not adjust the owner's counts.

        The channels of a recording thus proceed side by side.
        """
        insort(self._owners[priority].setdefault(entry.owner, deque()), entry, key=lambda e: e.job.chunk.start)

    def remove(self, entry: Entry) -> None:
        """Remove a chunk and adjust its owner's counts; no effect if it isn't waiting."""
        for owners in self._owners.values():
            entries = owners.get(entry.owner)
            if entries and entry in entries:
                entries.remove(entry)
                entry.owner.adjust(waiting=-1)
                if not entries:
                    del owners[entry.owner]

    def promote(self, owner: Owner) -> None:
        """Raise the owner's waiting chunks to `Priority.ANSWER`."""
        for priority in (Priority.SPECULATIVE, Priority.DRAFT):
            entries = self._owners[priority].pop(owner, None)
            if entries is not None:
                self._owners[Priority.ANSWER].setdefault(owner, deque()).extend(entries)

    def replace_draft(self, owner: Owner, job: ChunkJob, group: Hashable) -> bool:
        """Replace the owner's waiting draft in its place; False if none is waiting."""
        entries = self._owners[Priority.DRAFT].get(owner)
        if not entries:
            return False
        entries[0].job, entries[0].group = replace(job, wanted=entries[0].job.wanted), group
        return True

    def take(self, priority: Priority, group: Hashable) -> Iterator[Entry]:
        """Remove and yield chunks of a group, one owner after another. An owner that gave one goes to the end.

        Does not adjust the owners' counts.
        """
        owners = self._owners[priority]
        while True:
            owner = next((o for o, entries in owners.items() if any(e.group == group for e in entries)), None)
            if owner is None:
                return
            entries = owners.pop(owner)
            entry = next(entry for entry in entries if entry.group == group)
            entries.remove(entry)
            if entries:
                owners[owner] = entries
            yield entry
