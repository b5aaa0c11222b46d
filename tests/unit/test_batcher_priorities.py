"""Priorities, drafts, deadlines and measurements in the batcher."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from stt_server.engine.batcher import Batcher, InferenceTimes
from stt_server.engine.queue import Priority
from stt_server.engine.types import ChunkJob, DecodeOptions
from stt_server.errors import DeadlineExceeded, EngineError
from tests.support.held_model import CountingOwner, HeldModel, NamedChunk, submit, until_waiting


async def test_answers_precede_speculative_work_and_drafts() -> None:
    model = HeldModel()
    batcher = Batcher(model, 1, 8)
    calls = [submit(batcher, "first")]
    await model.entered()
    calls.append(submit(batcher, "draft", priority=Priority.DRAFT))
    calls.append(submit(batcher, "speculative", priority=Priority.SPECULATIVE))
    calls += [submit(batcher, "answer")]
    await until_waiting(batcher, 3)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["answer"], ["speculative"], ["draft"]]


async def test_one_worker_is_kept_free_of_drafts() -> None:
    model = HeldModel()
    batcher = Batcher(model, 3, 1)
    drafts = [submit(batcher, f"draft {number}", priority=Priority.DRAFT) for number in range(4)]
    await model.entered(2)
    assert (len(model.batches), batcher.waiting) == (2, 2)
    answer = submit(batcher, "answer")
    await model.entered()
    assert model.batches[-1] == ["answer"]
    model.step(5)
    await asyncio.gather(answer, *drafts)


async def test_single_worker_runs_drafts_too() -> None:
    model = HeldModel()
    batcher = Batcher(model, 1, 8)
    draft = submit(batcher, "draft", priority=Priority.DRAFT)
    await model.entered()
    model.step()
    assert (await draft).language == "draft"


async def test_promoted_speculative_work_runs_with_the_answers() -> None:
    model, owner = HeldModel(), CountingOwner()
    batcher = Batcher(model, 1, 1)
    calls = [submit(batcher, "first")]
    await model.entered()
    calls += [submit(batcher, name, priority=Priority.SPECULATIVE) for name in "ab"]
    calls += [submit(batcher, "c", owner, priority=Priority.SPECULATIVE)]
    await until_waiting(batcher, 3)
    batcher.promote(owner)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["c"], ["a"], ["b"]]
    assert (owner.waiting, owner.running) == (0, 0)


async def test_waiting_draft_is_replaced_in_its_place() -> None:
    model, owner = HeldModel(), CountingOwner()
    batcher = Batcher(model, 1, 1)
    calls = [submit(batcher, "first")]
    await model.entered()
    calls += [
        submit(batcher, "old", owner, priority=Priority.DRAFT),
        submit(batcher, "other", priority=Priority.DRAFT),
    ]
    await until_waiting(batcher, 2)
    newer = ChunkJob(NamedChunk("new"), DecodeOptions(), draft=True)
    assert batcher.replace_draft(owner, newer)
    model.step(2)
    assert (await calls[1]).language == "new"
    assert not batcher.replace_draft(owner, newer), "no draft is waiting any more"
    model.step()
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["new"], ["other"]]


async def test_cancelled_draft_is_removed_from_the_queue() -> None:
    model, owner = HeldModel(), CountingOwner()
    batcher = Batcher(model, 1, 8)
    first = submit(batcher, "first")
    await model.entered()
    draft = submit(batcher, "draft", owner, priority=Priority.DRAFT)
    await until_waiting(batcher, 1)
    draft.cancel()
    await until_waiting(batcher, 0)
    assert (owner.waiting, owner.running) == (0, 0)
    model.step()
    await first
    assert model.batches == [["first"]]


def batcher_with_forecast(model: HeldModel, max_batch: int) -> tuple[Batcher, list[float]]:
    """A batcher with one worker and a forecast of one second per chunk, and its clock."""
    now = [0.0]
    times = InferenceTimes(forecast=lambda jobs: float(len(jobs)))
    return Batcher(model, 1, max_batch, times, clock=lambda: now[0]), now


async def test_deadlines_bound_the_batch_size() -> None:
    model = HeldModel()
    batcher, _ = batcher_with_forecast(model, 8)
    first = submit(batcher, "first")
    await model.entered()
    others = [
        submit(batcher, name, CountingOwner(deadline)) for name, deadline in zip("abcdef", (9.0, 4.0, *[99.0] * 4))
    ]
    await until_waiting(batcher, 6)
    model.step(3)
    await asyncio.gather(first, *others)
    assert model.batches == [["first"], ["a", "b", "c"], ["d", "e", "f"]]


async def test_late_chunk_is_dropped_and_does_not_shrink_a_batch() -> None:
    model = HeldModel()
    batcher, now = batcher_with_forecast(model, 8)
    first = submit(batcher, "first")
    await model.entered()
    (alone := submit(batcher, "a", CountingOwner(0.5))).add_done_callback(lambda _: None)
    await until_waiting(batcher, 1)
    model.step()
    await first
    await model.entered()  # a lone chunk is tried despite the forecast
    others = [submit(batcher, name, CountingOwner(1.5 if name == "b" else None)) for name in "bcd"]
    await until_waiting(batcher, 3)
    now[0] = 1.0
    model.step(2)
    await alone
    with pytest.raises(DeadlineExceeded):
        await others[0]
    await asyncio.gather(*others[1:])
    assert model.batches == [["first"], ["a"], ["c", "d"]]


async def test_successful_inferences_are_measured_except_drafts() -> None:
    model = HeldModel(fail=frozenset("x"))
    measured: list[tuple[int, float]] = []
    now = [0.0]
    times = InferenceTimes(observe=lambda jobs, seconds: measured.append((len(jobs), seconds)))
    batcher = Batcher(model, 1, 8, times, clock=lambda: now[0])
    for name, priority in (
        ("a", Priority.ANSWER),
        ("x", Priority.ANSWER),
        ("b", Priority.DRAFT),
        ("c", Priority.SPECULATIVE),
    ):
        chunk = submit(batcher, name, priority=priority)
        await model.entered()
        now[0] += 2.0
        model.step()
        with contextlib.suppress(EngineError):
            await chunk
    assert measured == [(1, 2.0), (1, 2.0)]
