"""`SttPool` over scripted servers that fail, stop and return."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from protos.stt.v1.errors import ERRORS
from stt_client import CallRecord, SttPool
from stt_client.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotReady,
    Overloaded,
    SttError,
    UpstreamUnavailable,
)
from stt_client.streaming.stream import PATIENCE_S
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import ContractService, serving, start

WAIT_S = 20


async def until_serving(pool: SttPool, *targets: str) -> None:
    """Wait until exactly `targets` are SERVING according to the pool."""
    pool._members.follow_health()
    await asyncio.wait_for(pool._members.until(lambda: set(pool.serving) == set(targets)), WAIT_S)


async def servers(stack: AsyncExitStack, count: int, **options: object) -> list[ContractService]:
    return [await stack.enter_async_context(serving(Script(**options))) for _ in range(count)]  # type: ignore[arg-type]


async def test_a_call_goes_to_the_least_loaded() -> None:
    async with AsyncExitStack() as stack:
        busy, idle = await servers(stack, 2)
        busy.script.hold = asyncio.Event()
        pool = await stack.enter_async_context(SttPool([busy.target, idle.target]))
        held = asyncio.create_task(pool.transcribe(b"long"))
        await asyncio.wait_for(busy.script.started.wait(), WAIT_S)
        for _ in range(3):
            await pool.transcribe(b"short")
        assert (len(busy.script.requests), len(idle.script.requests)) == (1, 3)
        busy.script.hold.set()
        await held


async def test_equally_loaded_services_are_used_in_turn() -> None:
    async with AsyncExitStack() as stack:
        three = await servers(stack, 3)
        pool = await stack.enter_async_context(SttPool([served.target for served in three]))
        for _ in range(6):
            await pool.transcribe(b"x")
        assert [len(served.script.requests) for served in three] == [2, 2, 2]
        assert pool.latency.count == 6


async def test_concurrent_calls_are_spread_over_the_services() -> None:
    async with AsyncExitStack() as stack:
        hold = asyncio.Event()
        two = await servers(stack, 2, hold=hold)
        pool = await stack.enter_async_context(SttPool([served.target for served in two]))
        calls = [asyncio.create_task(pool.transcribe(b"x")) for _ in range(4)]
        for served in two:
            await asyncio.wait_for(served.script.started.wait(), WAIT_S)
        hold.set()
        await asyncio.gather(*calls)
        assert [len(served.script.requests) for served in two] == [2, 2]


async def test_an_unreachable_service_is_skipped_from_the_start() -> None:
    records: list[CallRecord] = []
    async with serving() as served, SttPool(["127.0.0.1:1", served.target], telemetry=records.append) as pool:
        for _ in range(4):
            await pool.transcribe(b"x")
        assert pool.serving == (served.target,)
    assert {record.target for record in records} == {served.target}


async def test_a_service_is_skipped_while_not_serving() -> None:
    async with AsyncExitStack() as stack:
        draining, other = await servers(stack, 2)
        pool = await stack.enter_async_context(SttPool([draining.target, other.target]))
        await until_serving(pool, draining.target, other.target)
        await draining.set_serving(False)
        await until_serving(pool, other.target)
        await pool.transcribe(b"x")
        await pool.transcribe(b"x")
        assert draining.script.requests == []
        await draining.set_serving(True)
        await until_serving(pool, draining.target, other.target)
        await pool.transcribe(b"x")
        await pool.transcribe(b"x")
        assert len(draining.script.requests) == 1


async def test_a_killed_service_is_used_again_after_its_restart() -> None:
    async with AsyncExitStack() as stack:
        (other,) = await servers(stack, 1)
        dying = await start()
        pool = await stack.enter_async_context(SttPool([dying.target, other.target]))
        await until_serving(pool, dying.target, other.target)
        await dying.stop()
        await until_serving(pool, other.target)
        for _ in range(2):
            await pool.transcribe(b"x")
        assert len(other.script.requests) == 2
        again = await start(address=dying.target)
        stack.push_async_callback(again.stop)
        await until_serving(pool, again.target, other.target)
        for _ in range(2):
            await pool.transcribe(b"x")
        assert len(again.script.requests) == 1


@pytest.mark.parametrize("type_", [type_ for type_, kind in ERRORS.items() if kind.retry == "elsewhere"])
async def test_a_service_error_is_retried_on_another_service(type_: str) -> None:
    async with AsyncExitStack() as stack:
        bad, good = await servers(stack, 2)
        bad.script.failure = Failure(type_)
        pool = await stack.enter_async_context(SttPool([bad.target, good.target]))
        transcript = await pool.transcribe(b"x", request_id="same")
        assert transcript.request_id == "same"
        # Twice: gRPC's own retry comes first.
        assert (len(bad.script.requests), len(good.script.requests)) == (2, 1)
        assert {call.metadata["x-req-id"] for call in bad.script.calls + good.script.calls} == {"same"}


@pytest.mark.parametrize("type_", [type_ for type_, kind in ERRORS.items() if kind.retry != "elsewhere"])
async def test_a_request_error_is_not_retried_on_another_service(type_: str) -> None:
    async with AsyncExitStack() as stack:
        two = await servers(stack, 2, failure=Failure(type_))
        pool = await stack.enter_async_context(SttPool([served.target for served in two]))
        with pytest.raises(SttError) as caught:
            await pool.transcribe(b"x")
        assert caught.value.type == type_
        assert two[1].script.requests == []


async def test_each_service_is_tried_once_and_the_last_error_raised() -> None:
    async with AsyncExitStack() as stack:
        first, second = await servers(stack, 2)
        first.script.failure = Failure("not_ready")
        second.script.failure = Failure("overloaded")
        pool = await stack.enter_async_context(SttPool([first.target, second.target]))
        with pytest.raises(Overloaded):
            await pool.transcribe(b"x")
        assert [len(served.script.requests) for served in (first, second)] == [2, 2]


async def test_a_call_waits_for_a_restarting_service() -> None:
    async with AsyncExitStack() as stack:
        (stopping,) = await servers(stack, 1)
        restarting = await start()
        pool = await stack.enter_async_context(SttPool([stopping.target, restarting.target]))
        await until_serving(pool, stopping.target, restarting.target)
        await restarting.stop()
        stopping.script.failure = Failure("not_ready")
        await stopping.set_serving(False)
        await until_serving(pool)
        call = asyncio.create_task(pool.transcribe(b"x"))
        await asyncio.wait_for(stopping.script.started.wait(), WAIT_S)
        again = await start(address=restarting.target)
        stack.push_async_callback(again.stop)
        assert (await asyncio.wait_for(call, WAIT_S)).text == "hello world"
        assert len(again.script.requests) == 1


async def test_waiting_for_a_restart_respects_the_timeout() -> None:
    async with AsyncExitStack() as stack:
        (stopping,) = await servers(stack, 1)
        pool = await stack.enter_async_context(SttPool([stopping.target]))
        await until_serving(pool, stopping.target)
        stopping.script.failure = Failure("not_ready")
        await stopping.set_serving(False)
        with pytest.raises(NotReady):
            await asyncio.wait_for(pool.transcribe(b"x", timeout=1.0), PATIENCE_S)


async def test_a_call_is_attempted_even_if_no_service_is_serving() -> None:
    async with AsyncExitStack() as stack:
        two = await servers(stack, 2)
        pool = await stack.enter_async_context(SttPool([served.target for served in two]))
        for served in two:
            await served.set_serving(False)
        await until_serving(pool)
        assert (await pool.transcribe(b"x")).text == "hello world"


async def test_an_unreachable_pool_raises_with_advice() -> None:
    async with SttPool(["127.0.0.1:1", "127.0.0.1:2"]) as pool:
        with pytest.raises(UpstreamUnavailable, match="Check that the service runs"):
            await pool.transcribe(b"x")
        with pytest.raises(UpstreamUnavailable):
            await pool.status()


async def test_the_timeout_covers_all_attempts() -> None:
    async with AsyncExitStack() as stack:
        failing, slow = await servers(stack, 2)
        failing.script.failure = Failure("overloaded")
        slow.script.hold = asyncio.Event()
        pool = await stack.enter_async_context(SttPool([failing.target, slow.target]))
        with pytest.raises(DeadlineExceeded):
            await pool.transcribe(b"x", timeout=1.0)
        remaining = slow.script.calls[0].time_remaining
        assert remaining is not None
        assert remaining < 1.0


async def test_a_server_without_health_service_counts_while_connected() -> None:
    async with serving(with_health=False) as served, SttPool([served.target, "127.0.0.1:1"]) as pool:
        await pool.wait_ready(WAIT_S)
        assert (await pool.transcribe(b"x")).text == "hello world"
        await served.stop()
        await until_serving(pool)


async def test_status_is_that_of_a_reachable_service() -> None:
    async with serving() as served, SttPool(["127.0.0.1:1", served.target]) as pool:
        assert (await pool.status()).service == "primary"


async def test_an_invalid_option_sends_no_request() -> None:
    async with serving() as served, SttPool([served.target]) as pool:
        with pytest.raises(ValueError, match="invalid task"):
            await pool.transcribe(b"x", task="sing")
    assert served.script.requests == []


async def test_wait_ready_of_a_pool_counts_services() -> None:
    async with serving() as served, SttPool([served.target, "127.0.0.1:1"]) as pool:
        await pool.wait_ready(WAIT_S)
        with pytest.raises(NotReady, match="needed 2"):
            await pool.wait_ready(0.1, at_least=2)


async def test_closing_the_pool_ends_its_health_watches() -> None:
    async with serving() as served:
        pool = SttPool([served.target, served.target])
        assert pool.targets == (served.target,)
        await pool.transcribe(b"x")
        await pool.close()
        assert all(task.done() for task in pool._members._tasks)
        with pytest.raises(RuntimeError, match="closed"):
            await pool.transcribe(b"x")
        await pool.close()


async def test_the_key_is_sent_to_each_service() -> None:
    failing = Script(failure=Failure("invalid_argument"))
    async with serving(failing) as served, SttPool([served.target], api_key="k") as pool:
        with pytest.raises(InvalidArgument):
            await pool.transcribe(b"x")
    assert served.script.calls[0].metadata["authorization"] == "Bearer k"
