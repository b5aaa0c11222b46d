"""A process that is no fallback at the fallback's address: `python -m tests.faults.nonsense KIND HOST PORT`.

Prints `ready` to standard output and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc

SECRET = "Traceback in /srv/secret/place.py"
"""Error detail that must not reach callers."""

BYTES = {
    "garbage": b"\x00\xff\x13garbage \r\n" * 50,
    "http1": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
}
"""Answer to any request, by kind."""


class Speech(speech_pb2_grpc.SpeechToTextServicer):
    """gRPC services that break the contract."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def Transcribe(self, request: pb.TranscribeRequest, context: Any) -> pb.TranscribeResponse:
        if self._kind == "errors":
            await context.abort(grpc.StatusCode.INTERNAL, SECRET, (("x-error-message", SECRET),))
        if self._kind == "empty":
            return pb.TranscribeResponse()
        routing = pb.Routing(final_model="m", fallback_confidence=math.nan)
        return pb.TranscribeResponse(text="not a number", routing=routing)

    def StreamTranscribe(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError


async def serve_grpc(kind: str, address: str) -> None:
    server = grpc.aio.server()
    if kind != "unimplemented":
        speech_pb2_grpc.add_SpeechToTextServicer_to_server(Speech(kind), server)
        servicer = health.aio.HealthServicer()
        await servicer.set("stt.v1.SpeechToText", HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def serve_bytes(kind: str, host: str, port: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(BYTES[kind])

    async with await asyncio.start_server(talk, host, port) as server:
        print("ready", flush=True)
        await server.serve_forever()


def main() -> None:
    kind, host, port = sys.argv[1:]
    asyncio.run(serve_bytes(kind, host, int(port)) if kind in BYTES else serve_grpc(kind, f"{host}:{port}"))


if __name__ == "__main__":
    main()
