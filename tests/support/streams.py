"""Live streams in tests: a caller of StreamTranscribe that sends what it is told, and what came back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from protos.stt.v1 import speech_pb2 as pb
from stt_server.rpc.convert import seconds
from tests.support.speech import RATE, Samples

LINEAR16 = pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE)


def pcm(samples: Samples) -> bytes:
    return bytes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def config(**fields: Any) -> pb.StreamTranscribeRequest:
    """A first message: 16 kHz LINEAR16 with interims, unless told otherwise."""
    fields.setdefault("format", LINEAR16)
    fields.setdefault("interim_results", True)
    return pb.StreamTranscribeRequest(config=pb.StreamConfig(**fields))


def audio(data: bytes) -> pb.StreamTranscribeRequest:
    return pb.StreamTranscribeRequest(audio=data)


FLUSH = pb.StreamTranscribeRequest(flush=pb.Flush())


@dataclass
class Caller:
    """A stream as its caller has it."""

    call: Any
    responses: list[pb.StreamTranscribeResponse] = field(default_factory=list)

    async def send(self, *messages: pb.StreamTranscribeRequest) -> None:
        for message in messages:
            await self.call.write(message)

    async def say(self, samples: Samples, piece: float = 0.1) -> None:
        """Sends audio as fast as it is taken, in pieces of so many seconds.

        Interims come only while the service has heard all that it was sent: to be sure of some, speak in real time.
        """
        data = pcm(samples)
        size = round(piece * RATE) * 2
        await self.send(*(audio(data[at : at + size]) for at in range(0, len(data), size)))

    async def say_in_real_time(self, samples: Samples, piece: float = 0.1) -> None:
        data = pcm(samples)
        size = round(piece * RATE) * 2
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at in range(0, len(data), size):
            await asyncio.sleep(max(0.0, began + (at + size) / 2 / RATE - loop.time()))
            await self.send(audio(data[at : at + size]))

    async def next(self, kind: str, seconds: float = 60) -> pb.StreamTranscribeResponse:
        """The next event of a kind: `started`, `ended`, `interim`, `final`; those before it are passed over."""

        async def read() -> pb.StreamTranscribeResponse:
            while True:
                response = await self.call.read()
                assert response is not grpc.aio.EOF, f"the stream ended without {kind}"
                self.responses.append(response)
                if kind_of(response) == kind:
                    return response  # type: ignore[no-any-return]

        return await asyncio.wait_for(read(), seconds)

    async def rest(self) -> list[pb.StreamTranscribeResponse]:
        """Everything to the stream's end; raises the status that it ends with."""
        while (response := await self.call.read()) is not grpc.aio.EOF:
            self.responses.append(response)
        code = await self.call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await self.call.initial_metadata(), await self.call.trailing_metadata(), await self.call.details()
            )
        return self.responses

    async def finish(self) -> list[pb.StreamTranscribeResponse]:
        """Half-closes, and waits for the end."""
        await self.call.done_writing()
        return await self.rest()

    async def failure(self) -> tuple[grpc.StatusCode, str, str]:
        """How a stream that must fail does: status, type, message."""
        try:
            await self.rest()
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            return error.code(), str(trailers.get("x-error-type", "")), error.details() or ""
        raise AssertionError("the stream ended well")


async def opened(stub: Any, **fields: Any) -> Caller:
    """A stream that has sent its config."""
    caller = Caller(stub.StreamTranscribe())
    await caller.send(config(**fields))
    return caller


async def stream(stub: Any, *messages: pb.StreamTranscribeRequest) -> list[pb.StreamTranscribeResponse]:
    """All responses to some messages and a half-close."""
    responses = []
    async for response in stub.StreamTranscribe(_each(messages)):
        responses.append(response)
    return responses


async def _each(messages: Sequence[pb.StreamTranscribeRequest]) -> AsyncIterator[pb.StreamTranscribeRequest]:
    for message in messages:
        yield message


def kind_of(response: pb.StreamTranscribeResponse) -> str:
    """`started`, `ended`, `interim` or `final`."""
    event = response.WhichOneof("event") or ""
    if event != "speech_event":
        return event
    return "started" if response.speech_event.type == pb.SpeechEvent.TYPE_STARTED else "ended"


def finals(responses: Sequence[pb.StreamTranscribeResponse]) -> list[pb.Final]:
    return [response.final for response in responses if kind_of(response) == "final"]


def offsets(responses: Sequence[pb.StreamTranscribeResponse], kind: str) -> list[float]:
    """In seconds, of all `started` or all `ended`."""
    return [seconds(response.speech_event.offset) for response in responses if kind_of(response) == kind]
