"""Services with the production wiring and a scripted model, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from gateway.embedded import make_gateway
from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.app import Service
from stt_server.config import Role, parse
from stt_server.engine.types import Recognizer
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import ScriptedModel
from stt_server.testing.services import MODEL_KEYS, UNLIMITED, make_model_folder


def speech() -> bytes:
    """A clip of real speech, 2.9 s, as WAV."""
    return SPEECH.read_bytes()


def settings_text(folder: Path, service: Role, **keys: object) -> str:
    """Text of an .env file for a service with a scripted model, on free ports of 127.0.0.1."""
    values: dict[str, object] = {
        MODEL_KEYS[service]: make_model_folder(folder / f"scripted-{service}"),
        "DEVICE": "cpu",
        "HOST": "127.0.0.1",
        "GRPC_PORT": 0,
        "HTTP_PORT": "off",
        "RATE_LIMIT_RPS": 0,
        "DRAIN_TIMEOUT_S": 5,
        "MAX_CONCURRENCY": 2,
    }
    values.update(keys)
    return "".join(f"{name}={value}\n" for name, value in values.items())


@asynccontextmanager
async def running(
    folder: Path, service: Role = "primary", model: Recognizer | None = None, **keys: Any
) -> AsyncIterator[Service]:
    """Run a service in this event loop."""
    model = model or ScriptedModel()
    settings = parse(settings_text(folder, service, **keys), service)
    started = Service(settings, lambda _: model, make_gateway)
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


def channel_to(service: Service) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}", options=UNLIMITED)


@asynccontextmanager
async def stub_of(service: Service) -> AsyncIterator[Any]:
    async with channel_to(service) as channel:
        yield speech_pb2_grpc.SpeechToTextStub(channel)


async def transcribe(
    stub: Any,
    audio: bytes | None = None,
    metadata: tuple[tuple[str, str], ...] = (),
    timeout: float = 20,
    **options: Any,
) -> tuple[pb.TranscribeResponse, dict[str, str]]:
    """Transcribe; return the response and its trailing metadata."""
    request = pb.TranscribeRequest(audio=speech() if audio is None else audio, options=pb.TranscribeOptions(**options))
    call = stub.Transcribe(request, metadata=metadata, timeout=timeout)
    response = await call
    return response, dict(await call.trailing_metadata())


async def failure(stub: Any, *args: Any, **kwargs: Any) -> tuple[grpc.StatusCode, dict[str, str], str]:
    """Status, trailing metadata and details of a `Transcribe` call that must fail."""
    try:
        await transcribe(stub, *args, **kwargs)
    except grpc.aio.AioRpcError as error:
        return error.code(), dict(error.trailing_metadata() or ()), error.details() or ""
    raise AssertionError("the call succeeded")


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition holds that can't be awaited, by yielding to the event loop."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "the condition did not hold within the time limit"
        await asyncio.sleep(0)
