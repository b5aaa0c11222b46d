"""The circuit breaker in front of real gRPC servers that hang, refuse and answer nonsense."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.audio import AudioFormat
from stt_server.cascade.breaker import FAILURES_TO_OPEN
from stt_server.cascade.circuit import Circuit
from stt_server.cascade.fallback import FallbackError
from stt_server.engine.types import DecodeOptions
from stt_server.request import Request, Upload
from stt_server.rpc.fallback_stub import FallbackStub
from stt_server.testing.services import UNLIMITED
from tests.support.services import until

REQUEST = Request(Upload(b"sound", AudioFormat("container", 0)), DecodeOptions(), "id-1")
GOOD = pb.TranscribeResponse(text="done", routing=pb.Routing(final_model="medium"))
Behaviour = Callable[[Any], Awaitable[pb.TranscribeResponse]]


class ScriptedFallback(speech_pb2_grpc.SpeechToTextServicer):
    """A scripted fallback; while `open` is cleared, it answers neither calls nor health checks."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        """Calls that were cancelled."""
        self.behaviour: Behaviour | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def Transcribe(self, request: pb.TranscribeRequest, context: Any) -> pb.TranscribeResponse:
        self.calls += 1
        try:
            await self.open.wait()
            return GOOD if self.behaviour is None else await self.behaviour(context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def StreamTranscribe(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError


class ScriptedHealth(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    def __init__(self, fallback: ScriptedFallback) -> None:
        super().__init__()
        self._fallback = fallback

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:
        await self._fallback.open.wait()
        return await super().Check(request, context)


@asynccontextmanager
async def served(
    fallback: ScriptedFallback, port: int = 0, has_health: bool = True
) -> AsyncIterator[tuple[int, ScriptedHealth]]:
    server = grpc.aio.server(options=UNLIMITED)
    speech_pb2_grpc.add_SpeechToTextServicer_to_server(fallback, server)
    servicer = ScriptedHealth(fallback)
    await servicer.set("stt.v1.SpeechToText", HealthCheckResponse.SERVING)
    if has_health:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port, servicer
    finally:
        fallback.open.set()
        await server.stop(0)


class States(list[str]):
    """Every state that a circuit was in."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def add(self, state: str) -> None:
        self.append(state)
        self._changed.set()

    async def until(self, state: str) -> None:
        while self[-1] != state:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 20)


@asynccontextmanager
async def circuit_to(port: int, min_timeout_s: float = 0.05) -> AsyncIterator[tuple[Circuit, States]]:
    states = States()
    circuit = Circuit(FallbackStub(f"127.0.0.1:{port}", max_upload_bytes=2**20), min_timeout_s, states.add)
    try:
        yield circuit, states
    finally:
        await circuit.close()


async def code_of(circuit: Circuit, timeout_s: float = 20) -> str:
    """The error code of a call; empty if it succeeds."""
    try:
        answer = await circuit.transcribe(REQUEST, timeout_s)
    except FallbackError as error:
        return error.code
    assert answer.text == "done"
    return ""


def refusing(status: grpc.StatusCode, type_: str = "") -> Behaviour:
    async def behave(context: Any) -> pb.TranscribeResponse:
        trailers = (("x-error-type", type_), ("grpc-retry-pushback-ms", "-1")) if type_ else ()
        await context.abort(status, "secret text", trailers)
        raise AssertionError

    return behave


def waiting_for(released: asyncio.Event) -> Behaviour:
    async def behave(context: Any) -> pb.TranscribeResponse:
        await released.wait()
        return GOOD

    return behave


def answering(response: pb.TranscribeResponse) -> Behaviour:
    async def behave(context: Any) -> pb.TranscribeResponse:
        return response

    return behave


async def test_silent_fallback_fails_calls_soon_and_later_ones_at_once() -> None:
    fallback = ScriptedFallback()
    async with served(fallback) as (port, _), circuit_to(port) as (circuit, states):
        assert await code_of(circuit) == ""
        fallback.open.clear()
        began = time.monotonic()
        assert set(await asyncio.gather(*(code_of(circuit, 60) for _ in range(5)))) == {"unavailable"}
        assert time.monotonic() - began < 10
        assert states == ["closed", "open"]
        began = time.monotonic()
        assert {await code_of(circuit, 60) for _ in range(20)} == {"circuit_open"}
        assert time.monotonic() - began < 1
        assert fallback.calls == 6, "refused calls do not reach the fallback"
        fallback.open.set()
        await states.until("closed")
        assert await code_of(circuit) == ""


async def test_slow_but_healthy_fallback_keeps_the_circuit_closed() -> None:
    fallback = ScriptedFallback()
    released = asyncio.Event()
    fallback.behaviour = waiting_for(released)
    async with served(fallback) as (port, _), circuit_to(port) as (circuit, states):
        call = asyncio.ensure_future(code_of(circuit, 60))
        await asyncio.wait({call}, timeout=4)
        assert not call.done()
        released.set()
        assert await call == ""
        assert states == ["closed"]


