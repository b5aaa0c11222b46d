"""Failing chunks, broken models and hung inferences in the batcher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from stt_server.engine.batcher import HANGS_S, Batcher
from stt_server.engine.health.model_health import FAILURES_BEFORE_PROBE, ModelHealth
from stt_server.engine.health.watchdog import Watchdog
from stt_server.engine.types import ChunkJob, Hypothesis
from stt_server.errors import EngineBug, EngineError, EngineLost
from tests.support.held_model import CountingOwner, HeldModel, JoiningModel, submit, until_waiting
from tests.support.services import until


async def test_failing_chunk_does_not_fail_its_batch() -> None:
    model = HeldModel(fail=frozenset({"bad"}))
    batcher = Batcher(model, 1, 8)
    calls = [submit(batcher, "first")]
    await model.entered()
    calls += [submit(batcher, name) for name in ("a", "bad", "b")]
    await until_waiting(batcher, 3)
    model.step(5)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert model.batches == [["first"], ["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert isinstance(found[2], EngineError)
    assert [found[i].language for i in (0, 1, 3)] == ["first", "a", "b"]  # type: ignore[union-attr]


async def test_chunks_of_a_failed_grown_batch_are_retried_alone() -> None:
    model = JoiningModel(fail=frozenset({"bad"}))
    batcher = Batcher(model, 1, 8)
    calls = [submit(batcher, "first")]
    await model.entered()
    calls += [submit(batcher, name) for name in ("a", "bad")]
    await until_waiting(batcher, 2)
    model.step(9)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert model.batches == [["first", "a", "bad"], ["first"], ["a"], ["bad"]]
    assert isinstance(found[2], EngineError)


async def test_unexpected_exception_reaches_the_caller() -> None:
    class BrokenModel(HeldModel):
        def recognize_batch(
            self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
        ) -> list[Hypothesis]:
            raise ZeroDivisionError

    batcher = Batcher(BrokenModel(), 1, 8)
    for _ in range(2):
        with pytest.raises(EngineBug) as caught:
            await submit(batcher, "a")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_too_few_hypotheses_fail_their_chunks() -> None:
    class ShortModel(HeldModel):
        def recognize_batch(
            self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
        ) -> list[Hypothesis]:
            return []

    with pytest.raises(EngineBug) as caught:
        await submit(Batcher(ShortModel(), 1, 8), "a")
    assert str(caught.value.__cause__) == "0 hypotheses for 1 jobs"


async def test_lost_model_fails_all_waiting_and_later_chunks() -> None:
    class PoisonedModel(HeldModel):
        def recognize_batch(
            self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
        ) -> list[Hypothesis]:
            super().recognize_batch(jobs, more)
            raise RuntimeError("CUDA failed with error an illegal memory access was encountered")

    losses: list[EngineLost] = []
    model = PoisonedModel()
    batcher = Batcher(model, 1, 8, health=ModelHealth(on_lost=losses.append))
    calls = [submit(batcher, name) for name in ("first", "second", "third")]
    await model.entered()
    model.step()
    assert {type(error) for error in await asyncio.gather(*calls, return_exceptions=True)} == {EngineLost}
    with pytest.raises(EngineLost):
        await submit(batcher, "fourth")
    assert model.batches == [["first"]]
    assert batcher.waiting == 0
    assert len(losses) == 1


@pytest.mark.parametrize("works", [True, False])
async def test_model_is_probed_with_silence_after_repeated_failures(works: bool) -> None:
    silences: list[int] = []

    class FailingModel(HeldModel):
        def recognize_batch(
            self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
        ) -> list[Hypothesis]:
            if jobs[0].chunk.speech == () and len(jobs[0].chunk.samples) == 16000:
                silences.append(len(jobs))
                if works:
                    return []
            raise RuntimeError("no")

    lost = asyncio.Event()
    batcher = Batcher(FailingModel(), 1, 8, health=ModelHealth(on_lost=lambda _: lost.set()))
    for _ in range(FAILURES_BEFORE_PROBE):
        with pytest.raises(EngineError):
            await submit(batcher, "a")
    await until(lambda: silences)
    if not works:
        await lost.wait()
    with pytest.raises(EngineError) as caught:
        await submit(batcher, "a")
    assert isinstance(caught.value, EngineLost) != works
    assert silences == [1]


async def test_hung_inference_loses_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANGS_S, "cpu", 0.2)
    losses: list[EngineLost] = []
    model, owner = HeldModel(), CountingOwner()
    batcher = Batcher(model, 1, 8, health=ModelHealth(on_lost=losses.append))
    calls = [submit(batcher, name, owner) for name in ("hangs", "waits")]
    assert {type(error) for error in await asyncio.gather(*calls, return_exceptions=True)} == {EngineLost}
    assert "has not ended" in str(losses[0].__cause__)
    model.step()
    await until(lambda: owner.running == 0)


async def test_suspended_process_does_not_trip_the_watchdog() -> None:
    overdue: list[bool] = []
    watchdog = Watchdog(1.0, lambda: overdue.append(True))
    threading.Event().wait(1.5)  # blocks the event loop
    await asyncio.sleep(0)
    assert overdue == []
    watchdog.cancel()
