"""The fallback behind its circuit breaker: real gRPC servers that stand still, refuse, and talk nonsense."""

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


class Toy(speech_pb2_grpc.SpeechToTextServicer):
    """A fallback that does as it is told; `open` cleared, nothing of it answers anything."""

    def __init__(self) -> None:
        self.calls = 0
        self.left = 0
        """Calls whose caller went away."""
        self.behaviour: Behaviour | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def Transcribe(self, request: pb.TranscribeRequest, context: Any) -> pb.TranscribeResponse:
        self.calls += 1
        try:
            await self.open.wait()
            return GOOD if self.behaviour is None else await self.behaviour(context)
        except asyncio.CancelledError:
            self.left += 1
            raise

    def StreamTranscribe(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError


class ToyHealth(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self._toy = toy

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:
        await self._toy.open.wait()
        return await super().Check(request, context)


@asynccontextmanager
async def served(toy: Toy, port: int = 0, knows_health: bool = True) -> AsyncIterator[tuple[int, ToyHealth]]:
    server = grpc.aio.server(options=UNLIMITED)
    speech_pb2_grpc.add_SpeechToTextServicer_to_server(toy, server)
    servicer = ToyHealth(toy)
    await servicer.set("stt.v1.SpeechToText", HealthCheckResponse.SERVING)
    if knows_health:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port, servicer
    finally:
        toy.open.set()
        await server.stop(0)


class States(list[str]):
    """Every state that a circuit was in; can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def moved(self, state: str) -> None:
        self.append(state)
        self._news.set()

    async def until(self, state: str) -> None:
        while self[-1] != state:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 20)


@asynccontextmanager
async def circuit_to(port: int, fair_s: float = 0.05) -> AsyncIterator[tuple[Circuit, States]]:
    states = States()
    circuit = Circuit(FallbackStub(f"127.0.0.1:{port}", max_upload_bytes=2**20), fair_s, states.moved)
    try:
        yield circuit, states
    finally:
        await circuit.close()


async def code_of(circuit: Circuit, timeout_s: float = 20) -> str:
    """Why a call fails; empty: it doesn't."""
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


def answering(response: pb.TranscribeResponse) -> Behaviour:
    async def behave(context: Any) -> pb.TranscribeResponse:
        return response

    return behave


async def test_calls_in_flight_fail_soon_when_nothing_answers_any_more_and_the_next_ones_at_once() -> None:
    toy = Toy()
    async with served(toy) as (port, _), circuit_to(port) as (circuit, states):
        assert await code_of(circuit) == ""
        toy.open.clear()
        began = time.monotonic()
        assert set(await asyncio.gather(*(code_of(circuit, 60) for _ in range(5)))) == {"unavailable"}
        assert time.monotonic() - began < 10
        assert states == ["closed", "open"]
        began = time.monotonic()
        assert {await code_of(circuit, 60) for _ in range(20)} == {"circuit_open"}
        assert time.monotonic() - began < 1
        assert toy.calls == 6, "who is refused asks nobody"
        toy.open.set()
        await states.until("closed")
        assert await code_of(circuit) == ""


async def test_a_slow_fallback_that_answers_health_checks_is_left_alone() -> None:
    toy = Toy()
    slow = asyncio.Event()

    async def behave(context: Any) -> pb.TranscribeResponse:
        await slow.wait()
        return GOOD

    toy.behaviour = behave
    async with served(toy) as (port, _), circuit_to(port) as (circuit, states):
        call = asyncio.ensure_future(code_of(circuit, 60))
        await asyncio.wait({call}, timeout=4)
        assert not call.done()
        slow.set()
        assert await call == ""
        assert states == ["closed"]


async def test_a_fallback_that_ended_is_noticed_by_the_first_call_and_its_return_without_one() -> None:
    toy = Toy()
    async with served(toy) as (port, _):
        pass
    async with circuit_to(port) as (circuit, states):
        began = time.monotonic()
        assert await code_of(circuit, 60) == "unavailable"
        await states.until("open")
        assert await code_of(circuit, 60) == "circuit_open"
        assert time.monotonic() - began < 5
        async with served(toy, port):
            await states.until("closed")
            assert toy.calls == 0
            assert await code_of(circuit) == ""


async def test_one_that_stops_takes_no_new_calls_and_answers_those_it_has() -> None:
    toy = Toy()
    done = asyncio.Event()

    async def behave(context: Any) -> pb.TranscribeResponse:
        await done.wait()
        return GOOD

    toy.behaviour = behave
    async with served(toy) as (port, servicer), circuit_to(port) as (circuit, states):
        accepted = asyncio.ensure_future(code_of(circuit, 60))
        await until(lambda: toy.calls)
        await servicer.set("stt.v1.SpeechToText", HealthCheckResponse.NOT_SERVING)
        await states.until("open")
        assert await code_of(circuit, 60) == "circuit_open"
        done.set()
        assert await accepted == ""
        await servicer.set("stt.v1.SpeechToText", HealthCheckResponse.SERVING)
        await states.until("closed")


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (refusing(grpc.StatusCode.INTERNAL, "internal"), "internal"),
        (refusing(grpc.StatusCode.UNIMPLEMENTED), "unimplemented"),
        (refusing(grpc.StatusCode.UNKNOWN, "a_type_that_nobody_knows"), "internal"),
        (answering(pb.TranscribeResponse()), "invalid_answer"),
        (
            answering(pb.TranscribeResponse(routing=pb.Routing(final_model="m", fallback_confidence=math.nan))),
            "invalid_answer",
        ),
        (answering(pb.TranscribeResponse(text="x" * 2**23, routing=pb.Routing(final_model="m"))), "invalid_answer"),
    ],
)
async def test_one_that_talks_nonsense_is_asked_no_more_until_one_call_has_tried_it(
    monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, code: str
) -> None:
    monkeypatch.setattr("stt_server.cascade.breaker.COOL_DOWN_S", 0.2)
    monkeypatch.setattr("stt_server.cascade.circuit.CHECK_OPEN_S", 0.1)
    toy = Toy()
    toy.behaviour = behaviour
    async with served(toy, knows_health=code != "unimplemented") as (port, _), circuit_to(port) as (circuit, states):
        assert [await code_of(circuit) for _ in range(FAILURES_TO_OPEN + 1)] == [code] * FAILURES_TO_OPEN + [
            "circuit_open"
        ]
        await states.until("half_open")
        toy.behaviour = None
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
async def test_what_it_has_a_right_to_refuse_stays_in_sight(status: grpc.StatusCode, type_: str) -> None:
    toy = Toy()
    toy.behaviour = refusing(status, type_)
    async with served(toy) as (port, _), circuit_to(port) as (circuit, states):
        assert {await code_of(circuit) for _ in range(3 * FAILURES_TO_OPEN)} == {type_}
        assert states == ["closed"]


