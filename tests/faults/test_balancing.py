"""Envoy and HAProxy in front of three primaries under load: one drained, one killed, one slow."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from protos.stt.v1.errors import ERRORS
from stt_client import SttClient
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.balancers import CONFIGS, Front, Kind, Ledger, balancer, connected, loaded
from tests.faults.callers import PATIENCE_S, http
from tests.support.observing import eventually
from tests.support.services import speech

TEXT = "the quick brown fox"
FAST = Script(text=TEXT, seconds=0.02)


@pytest.fixture(scope="module")
def primaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServiceProcess, ...]]:
    folder = tmp_path_factory.mktemp("primaries")
    found = tuple(ServiceProcess("primary", folder / str(n), {"DRAIN_TIMEOUT_S": 30}, FAST) for n in (1, 2, 3))
    with running(*found):
        yield found


@pytest.fixture(scope="module", params=["envoy", "haproxy"])
def started(
    request: pytest.FixtureRequest, primaries: tuple[ServiceProcess, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    kind: Kind = request.param
    with balancer(kind, primaries, tmp_path_factory.mktemp(kind)) as found:
        yield found


@pytest_asyncio.fixture
async def front(started: Front, primaries: tuple[ServiceProcess, ...]) -> Front:
    """The balancer, once it sends calls of both ports to every primary."""
    async with connected(started) as callers:
        for call in (callers.unary, callers.rest):

            async def all_answer(call: Callable[[str], Awaitable[list[str]]] = call) -> bool:
                assert started.process.running, started.process.log_text()
                before = [await requests_of(primary) for primary in primaries]
                answers = await asyncio.gather(*(call("ready") for _ in range(9)), return_exceptions=True)
                after = [await requests_of(primary) for primary in primaries]
                return answers == [[f"{TEXT} ready"]] * 9 and all(a > b for a, b in zip(after, before))

            await eventually(all_answer, True, PATIENCE_S)
    return started


async def requests_of(primary: ServiceProcess) -> int:
    async with http(primary) as client:
        return int((await client.get("/v1/metrics")).json()["requests"]["total"])


async def shares(primaries: tuple[ServiceProcess, ...], before: list[int]) -> list[float]:
    counts = [await requests_of(primary) - start for primary, start in zip(primaries, before)]
    return [each / sum(counts) for each in counts]


async def test_calls_are_spread_over_all(front: Front, primaries: tuple[ServiceProcess, ...]) -> None:
    before = [await requests_of(primary) for primary in primaries]
    async with loaded(front, TEXT) as ledger:
        await ledger.more(25)
    assert ledger.failed() == {}
    assert min(await shares(primaries, before)) > 0.15


async def test_drained_primary_fails_no_call(front: Front, primaries: tuple[ServiceProcess, ...]) -> None:
    async with loaded(front, TEXT) as ledger:
        await ledger.more()
        assert await asyncio.to_thread(primaries[0].stop) == 0
        await ledger.more()
        await asyncio.to_thread(primaries[0].restart)
        await ledger.more()
    broken = ledger.failed()
    # A stream that is open when the drain begins may be told to reconnect and resume. One that begins just then may be
    # refused: Envoy repeats only requests that are complete. gRPC's Python client reports the refusal of a stream that
    # is being written to as a failed write (the SDK finds the status).
    assert set(broken) <= {"stream", "WebSocket"}, broken
    retryable = re.compile("reconnect|HTTP 503|StatusCode.UNAVAILABLE|SendMessageOperation")
    assert all(retryable.search(failure) for failures in broken.values() for failure in failures), broken


async def test_killed_primary_breaks_only_its_streams(front: Front, primaries: tuple[ServiceProcess, ...]) -> None:
    async with loaded(front, TEXT) as ledger:
        await ledger.more()
        primaries[1].kill()
        await ledger.more()
        await asyncio.to_thread(primaries[1].restart)
        await ledger.more()
    broken = ledger.failed()
    assert set(broken) <= {"stream", "WebSocket"}, broken
    assert all(len(failures) <= 4 for failures in broken.values()), broken


async def test_slow_primary_gets_fewer_calls(front: Front, primaries: tuple[ServiceProcess, ...]) -> None:
    slow = primaries[2]
    slow.act(Script(text=TEXT, seconds=1.0))
    try:
        async with loaded(front, TEXT) as ledger:
            await ledger.more()
            before = [await requests_of(primary) for primary in primaries]
            await ledger.more(25)
            *others, share = await shares(primaries, before)
    finally:
        slow.act(FAST)
    assert ledger.failed() == {}
    assert share < min(others) / 2


async def test_sdk_balances_without_a_proxy(primaries: tuple[ServiceProcess, ...]) -> None:
    target = f"ipv4:{','.join(primary.target for primary in primaries)}"
    ledger = Ledger(TEXT)
    async with SttClient(target) as client:

        async def call(mark: str) -> list[str]:
            return [(await client.transcribe(speech(), prompt=mark)).text]

        assert await client.transcribe(speech())  # connected
        tasks = [asyncio.ensure_future(ledger.repeat("SDK", call)) for _ in range(4)]
        await asyncio.sleep(0)
        await ledger.more(20)
        before = [await requests_of(primary) for primary in primaries]
        await ledger.more(40)
        share = await shares(primaries, before)
        primaries[0].kill()
        await ledger.more(20)
        ledger.over.set()
        await asyncio.gather(*tasks)
    await asyncio.to_thread(primaries[0].restart)
    assert ledger.failed() == {}
    assert min(share) > 0.15


def test_envoy_repeats_only_what_the_error_table_allows() -> None:
    found: dict[str, Any] = yaml.safe_load((CONFIGS / "envoy.yaml").read_text())
    elsewhere = {kind.type for kind in ERRORS.values() if kind.retry == "elsewhere" and kind.status}
    allowed = {type_ for type_ in elsewhere if not ERRORS[type_].pushed_back}
    patterns = re.findall(r"'regex': '([^']+)'", str(found))
    assert patterns
    assert all(set(pattern.split("|")) == allowed for pattern in patterns)
