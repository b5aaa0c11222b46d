"""Live streams in tests: messages, a caller of StreamTranscribe, and its responses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from protos.stt.v1 import speech_pb2 as pb
from stt_server.app import Service
from stt_server.rpc.convert import seconds
from tests.support.speech import RATE, Samples, clip, samples_of, silence

LINEAR16 = pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE)


def pcm(samples: Samples) -> bytes:
    return bytes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def config(**fields: Any) -> pb.StreamTranscribeRequest:
    """A config message; by default of 16 kHz LINEAR16 with interims."""
    fields.setdefault("format", LINEAR16)
    fields.setdefault("interim_results", True)
    return pb.StreamTranscribeRequest(config=pb.StreamConfig(**fields))


def audio(data: bytes) -> pb.StreamTranscribeRequest:
    return pb.StreamTranscribeRequest(audio=data)


FLUSH = pb.StreamTranscribeRequest(flush=pb.Flush())


def recording_of(*names: str, pause: float = 1.0) -> Samples:
    """English clips, each followed by a pause in seconds."""
    parts = [silence(0.5)]
    for name in names:
        parts += [samples_of(clip("en", name)), silence(pause)]
    return np.concatenate(parts)


def timed_recording(*names: str, lead: float, pause: float = 1.2) -> tuple[Samples, list[tuple[float, float]]]:
    """English clips with pauses between them, and start and end of the speech in each, found by loudness.

    Args:
        lead: seconds of silence before the first clip.
        pause: seconds of silence after each clip.
    """
    parts, speech, at = [silence(lead)], [], lead
    for name in names:
        samples = samples_of(clip("en", name))
        loud = np.flatnonzero(np.abs(samples) > 0.03)
        speech.append((at + loud[0] / RATE, at + loud[-1] / RATE))
        parts += [samples, silence(pause)]
        at += len(samples) / RATE + pause
    return np.concatenate(parts), speech


MIDDLE = int(1.8 * RATE)
"""Index of the sample in the middle of the speech in `recording_of("quick_brown_fox")`."""


@dataclass
class Caller:
    """The client side of one stream."""

    call: Any
    responses: list[pb.StreamTranscribeResponse] = field(default_factory=list)

    async def send(self, *messages: pb.StreamTranscribeRequest) -> None:
        for message in messages:
            await self.call.write(message)

    async def send_audio(self, samples: Samples, piece: float = 0.1) -> None:
        """Send audio in pieces of `piece` seconds, as fast as the service accepts it.

        Interims are sent only while all received audio is processed: to be sure of some, send in real time.
        """
        data = pcm(samples)
        size = round(piece * RATE) * 2
        await self.send(*(audio(data[at : at + size]) for at in range(0, len(data), size)))

    async def send_in_real_time(self, samples: Samples, piece: float = 0.1) -> None:
        data = pcm(samples)
        size = round(piece * RATE) * 2
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at in range(0, len(data), size):
            await asyncio.sleep(max(0.0, began + (at + size) / 2 / RATE - loop.time()))
            await self.send(audio(data[at : at + size]))

    async def next(self, kind: str, seconds: float = 60) -> pb.StreamTranscribeResponse:
        """Wait for an event of a kind: `started`, `ended`, `interim`, `final`; earlier ones are only recorded."""

        async def read() -> pb.StreamTranscribeResponse:
            while True:
                response = await self.call.read()
                assert response is not grpc.aio.EOF, f"the stream ended without an event of kind {kind}"
                self.responses.append(response)
                if kind_of(response) == kind:
                    return response  # type: ignore[no-any-return]

        return await asyncio.wait_for(read(), seconds)

    async def rest(self) -> list[pb.StreamTranscribeResponse]:
        """Read to the end of the stream; return all responses. Raises AioRpcError unless the status is OK."""
        while (response := await self.call.read()) is not grpc.aio.EOF:
            self.responses.append(response)
        code = await self.call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await self.call.initial_metadata(), await self.call.trailing_metadata(), await self.call.details()
            )
        return self.responses

    async def finish(self) -> list[pb.StreamTranscribeResponse]:
        """Half-close and read to the end."""
        await self.call.done_writing()
        return await self.rest()

    async def failure(self) -> tuple[grpc.StatusCode, str, str]:
        """Read to the end of a stream that must fail; return status, error type and message."""
        try:
            await self.rest()
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            return error.code(), str(trailers.get("x-error-type", "")), error.details() or ""
        raise AssertionError("the stream ended with OK")


async def opened(stub: Any, **fields: Any) -> Caller:
    """Open a stream and send its config. A refusal shows when responses are read."""
    caller = Caller(stub.StreamTranscribe())
    with contextlib.suppress(grpc.aio.AioRpcError):  # refused before it was sent
        await caller.send(config(**fields))
    return caller


async def stream(stub: Any, *messages: pb.StreamTranscribeRequest) -> list[pb.StreamTranscribeResponse]:
    """Send all messages, half-close, and return all responses."""
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
    """Offsets of all `started` or all `ended`, in seconds."""
    return [seconds(response.speech_event.offset) for response in responses if kind_of(response) == kind]


def metric(service: Service, series: str) -> float:
    """The value of a series, named as in the exposition: `name{label="value"}`."""
    lines = service.instruments.metrics.exposition()[0].splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series)


def audio_processed(service: Service) -> float:
    """Seconds of audio processed in all streams of a service."""
    return metric(service, "stt_audio_seconds_total")
