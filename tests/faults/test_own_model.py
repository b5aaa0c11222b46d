"""Failures of the service's own model: the fallback answers, if there is one. If nothing works any more, the process
exits for its supervisor to restart it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from stt_client import SttClient
from stt_server.engine.health.model_health import FAILURES_BEFORE_PROBE
from stt_server.testing.scripted_model import Failure, Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.callers import NOT_SERVING, SERVING, http, until_in_flight, watched
from tests.faults.replies import TRANSPORTS, Reply

SMALL, MEDIUM = "the small text is here", "the medium text is here"


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess("fallback", tmp_path_factory.mktemp("fallback"), {}, Script(text=MEDIUM))
    with running(process):
        yield process


@pytest.fixture
def primary(tmp_path: Path, fallback: ServiceProcess) -> Iterator[ServiceProcess]:
    """A primary with high confidence, so that only its failures reach the fallback."""
    process = ServiceProcess(
        "primary", tmp_path / "primary", {"FALLBACK_URL": f"grpc://{fallback.target}"}, Script(text=SMALL)
    )
    with running(process):
        yield process


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A primary without a fallback."""
    process = ServiceProcess("primary", tmp_path / "alone", {}, Script(text=SMALL))
    with running(process):
        yield process


async def transcribe_over_both(process: ServiceProcess, times: int = 1) -> list[Reply]:
    """Replies over gRPC and REST, in turn."""
    return [await transcribe(process) for _ in range(times) for transcribe in TRANSPORTS]


async def failures(process: ServiceProcess) -> dict[str, int]:
    """`stt_engine_failures_total` by kind, without zeros."""
    async with SttClient(process.target) as client:
        exposition = (await client.metrics()).exposition
    found = re.findall(r'stt_engine_failures_total\{kind="(\w+)"\} ([0-9.]+)', exposition)
    return {kind: int(float(count)) for kind, count in found if float(count)}


async def test_the_fallback_answers_for_a_failing_model(primary: ServiceProcess) -> None:
    errors: tuple[Failure, ...] = ("engine", "out_of_memory", "bug")
    for error in errors:
        primary.act(Script(error=error))
        assert {(reply.http, reply.text) for reply in await transcribe_over_both(primary)} == {(200, MEDIUM)}
        primary.act(Script(text=SMALL))
        assert {(reply.http, reply.text) for reply in await transcribe_over_both(primary)} == {(200, SMALL)}
    assert await failures(primary) == {"engine": 2, "out_of_memory": 2, "unexpected": 2}
    assert primary.stop() == 0


async def test_without_a_fallback_errors_hide_device_messages(alone: ServiceProcess) -> None:
    expected: dict[Failure, tuple[int, str]] = {
        "engine": (500, "internal"),
        "out_of_memory": (503, "out_of_memory"),
        "bug": (500, "internal"),
    }
    for error, failure in expected.items():
        alone.act(Script(error=error))
        replies = await transcribe_over_both(alone)
        assert {(reply.http, reply.error_type) for reply in replies} == {failure}
        assert not any("/some/path" in reply.shown for reply in replies)
        alone.act(Script(text=SMALL))
        assert {reply.text for reply in await transcribe_over_both(alone)} == {SMALL}
    assert alone.stop() == 0


async def test_a_recording_that_breaks_models_stops_no_service(alone: ServiceProcess) -> None:
    """Repeated failures; a second of silence shows that the model still works."""
    alone.act(Script(error="engine", spares_silence=True))
    assert {reply.http for reply in await transcribe_over_both(alone, 2 * FAILURES_BEFORE_PROBE)} == {500}
    alone.act(Script(text=SMALL))
    assert {reply.text for reply in await transcribe_over_both(alone)} == {SMALL}
    assert alone.stop() == 0


@pytest.mark.parametrize("error", ["cuda", "cublas"])
async def test_a_lost_device_ends_the_service_and_loses_no_request(
    primary: ServiceProcess, error: Literal["cuda", "cublas"]
) -> None:
    primary.act(Script(seconds=2))
    async with watched(primary) as states:
        assert await anext(states) == SERVING
        calls = [asyncio.ensure_future(transcribe(primary)) for transcribe in TRANSPORTS * 4]
        async with http(primary) as client:
            await until_in_flight(client, len(calls))
        primary.act(Script(error=error))
        replies = await asyncio.gather(*calls)
        assert await anext(states) == NOT_SERVING
    assert {reply.http for reply in replies} == {200}
    assert MEDIUM in {reply.text for reply in replies}
    assert await asyncio.to_thread(primary.wait) == 1
    last = primary.log_text().splitlines()[-1]
    assert last.startswith("stt-primary: the model is lost; restart the service: ")
    assert "Traceback" not in primary.log_text()
    primary.restart()
    assert {reply.http for reply in await transcribe_over_both(primary)} == {200}


async def test_a_model_that_fails_on_silence_is_lost(alone: ServiceProcess) -> None:
    alone.act(Script(error="out_of_memory"))
    for _ in range(FAILURES_BEFORE_PROBE):
        reply = await TRANSPORTS[0](alone)
        assert (reply.http, reply.error_type) in {(503, "out_of_memory"), (503, "not_ready")}
    assert await asyncio.to_thread(alone.wait) == 1
    assert alone.log_text().splitlines()[-1].startswith("stt-primary: the model is lost")
