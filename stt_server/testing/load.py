"""Open-loop load generator: requests at a fixed rate over gRPC and REST, however many are still unanswered."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1.errors import type_of_bare_status
from protos.stt.v1.speech_pb2_grpc import SpeechToTextStub

_BOUNDARY = "open-loop"
_REST_GRACE_S = 5.0
"""Longest wait for an HTTP response after the request's own timeout."""


def percentile(values: Sequence[float], share: float) -> float:
    """Smallest of `values` that at least a share (0 to 1) of them does not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True)
class Outcome:
    """Result of one request."""

    transport: str
    began: float
    """Seconds from the start of the load."""
    seconds: float
    """Latency as the caller saw it."""
    timeout_s: float
    error: str = ""
    """Type of the error table; empty: the request was answered."""
    server_ms: float | None = None
    """`x-total-ms`: time in the service."""
    retry_after_s: float | None = None
    message: str = ""
    """Of the error."""

    @property
    def late(self) -> bool:
        """Whether the request was accepted but not answered before its deadline."""
        return self.error == "deadline_exceeded" or (not self.error and self.seconds > self.timeout_s)


class Transport(Protocol):
    """Sends one recording to a service, again and again."""

    name: str

    async def transcribe(self, timeout_s: float) -> tuple[str, Mapping[str, str]]:
        """Error type (empty on success), and trailing metadata or headers with names in lower case."""
        ...


class Grpc:
    """gRPC stub on a channel."""

    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel, wav: bytes, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._transcribe = SpeechToTextStub(channel).Transcribe
        self._request = pb.TranscribeRequest(audio=wav)
        self._metadata = tuple(metadata)

    async def transcribe(self, timeout_s: float) -> tuple[str, Mapping[str, str]]:
        call = self._transcribe(self._request, timeout=timeout_s, metadata=self._metadata)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            trailers = {name: str(value) for name, value in error.trailing_metadata() or ()}
            bare = type_of_bare_status(error.code().name)
            return trailers.get("x-error-type", bare), {"x-error-message": error.details() or "", **trailers}
        return "", {name: str(value) for name, value in await call.trailing_metadata()}


class Rest:
    """HTTP/1.1 on kept connections, written by hand: a client library would cost more processor time than the service.

    Args:
        port: of 127.0.0.1.
    """

    name = "rest"

    def __init__(self, port: int, wav: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._port = port
        part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
        self._body = part.encode() + wav + f"\r\n--{_BOUNDARY}--\r\n".encode()
        lines = ["POST /v1/transcribe HTTP/1.1", "Host: 127.0.0.1", *(": ".join(header) for header in headers)]
        lines += [f"Content-Type: multipart/form-data; boundary={_BOUNDARY}", f"Content-Length: {len(self._body)}"]
        self._head = "\r\n".join(lines)
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def transcribe(self, timeout_s: float) -> tuple[str, Mapping[str, str]]:
        try:
            return await asyncio.wait_for(self._exchange(timeout_s), timeout_s + _REST_GRACE_S)
        except asyncio.TimeoutError:
            return "deadline_exceeded", {}
        except (OSError, EOFError) as error:
            return "upstream_unavailable", {"x-error-message": repr(error)}

    async def _exchange(self, timeout_s: float) -> tuple[str, Mapping[str, str]]:
        reader, writer = await self._connection()
        keep = False
        try:
            writer.write(f"{self._head}\r\nX-Timeout-Ms: {timeout_s * 1000:.0f}\r\n\r\n".encode() + self._body)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            await reader.readexactly(int(headers["content-length"]))
            keep = headers.get("connection") != "close"
            if status.split()[1] == "200":
                return "", headers
            return headers.get("x-error-type", status), headers
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        """Close idle connections."""
        for _, writer in self._idle:
            writer.close()


async def offer(
    transports: Sequence[Transport],
    rate: float,
    seconds: float,
    timeouts: Sequence[float],
    on_done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Send `rate` requests per second for `seconds`, without waiting for responses; then wait for all outcomes.

    Args:
        transports: used in turn.
        timeouts: of requests, in seconds; used in turn, each once per transport.
    """
    began = time.perf_counter()
    outcomes: list[Outcome] = []

    async def send(transport: Transport, timeout_s: float) -> None:
        sent = time.perf_counter()
        error, metadata = await transport.transcribe(timeout_s)
        outcome = Outcome(
            transport.name,
            began=sent - began,
            seconds=time.perf_counter() - sent,
            timeout_s=timeout_s,
            error=error,
            server_ms=float(metadata["x-total-ms"]) if "x-total-ms" in metadata else None,
            retry_after_s=_retry_after_s(metadata),
            message=metadata.get("x-error-message", ""),
        )
        outcomes.append(outcome)
        on_done(outcome)

    pending: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        # Times are absolute: a generator that falls behind catches up, so that the rate depends on the clock alone.
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        timeout_s = timeouts[number // len(transports) % len(timeouts)]
        pending.add(task := asyncio.create_task(send(transports[number % len(transports)], timeout_s)))
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    return outcomes


def _retry_after_s(metadata: Mapping[str, str]) -> float | None:
    if "retry-after-ms" in metadata:
        return float(metadata["retry-after-ms"]) / 1000
    return float(metadata["retry-after"]) if "retry-after" in metadata else None


@dataclass(frozen=True)
class Tally:
    """Outcomes by kind."""

    outcomes: Sequence[Outcome]

    @property
    def answered(self) -> list[Outcome]:
        """Answered before the deadline."""
        return [outcome for outcome in self.outcomes if not outcome.error and not outcome.late]

    @property
    def refused(self) -> list[Outcome]:
        """Refused as `overloaded`."""
        return [outcome for outcome in self.outcomes if outcome.error == "overloaded"]

    @property
    def late(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.late]

    @property
    def failed(self) -> Counter[str]:
        """Number of other errors, by type."""
        return Counter(o.error for o in self.outcomes if o.error and not o.late and o.error != "overloaded")

    def latency(self, share: float) -> float:
        """Percentile of the latency of answered requests, in seconds."""
        return percentile([outcome.seconds for outcome in self.answered], share)

    def refusal(self, share: float) -> tuple[float, float]:
        """Percentiles of the latency of refusals, in seconds: in the service, and as callers saw it."""
        inside = [(o.server_ms or 0.0) / 1000 for o in self.refused]
        return percentile(inside, share), percentile([o.seconds for o in self.refused], share)

    def refused_within(self, seconds: float) -> float:
        """Share of refusals that callers saw within `seconds`."""
        return sum(outcome.seconds <= seconds for outcome in self.refused) / max(1, len(self.refused))
