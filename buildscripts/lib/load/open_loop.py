"""Load that doesn't wait for answers: requests at a steady rate over gRPC and REST in turn, and what came of each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from buildscripts.lib.bench.report import percentile
from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1.errors import type_of_bare_status
from protos.stt.v1.speech_pb2_grpc import SpeechToTextStub

_BOUNDARY = "open-load"


@dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    way: str
    began: float
    """Seconds from the start of the load."""
    seconds: float
    """To its answer, as its caller saw it."""
    timeout_s: float
    error: str = ""
    """A type of the error table; empty: it was answered."""
    server_ms: float | None = None
    """`x-total-ms`: how long the service had it."""
    retry_after_s: float | None = None
    said: str = ""
    """The message of an error."""

    @property
    def late(self) -> bool:
        """Taken, and not answered in time."""
        return self.error == "deadline_exceeded" or (not self.error and self.seconds > self.timeout_s)


class Way(Protocol):
    """How to reach a service."""

    name: str

    async def ask(self, timeout_s: float) -> tuple[str, dict[str, str]]:
        """Has the recording transcribed: an error's type, or nothing; and headers or metadata, in lower case."""
        ...


class Grpc:
    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel, wav: bytes, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._transcribe = SpeechToTextStub(channel).Transcribe
        self._request = pb.TranscribeRequest(audio=wav)
        self._metadata = tuple(metadata)

    async def ask(self, timeout_s: float) -> tuple[str, dict[str, str]]:
        call = self._transcribe(self._request, timeout=timeout_s, metadata=self._metadata)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            trailers = {name: str(value) for name, value in error.trailing_metadata() or ()}
            bare = type_of_bare_status(error.code().name)
            return trailers.get("x-error-type", bare), {"x-error-message": error.details() or "", **trailers}
        return "", {name: str(value) for name, value in await call.trailing_metadata()}


class Rest:
    """HTTP/1.1 by hand, on connections that are kept: a client library would cost more than the service does."""

    name = "rest"

    def __init__(self, port: int, wav: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._port = port
        part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
        self._body = part.encode() + wav + f"\r\n--{_BOUNDARY}--\r\n".encode()
        lines = ["POST /v1/transcribe HTTP/1.1", "Host: 127.0.0.1", *(": ".join(header) for header in headers)]
        lines += [f"Content-Type: multipart/form-data; boundary={_BOUNDARY}", f"Content-Length: {len(self._body)}"]
        self._head = "\r\n".join(lines)
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def ask(self, timeout_s: float) -> tuple[str, dict[str, str]]:
        try:
            return await asyncio.wait_for(self._ask(timeout_s), timeout_s + 5)
        except asyncio.TimeoutError:
            return "deadline_exceeded", {}
        except (OSError, EOFError) as error:
            return "upstream_unavailable", {"x-error-message": repr(error)}

    async def _ask(self, timeout_s: float) -> tuple[str, dict[str, str]]:
        reader, writer = await self._connection()
        kept = False
        try:
            writer.write(f"{self._head}\r\nX-Timeout-Ms: {timeout_s * 1000:.0f}\r\n\r\n".encode() + self._body)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            await reader.readexactly(int(headers["content-length"]))
            kept = headers.get("connection") != "close"
            if first.split()[1] == "200":
                return "", headers
            return headers.get("x-error-type", first), headers
        finally:
            if kept:
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
        for _, writer in self._idle:
            writer.close()


async def offer(
    ways: Sequence[Way],
    rate: float,
    seconds: float,
    timeouts: Sequence[float],
    on_done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Offers `rate` requests a second for so many seconds, whatever comes of them, and waits for all outcomes.

    Args:
        ways: take turns.
        timeouts: of requests, in seconds; take turns, each for every way.
    """
    began = time.perf_counter()
    outcomes: list[Outcome] = []

    async def ask(way: Way, timeout_s: float) -> None:
        sent = time.perf_counter()
        error, told = await way.ask(timeout_s)
        took = time.perf_counter() - sent
        server_ms = float(told["x-total-ms"]) if "x-total-ms" in told else None
        outcome = Outcome(
            way.name, sent - began, took, timeout_s, error, server_ms, _wait(told), told.get("x-error-message", "")
        )
        outcomes.append(outcome)
        on_done(outcome)

    asking: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        # One that is behind catches up: what is offered depends on the clock alone.
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        timeout_s = timeouts[number // len(ways) % len(timeouts)]
        asking.add(task := asyncio.create_task(ask(ways[number % len(ways)], timeout_s)))
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    return outcomes


def _wait(told: dict[str, str]) -> float | None:
    """When to try again, in seconds, as an answer says."""
    if "retry-after-ms" in told:
        return float(told["retry-after-ms"]) / 1000
    return float(told["retry-after"]) if "retry-after" in told else None


@dataclass(frozen=True)
class Tally:
    """Outcomes, counted."""

    outcomes: Sequence[Outcome]

    @property
    def answered(self) -> list[Outcome]:
        """In time."""
        return [outcome for outcome in self.outcomes if not outcome.error and not outcome.late]

    @property
    def refused(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.error == "overloaded"]

    @property
    def late(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.late]

    @property
    def failed(self) -> Counter[str]:
        """Errors of other kinds, by type."""
        return Counter(o.error for o in self.outcomes if o.error and not o.late and o.error != "overloaded")

    def latency(self, share: float) -> float:
        """Seconds that a share of all answers were not over."""
        return percentile([outcome.seconds for outcome in self.answered], share)

    def refusal(self, share: float) -> tuple[float, float]:
        """Seconds that a share of all refusals were not over: in the service, and as callers saw it."""
        inside = [(o.server_ms or 0.0) / 1000 for o in self.refused]
        return percentile(inside, share), percentile([o.seconds for o in self.refused], share)

    def refused_within(self, seconds: float) -> float:
        """The share of refusals that callers saw so soon."""
        return sum(outcome.seconds <= seconds for outcome in self.refused) / max(1, len(self.refused))
