"""Batches, fair turns and cancelling, with real threads and a model that the test steps through."""

from __future__ import annotations

import asyncio
import contextlib

from stt_server.engine.batcher import Batcher, _Batch
from tests.support.held_model import CountingOwner, HeldModel, JoiningModel, submit, until_waiting


async def test_idle_worker_takes_a_chunk_at_once_and_alone() -> None:
    model, owner = HeldModel(), CountingOwner()
    batcher = Batcher(model, 2, 8)
    one, two = submit(batcher, "a", owner), submit(batcher, "b", owner)
    await model.entered(2)
    assert sorted(model.batches) == [["a"], ["b"]]
    assert (owner.waiting, owner.running) == (0, 2)
    model.step(2)
    assert [found.language for found in await asyncio.gather(one, two)] == ["a", "b"]
    assert (owner.waiting, owner.running) == (0, 0)


async def test_waiting_chunks_are_batched() -> None:
    model = HeldModel()
    batcher = Batcher(model, 1, 3)
    calls = [submit(batcher, "first")]
    await model.entered()
    calls += [submit(batcher, name) for name in "abcd"]
    await until_waiting(batcher, 4)
    model.step(3)
    found = await asyncio.gather(*calls)
    assert model.batches == [["first"], ["a", "b", "c"], ["d"]]
    assert [hypothesis.language for hypothesis in found] == ["first", "a", "b", "c", "d"]


async def test_chunks_join_a_running_batch_up_to_the_limit() -> None:
    model = JoiningModel()
    batcher = Batcher(model, 1, 3)
    owners = [CountingOwner() for _ in range(6)]
    calls = [submit(batcher, "first", owners[0])]
    await model.entered()
    others = {"a": "short", "long": "long", "b": "short", "c": "short"}
    calls += [submit(batcher, name, owner, group) for (name, group), owner in zip(others.items(), owners[1:])]
    await until_waiting(batcher, 4)
    model.step(5)
    found = await asyncio.gather(*calls)
    assert model.batches == [["first", "a", "b"], ["long"], ["c"]]
    assert [hypothesis.language for hypothesis in found] == ["first", *others]
    assert all((owner.waiting, owner.running) == (0, 0) for owner in owners)


async def test_chunk_that_joins_too_late_is_queued_again() -> None:
    model = HeldModel()
    batcher = Batcher(model, 1, 8)
    owner = CountingOwner()
    calls = [submit(batcher, "first")]
    grown: list[_Batch] = []
    fill = batcher._fill

    def watched(batch: _Batch, takers: int) -> object:
        grown.append(batch)
        return fill(batch, takers)

    batcher._fill = watched  # type: ignore[method-assign, assignment]
    await model.entered()
    calls.append(submit(batcher, "late", owner))
    await until_waiting(batcher, 1)
    fill(grown[0], 1)  # like a join after the worker's timeout, which the worker doesn't see
    assert batcher.waiting == 0
    model.step(2)
    assert [found.language for found in await asyncio.gather(*calls)] == ["first", "late"]
    assert model.batches == [["first"], ["late"]]
    assert (owner.waiting, owner.running) == (0, 0)


async def test_open_batches_share_new_chunks() -> None:
    model = JoiningModel()
    batcher = Batcher(model, 2, 8)
    calls = [submit(batcher, name) for name in ("one", "two")]
    await model.entered(2)
    calls += [submit(batcher, name) for name in "abcd"]
    await until_waiting(batcher, 4)
    model.step()  # either of them
    await model.entered()
    assert batcher.waiting == 2
    model.step(9)
    await asyncio.gather(*calls)
    assert sum(map(len, model.batches)) == 6


async def test_free_workers_share_waiting_chunks() -> None:
    model = HeldModel()
    batcher = Batcher(model, 2, 8)
    batcher._free = 0  # until both workers are free in the same turn of the event loop, with four chunks waiting
    calls = [submit(batcher, name) for name in "abcd"]
    await until_waiting(batcher, 4)
    batcher._free = 2
    batcher._dispatch()
    model.step(2)
    await asyncio.gather(*calls)
    assert sorted(model.batches) == [["a", "b"], ["c", "d"]]


async def test_groups_are_not_mixed_and_the_recognizers_limit_holds() -> None:
    model = HeldModel(limit=2)
    batcher = Batcher(model, 1, 8)
    calls = [submit(batcher, "first")]
    await model.entered()
    groups = {"a": "short", "b": "long", "c": "short", "d": "short", "e": "long"}
    calls += [submit(batcher, name, CountingOwner(), group) for name, group in groups.items()]
    await until_waiting(batcher, 5)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["a", "c"], ["b", "e"], ["d"]]


async def test_owners_take_turns() -> None:
    model = HeldModel()
    batcher = Batcher(model, 1, 1)
    long, short = CountingOwner(), CountingOwner()
    calls = [submit(batcher, f"long{number}", long) for number in range(5)]
    await model.entered()
    calls.append(submit(batcher, "short", short))
    await until_waiting(batcher, 5)
    model.step(6)
    await asyncio.gather(*calls)
    assert [names[0] for names in model.batches] == ["long0", "long1", "short", "long2", "long3", "long4"]


async def test_batch_takes_one_chunk_of_each_owner_first() -> None:
    model = HeldModel()
    batcher = Batcher(model, 1, 3)
    long = CountingOwner()
    calls = [submit(batcher, f"long{number}", long) for number in range(5)]
    await model.entered()
    calls += [submit(batcher, name) for name in "ab"]
    await until_waiting(batcher, 6)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["long0"], ["long1", "a", "b"], ["long2", "long3", "long4"]]


async def test_cancelling_removes_a_waiting_chunk() -> None:
    model, owner = HeldModel(), CountingOwner()
    batcher = Batcher(model, 1, 8)
    first = submit(batcher, "first")
    await model.entered()
    waiting = submit(batcher, "gone", owner)
    await until_waiting(batcher, 1)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert batcher.waiting == 0
    assert (owner.waiting, owner.running) == (0, 0)
    model.step()
    await first
    assert model.batches == [["first"]]


async def test_cancelling_a_running_chunk_keeps_its_worker_busy() -> None:
    model, owner = HeldModel(), CountingOwner()
    batcher = Batcher(model, 1, 8)
    running = submit(batcher, "gone", owner)
    await model.entered()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert owner.running == 1
    after = submit(batcher, "after")
    await until_waiting(batcher, 1)
    model.step(2)
    assert (await after).language == "after"
    assert owner.running == 0
