"""`SyncSttClient` in threads, against a scripted server in the test's event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stt_client import CallRecord, SyncSttClient
from stt_client.errors import Cancelled, InvalidArgument
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving

WAIT_S = 20


async def test_every_method_answers() -> None:
    def use(target: str) -> None:
        with SyncSttClient(target, api_key="k") as client:
            client.wait_ready(WAIT_S)
            assert client.health()
            assert client.transcribe(b"x", language="en", timeout=5).text == "hello world"
            assert client.status().service == "primary"
            assert client.metrics().exposition.startswith("stt_")
            assert client.latency.count == 1
            assert client.target == target

    async with serving() as served:
        await asyncio.to_thread(use, served.target)
    assert served.script.requests[0].options.language == "en"
    assert served.script.calls[0].metadata["authorization"] == "Bearer k"


async def test_many_threads_share_one_client() -> None:
    def use(client: SyncSttClient) -> list[str]:
        with ThreadPoolExecutor(8) as threads:
            done = threads.map(lambda n: client.transcribe(str(n).encode(), request_id=f"n{n}"), range(32))
            return [transcript.request_id for transcript in done]

    async with serving() as served:
        client = SyncSttClient(served.target)
        ids = await asyncio.to_thread(use, client)
        await asyncio.to_thread(client.close)
    assert ids == [f"n{n}" for n in range(32)]


async def test_errors_are_those_of_the_asyncio_client() -> None:
    async with serving(Script(failure=Failure("invalid_argument", "no such language"))) as served:
        client = SyncSttClient(served.target)
        with pytest.raises(InvalidArgument, match="no such language"):
            await asyncio.to_thread(client.transcribe, b"x")
        with pytest.raises(FileNotFoundError):
            await asyncio.to_thread(client.transcribe, "/no/such/file.wav")
        await asyncio.to_thread(client.close)


async def test_closing_ends_a_call_in_another_thread() -> None:
    script = Script(hold=asyncio.Event())
    async with serving(script) as served:
        client = SyncSttClient(served.target)
        call = asyncio.create_task(asyncio.to_thread(client.transcribe, b"x"))
        await asyncio.wait_for(script.started.wait(), WAIT_S)
        await asyncio.to_thread(client.close)
        with pytest.raises(Cancelled):
            await call
        with pytest.raises(RuntimeError, match="closed"):
            client.status()
        client.close()
    assert "stt-client" not in {thread.name for thread in threading.enumerate()}


async def test_a_telemetry_hook_that_calls_its_client_gets_an_error() -> None:
    caught: list[Exception] = []

    def hook(record: CallRecord) -> None:
        try:
            client.status()
        except RuntimeError as error:
            caught.append(error)

    async with serving() as served:
        client = SyncSttClient(served.target, telemetry=hook)
        await asyncio.to_thread(client.transcribe, b"x")
        await asyncio.to_thread(client.close)
    assert "telemetry hook" in str(caught[0])
