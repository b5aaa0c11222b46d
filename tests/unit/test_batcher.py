"""Turns, batches, cancelling and failing, with real threads and a model that is held by the test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from stt_server.engine.batcher import HANGS_S, Batcher, InferenceTimes, _Batch
from stt_server.engine.health.model_health import FAILURES_BEFORE_PROBE, ModelHealth
from stt_server.engine.health.watchdog import Watchdog
from stt_server.engine.queue import Priority
from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis, ModelInfo, Samples
from stt_server.errors import DeadlineExceeded, EngineBug, EngineError, EngineLost
from tests.support.services import until


@dataclass(eq=False)
class Piece:
    """A chunk that is only a name and a group."""

    name: str
    group: str = "short"
    samples: Samples = field(default_factory=lambda: np.zeros(1, dtype=np.float32))
    start: float = 0.0
    speech: tuple[tuple[float, float], ...] = ()
    speech_certain: bool = True


class Held:
    """Recognizes nothing, one step at a time: each batch stands still until `step` is called."""

    def __init__(self, fail: frozenset[str] = frozenset(), limit: int = 100) -> None:
        self.info = ModelInfo("held", "cpu", "float32", ("en",))
        self.batches: list[list[str]] = []
        self._fail = fail
        self._limit = limit
        self._steps = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)

    def group_of(self, job: ChunkJob) -> Hashable:
        return str(job.chunk.group)  # type: ignore[attr-defined]

    def batch_limit(self, group: Hashable) -> int:
        return self._limit

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        names = [job.chunk.name for job in jobs]  # type: ignore[attr-defined]
        self.batches.append(names)
        self._entered.release()
        assert self._steps.acquire(timeout=10)
        if self._fail.intersection(names):
            raise EngineError(f"can't do {names}")
        return [Hypothesis((), name, None, (), False) for name in names]

    async def entered(self, times: int = 1) -> None:
        for _ in range(times):
            await asyncio.get_running_loop().run_in_executor(None, self._entered.acquire)

    def step(self, times: int = 1) -> None:
        self._steps.release(times)


class Joining(Held):
    """Asks who joins after each step, as a recognizer does that encodes chunk by chunk."""

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        late, together = jobs, list(jobs)
        while late:
            self._entered.release()
            assert self._steps.acquire(timeout=10)
            late = more()
            together += late
        names = [job.chunk.name for job in together]  # type: ignore[attr-defined]
        self.batches.append(names)
        if self._fail.intersection(names):
            raise EngineError(f"can't do {names}")
        return [Hypothesis((), name, None, (), False) for name in names]


class Someone:
    """An owner that remembers where its chunks are."""

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.waiting = self.running = 0

    def adjust(self, *, waiting: int = 0, running: int = 0) -> None:
        self.waiting += waiting
        self.running += running


def ask(
    batcher: Batcher, name: str, owner: Someone, group: str = "short", priority: Priority = Priority.ANSWER
) -> asyncio.Future[Hypothesis]:
    return asyncio.ensure_future(batcher.recognize(ChunkJob(Piece(name, group), DecodeOptions()), owner, priority))


async def queued(batcher: Batcher, count: int) -> None:
    await until(lambda: batcher.waiting == count)


async def test_an_idle_worker_takes_a_chunk_at_once_and_alone() -> None:
    model, someone = Held(), Someone()
    batcher = Batcher(model, 2, 8)
    one, two = ask(batcher, "a", someone), ask(batcher, "b", someone)
    await model.entered(2)
    assert sorted(model.batches) == [["a"], ["b"]]
    assert (someone.waiting, someone.running) == (0, 2)
    model.step(2)
    assert [found.language for found in await asyncio.gather(one, two)] == ["a", "b"]
    assert (someone.waiting, someone.running) == (0, 0)


async def test_what_waits_meanwhile_goes_together() -> None:
    model = Held()
    batcher = Batcher(model, 1, 3)
    calls = [ask(batcher, "first", Someone())]
    await model.entered()
    calls += [ask(batcher, name, Someone()) for name in "abcd"]
    await queued(batcher, 4)
    model.step(3)
    found = await asyncio.gather(*calls)
    assert model.batches == [["first"], ["a", "b", "c"], ["d"]]
    assert [hypothesis.language for hypothesis in found] == ["first", "a", "b", "c", "d"]


async def test_what_comes_while_a_batch_is_encoded_joins_it_up_to_the_limit() -> None:
    model = Joining()
    batcher = Batcher(model, 1, 3)
    owners = [Someone() for _ in range(6)]
    calls = [ask(batcher, "first", owners[0])]
    await model.entered()
    others = {"a": "short", "long": "long", "b": "short", "c": "short"}
    calls += [ask(batcher, name, owner, group) for (name, group), owner in zip(others.items(), owners[1:])]
    await queued(batcher, 4)
    model.step(5)
    found = await asyncio.gather(*calls)
    assert model.batches == [["first", "a", "b"], ["long"], ["c"]]
    assert [hypothesis.language for hypothesis in found] == ["first", *others]
    assert all((owner.waiting, owner.running) == (0, 0) for owner in owners)


async def test_what_joins_after_its_worker_gave_up_asking_is_recognized_later() -> None:
    model = Held()
    batcher = Batcher(model, 1, 8)
    owner = Someone()
    calls = [ask(batcher, "first", Someone())]
    grown: list[_Batch] = []
    fill = batcher._fill

    def watched(batch: _Batch, takers: int) -> object:
        grown.append(batch)
        return fill(batch, takers)

    batcher._fill = watched  # type: ignore[method-assign, assignment]
    await model.entered()
    calls.append(ask(batcher, "late", owner))
    await queued(batcher, 1)
    fill(grown[0], 1)  # as a join that ran too late: the worker knows nothing of it
    assert batcher.waiting == 0
    model.step(2)
    assert [found.language for found in await asyncio.gather(*calls)] == ["first", "late"]
    assert model.batches == [["first"], ["late"]]
    assert (owner.waiting, owner.running) == (0, 0)


async def test_workers_whose_batches_may_grow_share_what_comes() -> None:
    model = Joining()
    batcher = Batcher(model, 2, 8)
    calls = [ask(batcher, name, Someone()) for name in ("one", "two")]
    await model.entered(2)
    calls += [ask(batcher, name, Someone()) for name in "abcd"]
    await queued(batcher, 4)
    model.step()  # either of them
    await model.entered()
    assert batcher.waiting == 2
    model.step(9)
    await asyncio.gather(*calls)
    assert sum(map(len, model.batches)) == 6


async def test_of_a_batch_that_grew_and_failed_each_is_tried_alone() -> None:
    model = Joining(fail=frozenset({"bad"}))
    batcher = Batcher(model, 1, 8)
    calls = [ask(batcher, "first", Someone())]
    await model.entered()
    calls += [ask(batcher, name, Someone()) for name in ("a", "bad")]
    await queued(batcher, 2)
    model.step(9)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert model.batches == [["first", "a", "bad"], ["first"], ["a"], ["bad"]]
    assert isinstance(found[2], EngineError)


async def test_a_worker_leaves_their_share_to_others_that_are_free() -> None:
    model = Held()
    batcher = Batcher(model, 2, 8)
    waiting = [ChunkJob(Piece(name), DecodeOptions()) for name in "abcd"]
    batcher._free = 0  # both workers come back in one turn of the loop, and find four waiting
    calls = [asyncio.ensure_future(batcher.recognize(job, Someone())) for job in waiting]
    await queued(batcher, 4)
    batcher._free = 2
    batcher._dispatch()
    model.step(2)
    await asyncio.gather(*calls)
    assert sorted(model.batches) == [["a", "b"], ["c", "d"]]


async def test_groups_are_not_mixed_and_the_recognizers_own_limit_holds() -> None:
    model = Held(limit=2)
    batcher = Batcher(model, 1, 8)
    calls = [ask(batcher, "first", Someone())]
    await model.entered()
    groups = {"a": "short", "b": "long", "c": "short", "d": "short", "e": "long"}
    calls += [ask(batcher, name, Someone(), group) for name, group in groups.items()]
    await queued(batcher, 5)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["a", "c"], ["b", "e"], ["d"]]


async def test_owners_take_turns_so_a_long_recording_holds_nobody_up() -> None:
    model = Held()
    batcher = Batcher(model, 1, 1)
    long, short = Someone(), Someone()
    calls = [ask(batcher, f"long{number}", long) for number in range(5)]
    await model.entered()
    calls.append(ask(batcher, "short", short))
    await queued(batcher, 5)
    model.step(6)
    await asyncio.gather(*calls)
    assert [names[0] for names in model.batches] == ["long0", "long1", "short", "long2", "long3", "long4"]


async def test_a_batch_takes_one_chunk_of_each_owner_first() -> None:
    model = Held()
    batcher = Batcher(model, 1, 3)
    long = Someone()
    calls = [ask(batcher, f"long{number}", long) for number in range(5)]
    await model.entered()
    calls += [ask(batcher, name, Someone()) for name in "ab"]
    await queued(batcher, 6)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["long0"], ["long1", "a", "b"], ["long2", "long3", "long4"]]


async def test_a_cancelled_caller_takes_its_waiting_chunk_along() -> None:
    model, gone = Held(), Someone()
    batcher = Batcher(model, 1, 8)
    first = ask(batcher, "first", Someone())
    await model.entered()
    waiting = ask(batcher, "gone", gone)
    await queued(batcher, 1)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert batcher.waiting == 0
    assert (gone.waiting, gone.running) == (0, 0)
    model.step()
    await first
    assert model.batches == [["first"]]


async def test_a_cancelled_caller_leaves_the_worker_to_its_thread() -> None:
    model, gone = Held(), Someone()
    batcher = Batcher(model, 1, 8)
    running = ask(batcher, "gone", gone)
    await model.entered()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert gone.running == 1
    after = ask(batcher, "after", Someone())
    await queued(batcher, 1)
    model.step(2)
    assert (await after).language == "after"
    assert gone.running == 0


async def test_one_that_fails_does_not_take_its_batch_along() -> None:
    model = Held(fail=frozenset({"bad"}))
    batcher = Batcher(model, 1, 8)
    calls = [ask(batcher, "first", Someone())]
    await model.entered()
    calls += [ask(batcher, name, Someone()) for name in ("a", "bad", "b")]
    await queued(batcher, 3)
    model.step(5)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert model.batches == [["first"], ["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert isinstance(found[2], EngineError)
    assert [found[i].language for i in (0, 1, 3)] == ["first", "a", "b"]  # type: ignore[union-attr]


async def test_a_bug_in_the_model_reaches_its_caller_and_frees_the_worker() -> None:
    class Buggy(Held):
        def recognize_batch(
            self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
        ) -> list[Hypothesis]:
            raise ZeroDivisionError

    batcher = Batcher(Buggy(), 1, 8)
    for _ in range(2):
        with pytest.raises(EngineBug) as caught:
            await ask(batcher, "a", Someone())
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_lost_model_is_asked_no_more_and_fails_all_that_waits_for_it() -> None:
    class Poisoned(Held):
        def recognize_batch(
            self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
        ) -> list[Hypothesis]:
            super().recognize_batch(jobs, more)
            raise RuntimeError("CUDA failed with error an illegal memory access was encountered")

    told: list[EngineLost] = []
    model = Poisoned()
    batcher = Batcher(model, 1, 8, health=ModelHealth(on_lost=told.append))
    calls = [ask(batcher, name, Someone()) for name in ("first", "second", "third")]
    await model.entered()
    model.step()
    assert {type(error) for error in await asyncio.gather(*calls, return_exceptions=True)} == {EngineLost}
    with pytest.raises(EngineLost):
        await ask(batcher, "fourth", Someone())
    assert model.batches == [["first"]]
    assert batcher.waiting == 0
    assert len(told) == 1


@pytest.mark.parametrize("works", [True, False])
async def test_a_model_that_fails_on_everybody_must_hear_silence(works: bool) -> None:
    silences: list[int] = []

    class Failing(Held):
        def recognize_batch(
            self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
        ) -> list[Hypothesis]:
            if jobs[0].chunk.speech == () and len(jobs[0].chunk.samples) == 16000:
                silences.append(len(jobs))
                if works:
                    return []
            raise RuntimeError("no")

    told = asyncio.Event()
    batcher = Batcher(Failing(), 1, 8, health=ModelHealth(on_lost=lambda _: told.set()))
    for _ in range(FAILURES_BEFORE_PROBE):
        with pytest.raises(EngineError):
            await ask(batcher, "a", Someone())
    await until(lambda: silences)
    if not works:
        await told.wait()
    with pytest.raises(EngineError) as caught:
        await ask(batcher, "a", Someone())
    assert isinstance(caught.value, EngineLost) != works
    assert silences == [1]


async def test_an_inference_that_never_ends_loses_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANGS_S, "cpu", 0.2)
    told: list[EngineLost] = []
    model, someone = Held(), Someone()
    batcher = Batcher(model, 1, 8, health=ModelHealth(on_lost=told.append))
    calls = [ask(batcher, name, someone) for name in ("hangs", "waits")]
    assert {type(error) for error in await asyncio.gather(*calls, return_exceptions=True)} == {EngineLost}
    assert "has not ended" in str(told[0].__cause__)
    model.step()
    await until(lambda: someone.running == 0)


async def test_a_process_that_stood_still_takes_no_inference_for_a_hanging_one() -> None:
    overdue: list[bool] = []
    watchdog = Watchdog(1.0, lambda: overdue.append(True))
    threading.Event().wait(1.5)  # nothing of this event loop runs meanwhile
    await asyncio.sleep(0)
    assert overdue == []
    watchdog.cancel()


async def test_answers_go_before_speculative_work_and_that_before_drafts() -> None:
    model = Held()
    batcher = Batcher(model, 1, 8)
    calls = [ask(batcher, "first", Someone())]
    await model.entered()
    calls.append(ask(batcher, "draft", Someone(), priority=Priority.DRAFT))
    calls.append(ask(batcher, "speculative", Someone(), priority=Priority.SPECULATIVE))
    calls += [ask(batcher, "answer", Someone())]
    await queued(batcher, 3)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["answer"], ["speculative"], ["draft"]]


async def test_one_worker_is_kept_from_drafts() -> None:
    model = Held()
    batcher = Batcher(model, 3, 1)
    drafts = [ask(batcher, f"draft {number}", Someone(), priority=Priority.DRAFT) for number in range(4)]
    await model.entered(2)
    assert (len(model.batches), batcher.waiting) == (2, 2)
    answer = ask(batcher, "answer", Someone())
    await model.entered()
    assert model.batches[-1] == ["answer"]
    model.step(5)
    await asyncio.gather(answer, *drafts)


async def test_a_lone_worker_takes_drafts_too() -> None:
    model = Held()
    batcher = Batcher(model, 1, 8)
    draft = ask(batcher, "draft", Someone(), priority=Priority.DRAFT)
    await model.entered()
    model.step()
    assert (await draft).language == "draft"


async def test_work_ahead_that_is_needed_after_all_goes_with_the_answers() -> None:
    model, someone = Held(), Someone()
    batcher = Batcher(model, 1, 1)
    calls = [ask(batcher, "first", Someone())]
    await model.entered()
    calls += [ask(batcher, name, Someone(), priority=Priority.SPECULATIVE) for name in "ab"]
    calls += [ask(batcher, "c", someone, priority=Priority.SPECULATIVE)]
    await queued(batcher, 3)
    batcher.promote(someone)
    model.step(4)
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["c"], ["a"], ["b"]]
    assert (someone.waiting, someone.running) == (0, 0)


async def test_a_draft_that_waits_is_renewed_in_its_place() -> None:
    model, someone = Held(), Someone()
    batcher = Batcher(model, 1, 1)
    calls = [ask(batcher, "first", Someone())]
    await model.entered()
    calls += [
        ask(batcher, "old", someone, priority=Priority.DRAFT),
        ask(batcher, "other", Someone(), priority=Priority.DRAFT),
    ]
    await queued(batcher, 2)
    newer = ChunkJob(Piece("new"), DecodeOptions(), draft=True)
    assert batcher.replace_draft(someone, newer)
    model.step(2)
    assert (await calls[1]).language == "new"
    assert not batcher.replace_draft(someone, newer), "none waits any more"
    model.step()
    await asyncio.gather(*calls)
    assert model.batches == [["first"], ["new"], ["other"]]


async def test_a_cancelled_draft_leaves_nothing_behind() -> None:
    model, someone = Held(), Someone()
    batcher = Batcher(model, 1, 8)
    first = ask(batcher, "first", Someone())
    await model.entered()
    draft = ask(batcher, "draft", someone, priority=Priority.DRAFT)
    await queued(batcher, 1)
    draft.cancel()
    await queued(batcher, 0)
    assert (someone.waiting, someone.running) == (0, 0)
    model.step()
    await first
    assert model.batches == [["first"]]


def hurried(model: Held, max_batch: int) -> tuple[Batcher, list[float]]:
    """A batcher of one worker that expects a second of each chunk, and its clock."""
    now = [0.0]
    times = InferenceTimes(forecast=lambda jobs: float(len(jobs)))
    return Batcher(model, 1, max_batch, times, clock=lambda: now[0]), now


async def test_a_batch_is_no_larger_than_the_deadlines_in_it_allow() -> None:
    model = Held()
    batcher, _ = hurried(model, 8)
    first = ask(batcher, "first", Someone())
    await model.entered()
    others = [ask(batcher, name, Someone(deadline)) for name, deadline in zip("abcdef", (9.0, 4.0, *[99.0] * 4))]
    await queued(batcher, 6)
    model.step(3)
    await asyncio.gather(first, *others)
    assert model.batches == [["first"], ["a", "b", "c"], ["d", "e", "f"]]


async def test_one_that_is_late_anyway_keeps_no_batch_small() -> None:
    model = Held()
    batcher, now = hurried(model, 8)
    first = ask(batcher, "first", Someone())
    await model.entered()
    (alone := ask(batcher, "a", Someone(0.5))).add_done_callback(lambda _: None)
    await queued(batcher, 1)
    model.step()
    await first
    await model.entered()  # the only one that waits is tried, whatever the forecast says
    others = [ask(batcher, name, Someone(1.5 if name == "b" else None)) for name in "bcd"]
    await queued(batcher, 3)
    now[0] = 1.0
    model.step(2)
    await alone
    with pytest.raises(DeadlineExceeded):
        await others[0]
    await asyncio.gather(*others[1:])
    assert model.batches == [["first"], ["a"], ["c", "d"]]


async def test_inferences_that_went_well_are_measured_and_drafts_are_not() -> None:
    model = Held(fail=frozenset("x"))
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
        asked = ask(batcher, name, Someone(), priority=priority)
        await model.entered()
        now[0] += 2.0
        model.step()
        with contextlib.suppress(EngineError):
            await asked
    assert measured == [(1, 2.0), (1, 2.0)]