async def test_callers_in_a_hurry_say_nothing_of_it_and_fair_ones_do() -> None:
    toy = Toy()
    never = asyncio.Event()

    async def behave(context: Any) -> pb.TranscribeResponse:
        await never.wait()
        return GOOD

    toy.behaviour = behave
    async with served(toy) as (port, _), circuit_to(port, fair_s=0.2) as (circuit, states):
        assert {await code_of(circuit, 0.02) for _ in range(3 * FAILURES_TO_OPEN)} == {"deadline_exceeded"}
        assert states == ["closed"]
        assert {await code_of(circuit, 0.2) for _ in range(FAILURES_TO_OPEN)} == {"deadline_exceeded"}
        assert await code_of(circuit) == "circuit_open"


async def test_a_caller_that_leaves_ends_the_fallbacks_work_and_counts_for_nothing() -> None:
    toy = Toy()
    never = asyncio.Event()

    async def behave(context: Any) -> pb.TranscribeResponse:
        await never.wait()
        return GOOD

    toy.behaviour = behave
    async with served(toy) as (port, _), circuit_to(port) as (circuit, states):
        calls = [asyncio.ensure_future(code_of(circuit, 60)) for _ in range(2 * FAILURES_TO_OPEN)]
        await until(lambda: toy.calls == len(calls))
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await until(lambda: toy.left == len(calls))
        toy.behaviour = None
        assert await code_of(circuit) == ""
        assert states == ["closed"]


async def test_nobody_has_to_call_for_a_fallback_that_is_away_to_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_server.cascade.circuit.CHECK_IDLE_S", 0.1)
    toy = Toy()
    async with served(toy) as (port, _):
        pass
    async with circuit_to(port) as (_, states):
        await states.until("open")
