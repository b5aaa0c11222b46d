"""SIGTERM and SIGINT under load: accepted requests get an answer or an error, and the service exits in time."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from stt_client import SttClient
from stt_client.errors import NotReady
from stt_server.testing.paths import SPEECH
from stt_server.testing.processes import free_port
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.callers import (
    NOT_SERVING,
    SERVING,
    http,
    post,
    rest,
    say,
    socket_to,
    streaming,
    until_in_flight,
    until_started,
    watched,
)
from tests.support.speech import samples_of
from tests.support.streams import finals

TEXT = Script().text
ENDING_S = 30.0
"""Longest exit, in seconds, once nothing is left to drain; far less than what an exit must not wait for."""


def primary(folder: Path, script: Script, **keys: Any) -> ServiceProcess:
    return ServiceProcess("primary", folder, {"MAX_CONCURRENCY": 2, "MAX_BATCH_SIZE": 1, **keys}, script)


async def test_drain_answers_accepted_requests_and_finishes_streams(tmp_path: Path) -> None:
    each, drain_s = 8, 20  # half of it is left to streams for the end of their utterance
    process = primary(tmp_path, Script(seconds=2), DRAIN_TIMEOUT_S=drain_s, STREAM_IDLE_TIMEOUT_S=300)
    speech = samples_of(SPEECH)[:32000]  # mid-sentence: no pause ends the utterance
    with running(process):
        async with SttClient(process.target) as client, http(process) as rest_client, watched(process) as states:
            assert await anext(states) == SERVING
            async with streaming(process) as one, socket_to(process) as socket:
                await one.send_audio(speech)
                await say(socket, speech)
                await one.next("started")
                await until_started(socket)
                calls = [asyncio.ensure_future(client.transcribe(SPEECH)) for _ in range(each)]
                posts = [asyncio.ensure_future(post(rest_client)) for _ in range(each)]
                await until_in_flight(rest_client, 2 * each + 2)
                process.send(signal.SIGTERM)
                assert await anext(states) == NOT_SERVING
                assert not all(call.done() for call in calls), "no request was left to drain"
                process.act(Script())
                began = time.monotonic()
                process.send(signal.SIGTERM)  # a repeated SIGTERM, as supervisors send, does not shorten the drain
                assert {answer.text for answer in await asyncio.gather(*calls)} == {TEXT}
                answers = {
                    (answer.status_code, answer.headers.get("connection")) for answer in await asyncio.gather(*posts)
                }
                assert answers == {(200, "close")}, "a connection that is kept would be cut while it is used"
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await one.rest()
                assert [final.result.text for final in finals(one.responses)] == [TEXT]
                assert dict(ended.value.trailing_metadata() or ())["x-error-type"] == "not_ready"
                events, code = await rest(socket)
                assert [each["final"]["result"]["text"] for each in events if "final" in each] == [TEXT]
                assert (events[-1]["error"]["type"], code) == ("not_ready", 1012)
                # The health watch is still open here, and must not delay the exit.
                assert await asyncio.to_thread(process.wait) == 0
        assert time.monotonic() - began < drain_s
    assert "drain timed out" not in process.log_text()


@pytest.mark.parametrize("how", ["it takes longer than DRAIN_TIMEOUT_S", "Ctrl-C is pressed again"])
async def test_requests_cut_off_by_the_drain_get_an_error(tmp_path: Path, how: str) -> None:
    hurried = "Ctrl-C" in how
    drain_s = 2 * ENDING_S if hurried else 6
    process = primary(tmp_path, Script(seconds=600), DRAIN_TIMEOUT_S=drain_s)
    with running(process):
        async with (
            SttClient(process.target, timeout=120) as client,
            http(process) as rest_client,
            streaming(process, single_utterance=True) as live,
            socket_to(process) as socket,
        ):
            await live.send_audio(samples_of(SPEECH))
            await live.call.done_writing()
            await say(socket, samples_of(SPEECH))
            await socket.send('{"end": {}}')
            call = asyncio.ensure_future(client.transcribe(SPEECH))
            request = asyncio.ensure_future(post(rest_client))
            await until_in_flight(rest_client, 4)
            process.send(signal.SIGINT if hurried else signal.SIGTERM)
            if hurried:
                async with watched(process) as states:
                    assert await anext(states) == NOT_SERVING
                process.send(signal.SIGINT)
            began = time.monotonic()
            with pytest.raises(NotReady, match="stopped"):
                await call
            answer = await request
            assert (answer.status_code, answer.json()["error"]["type"]) == (503, "not_ready")
            assert "retry-after" in answer.headers
            status, kind, _ = await live.failure()
            assert (status, kind) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
            events, code = await rest(socket)
            assert (events[-1]["error"]["type"], code) == ("not_ready", 1012)
            # The inference continues in its thread, and does not delay the exit.
            assert await asyncio.to_thread(process.wait) == 0
        assert time.monotonic() - began < (0 if hurried else drain_s) + ENDING_S
    assert "drain timed out: 4 calls were cut off" in process.log_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_loading_its_model_exits_at_once(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    process = primary(tmp_path, Script(load_seconds=600), GRPC_PORT=port)
    process.grpc_port = port
    process.spawn()
    try:
        async with watched(process) as states, SttClient(process.target) as client:
            assert await anext(states) == NOT_SERVING
            with pytest.raises(NotReady, match="starting"):
                await client.transcribe(SPEECH)
            began = time.monotonic()
            process.send(number)
            assert await asyncio.to_thread(process.wait) == 0
        assert time.monotonic() - began < ENDING_S
        assert "Traceback" not in process.log_text()
    finally:
        process.kill()