async def test_outage_opens_on_the_first_call_and_recovery_closes() -> None:
    fallback = ScriptedFallback()
    async with served(fallback) as (port, _):
        pass
    async with circuit_to(port) as (circuit, states):
        began = time.monotonic()
        assert await code_of(circuit, 60) == "unavailable"
        await states.until("open")
        assert await code_of(circuit, 60) == "circuit_open"
        assert time.monotonic() - began < 5
        async with served(fallback, port):
            await states.until("closed")
            assert fallback.calls == 0
            assert await code_of(circuit) == ""


async def test_draining_fallback_answers_its_calls_and_gets_no_new() -> None:
    fallback = ScriptedFallback()
    released = asyncio.Event()
    fallback.behaviour = waiting_for(released)
    async with served(fallback) as (port, servicer), circuit_to(port) as (circuit, states):
        accepted = asyncio.ensure_future(code_of(circuit, 60))
        await until(lambda: fallback.calls)
        await servicer.set("stt.v1.SpeechToText", HealthCheckResponse.NOT_SERVING)
        await states.until("open")
        assert await code_of(circuit, 60) == "circuit_open"
        released.set()
        assert await accepted == ""
        await servicer.set("stt.v1.SpeechToText", HealthCheckResponse.SERVING)
        await states.until("closed")


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (refusing(grpc.StatusCode.INTERNAL, "internal"), "internal"),
        (refusing(grpc.StatusCode.UNIMPLEMENTED), "unimplemented"),
        (refusing(grpc.StatusCode.UNKNOWN, "unknown_type"), "internal"),
        (answering(pb.TranscribeResponse()), "invalid_answer"),
        (
            answering(pb.TranscribeResponse(routing=pb.Routing(final_model="m", fallback_confidence=math.nan))),
            "invalid_answer",
        ),
        (answering(pb.TranscribeResponse(text="x" * 2**23, routing=pb.Routing(final_model="m"))), "invalid_answer"),
    ],
)
async def test_invalid_answers_open_the_circuit_until_a_trial_call(
    monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, code: str
) -> None:
    monkeypatch.setattr("stt_server.cascade.breaker.COOL_DOWN_S", 0.2)
    monkeypatch.setattr("stt_server.cascade.circuit.CHECK_OPEN_S", 0.1)
    fallback = ScriptedFallback()
    fallback.behaviour = behaviour
    async with served(fallback, has_health=code != "unimplemented") as (port, _), circuit_to(port) as (circuit, states):
        assert [await code_of(circuit) for _ in range(FAILURES_TO_OPEN + 1)] == [code] * FAILURES_TO_OPEN + [
            "circuit_open"
        ]
        await states.until("half_open")
        fallback.behaviour = None
        assert await code_of(circuit) == ""
        assert states == ["closed", "open", "half_open", "closed"]


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited"),
        (grpc.StatusCode.UNAVAILABLE, "overloaded"),
        (grpc.StatusCode.INVALID_ARGUMENT, "audio_too_long"),
    ],
)
async def test_legitimate_refusals_keep_the_circuit_closed(status: grpc.StatusCode, type_: str) -> None:
    fallback = ScriptedFallback()
    fallback.behaviour = refusing(status, type_)
    async with served(fallback) as (port, _), circuit_to(port) as (circuit, states):
        assert {await code_of(circuit) for _ in range(3 * FAILURES_TO_OPEN)} == {type_}
        assert states == ["closed"]


async def test_only_timeouts_of_patient_calls_open_the_circuit() -> None:
    fallback = ScriptedFallback()
    fallback.behaviour = waiting_for(asyncio.Event())
    async with served(fallback) as (port, _), circuit_to(port, min_timeout_s=0.2) as (circuit, states):
        assert {await code_of(circuit, 0.02) for _ in range(3 * FAILURES_TO_OPEN)} == {"deadline_exceeded"}
        assert states == ["closed"]
        assert {await code_of(circuit, 0.2) for _ in range(FAILURES_TO_OPEN)} == {"deadline_exceeded"}
        assert await code_of(circuit) == "circuit_open"


async def test_cancelled_calls_reach_the_fallback_and_do_not_count() -> None:
    fallback = ScriptedFallback()
    fallback.behaviour = waiting_for(asyncio.Event())
    async with served(fallback) as (port, _), circuit_to(port) as (circuit, states):
        calls = [asyncio.ensure_future(code_of(circuit, 60)) for _ in range(2 * FAILURES_TO_OPEN)]
        await until(lambda: fallback.calls == len(calls))
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await until(lambda: fallback.cancelled == len(calls))
        fallback.behaviour = None
        assert await code_of(circuit) == ""
        assert states == ["closed"]


async def test_idle_health_checks_notice_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_server.cascade.circuit.CHECK_IDLE_S", 0.1)
    fallback = ScriptedFallback()
    async with served(fallback) as (port, _):
        pass
    async with circuit_to(port) as (_, states):
        await states.until("open")
