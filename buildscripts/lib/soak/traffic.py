"""Load of a soak run: recordings in every container, live speech, invalid requests, and cancellations."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

import httpx

from buildscripts.lib.load.corpus import Clip, joined
from buildscripts.lib.load.plain_clients import (
    RATE,
    ApiError,
    NoResponse,
    bearer,
    openai,
    paced_chunks,
    rest,
    websocket,
    wyoming,
)
from buildscripts.lib.load.realtime_client import realtime
from buildscripts.lib.load.recordings import EncodedClip, encode_clip, long_clip, matches, sample_clips
from stt_client import AudioFormat, Final, SttClient, SttError
from stt_client.client import ClientOptions

TIMEOUT_S = 60.0
FOREIGN = ("it/pangrama", "fr/pangrama", "pt/pangrama")
"""Recordings in other languages that the smaller multilingual models recognize in every container; for the fallback."""

CORRECT = "its own text"
WRONG_KEY = "not-a-key"


@dataclass(frozen=True)
class Outcome:
    """Outcome of one request."""

    what: str
    """Kind of request."""
    result: str
    """`CORRECT`, `left`, `ok`, an error type of the table, or a description of anything else."""
    as_expected: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class TestAudio:
    """The recordings."""

    short: list[EncodedClip]
    long: list[EncodedClip]
    foreign: list[EncodedClip]

    @classmethod
    def make(cls) -> TestAudio:
        """Encode all recordings; takes some seconds."""
        clips = sample_clips("en")
        pairs = [joined(f"{a.name}+{b.name}", [a, b]) for a in clips for b in clips if a is not b]
        longs = [long_clip(f"{seconds} s", clips, seconds) for seconds in (65, 110)]
        foreign = [clip for name in FOREIGN for clip in _named(name)]
        return cls(
            [encode_clip(clip) for clip in (*clips, *pairs)],
            [encode_clip(clip, ("wav", "ogg")) for clip in longs],
            [encode_clip(clip) for clip in foreign],
        )


def _named(name: str) -> list[Clip]:
    language, _, stem = name.partition("/")
    return [clip for clip in sample_clips(language) if clip.name == stem]


@dataclass
class Tally:
    """Outcomes of all callers."""

    outcomes: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """Number of outcomes by kind of request, result, and whether it was expected."""
    latencies: list[float] = field(default_factory=list)
    """Latencies of answered short recordings in seconds; the reader empties the list."""
    unexpected: list[Outcome] = field(default_factory=list)


@dataclass
class Traffic:
    """What all callers of a run share."""

    audio: TestAudio
    chance: random.Random
    share: float
    """Of its time that a caller has a request in flight; between requests it waits."""
    tally: Tally = field(default_factory=Tally)


@dataclass
class Callers:
    """Callers of one service."""

    grpc: str
    http: str
    """URL of its gateway; empty: REST and WebSockets are left out."""
    traffic: Traffic
    options: ClientOptions
    max_upload_bytes: int
    without: Collection[str] = ()
    """Kinds of requests that this service can't answer as expected."""
    verify: ssl.SSLContext | bool = True
    """Of the gateway's certificate."""
    wyoming: str = ""
    """`host:port` of its Wyoming port; empty: that protocol is left out."""

    def __post_init__(self) -> None:
        """Make the clients, which connect on their first calls."""
        self.key = self.options.get("api_key") or ""
        self._client = SttClient(self.grpc, **self.options)
        self._stranger = stranger_of(self.grpc, self.options)
        self.audio, self.chance, self.tally = self.traffic.audio, self.traffic.chance, self.traffic.tally
        limits = httpx.Limits(max_connections=None)
        self._browser = httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, verify=self.verify)
        closed = (*(() if self.http else OVER_HTTP), *(() if self.wyoming else ("Wyoming",)))
        self._mix = {
            what: kind for what, kind in MIX.items() if what not in self.without and not what.startswith(closed)
        }

    async def run(self, count: int, stop: asyncio.Event) -> None:
        """Run `count` callers, each with one request at a time, until `stop`."""
        async with self._client, self._stranger, self._browser:
            await asyncio.gather(*(self._call_repeatedly(stop) for _ in range(count)))

    async def _call_repeatedly(self, stop: asyncio.Event) -> None:
        names, weights = zip(*((what, weight) for what, (weight, _) in self._mix.items()))
        while not stop.is_set():
            (what,) = self.chance.choices(names, weights)
            outcome = await self._one(what, self._mix[what][1])
            self.tally.outcomes[(what, outcome.result, outcome.as_expected)] += 1
            if not outcome.as_expected:
                self.tally.unexpected.append(outcome)
            if what in TIMED and outcome.as_expected:
                self.tally.latencies.append(outcome.seconds)
            pause = outcome.seconds * (1 / self.traffic.share - 1)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def _one(self, what: str, kind: Callable[[Callers], Awaitable[str]]) -> Outcome:
        began = time.perf_counter()
        try:
            result = await kind(self)
        except (ApiError, NoResponse) as error:
            result = str(error)
        except SttError as error:
            result = error.type
        return Outcome(what, result, result == EXPECTED.get(what, CORRECT), time.perf_counter() - began)

    def verdict_on(self, text: str, said: EncodedClip) -> str:
        others = [*self.audio.short, *self.audio.long, *self.audio.foreign]
        return CORRECT if matches(text, said, [other for other in others if other is not said]) else f"{text!r}"[:120]

    async def by_grpc(self, said: EncodedClip, routing: str = "auto") -> str:
        transcript = await self._client.transcribe(self._any_file(said), routing=routing)
        return self.verdict_on(transcript.text, said)

    async def by_rest(self, said: EncodedClip, routing: str = "auto") -> str:
        answer = await rest(self._browser, self.http, self._any_file(said), self.key, {"routing": routing})
        return self.verdict_on(answer["text"], said)

    async def by_openai(self, said: EncodedClip) -> str:
        fields = {"stream": self.chance.choice(("true", "false"))}
        text, _ = await openai(self._browser, self.http, self._any_file(said), self.key, fields)
        return self.verdict_on(text, said)

    def _any_file(self, said: EncodedClip) -> bytes:
        return said.files[self.chance.choice(sorted(said.files))]

    async def by_stream(self) -> str:
        said = self.chance.choice(self.audio.short)
        finals = []
        async with aclosing(
            self._client.stream(paced_chunks(said.pcm), encoding=AudioFormat("linear16", RATE))
        ) as events:
            async for event in events:
                if isinstance(event, Final):
                    finals.append(event.result.text)
        return self.verdict_on(" ".join(finals), said)

    async def by_websocket(self) -> str:
        said = self.chance.choice(self.audio.short)
        return self.verdict_on(await websocket(self.http, paced_chunks(said.pcm), self.key, {}), said)

    async def by_realtime(self) -> str:
        """Transcribe by server VAD or by hand, in turn by chance."""
        said = self.chance.choice(self.audio.short)
        settings = {"turn_detection": self.chance.choice((None, {"type": "server_vad"}))}
        return self.verdict_on(await realtime(self.http, paced_chunks(said.pcm), self.key, settings), said)

    async def by_wyoming(self) -> str:
        said = self.chance.choice(self.audio.short)
        return self.verdict_on(await wyoming(self.wyoming, paced_chunks(said.pcm)), said)

    async def leave(self, way: Callable[[], Awaitable[str]], within: float) -> str:
        """Make a call and cancel it within `within` seconds."""
        call = asyncio.ensure_future(way())
        await asyncio.wait((call,), timeout=self.chance.uniform(0, within))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return "left"

    async def with_wrong_key(self) -> str:
        said = self.chance.choice(self.audio.short)
        if self._by_grpc():
            return (await self._stranger.transcribe(said.files["wav"])).text
        return str((await rest(self._browser, self.http, said.files["wav"], WRONG_KEY, {}))["text"])

    def _by_grpc(self) -> bool:
        return not self.http or self.chance.random() < 0.5

    async def bytes_by_either(self, audio: bytes) -> str:
        if self._by_grpc():
            return (await self._client.transcribe(audio)).text
        return str((await rest(self._browser, self.http, audio, self.key, {}))["text"])

    async def damaged(self) -> str:
        """Send a file that continues as noise: the outcome is text or an error."""
        said = self.chance.choice(self.audio.short)
        audio = said.files[self.chance.choice(sorted(said.files))]
        cut = audio[: self.chance.randrange(40, len(audio) // 2)] + self.chance.randbytes(2000)
        try:
            await self.bytes_by_either(cut)
        except (ApiError, SttError) as error:
            type_ = str(error) if isinstance(error, ApiError) else error.type
            return "ok" if type_ in ("unsupported_audio", "empty_audio", "invalid_argument") else type_
        return "ok"

    async def look(self) -> str:
        """Read what probes and Prometheus read."""
        if not self.http:
            await self._client.metrics()
            return "ok" if await self._client.health() else "not serving"
        path = self.chance.choice(("/v1/health", "/metrics", "/v1/metrics"))
        try:
            reply = await self._browser.get(self.http + path, headers=bearer(self.key))
        except httpx.TransportError as error:
            raise NoResponse(f"{path}: {error!r}") from None
        healthy = await self._client.health()
        return "ok" if healthy and reply.status_code == httpx.codes.OK else f"{path}: {reply.status_code}, {healthy}"


def stranger_of(target: str, options: ClientOptions) -> SttClient:
    """A client with a key that no service accepts."""
    return SttClient(target, **cast(ClientOptions, {**options, "api_key": WRONG_KEY}))


def _short(callers: Callers) -> EncodedClip:
    return callers.chance.choice(callers.audio.short)


def _too_large(callers: Callers) -> bytes:
    return bytes(callers.max_upload_bytes + 1000)


MIX: dict[str, tuple[float, Callable[[Callers], Awaitable[str]]]] = {
    "gRPC": (30, lambda c: c.by_grpc(_short(c))),
    "REST": (20, lambda c: c.by_rest(_short(c))),
    "OpenAI": (10, lambda c: c.by_openai(_short(c))),
    "gRPC, long": (1.5, lambda c: c.by_grpc(c.chance.choice(c.audio.long))),
    "REST, long": (1.5, lambda c: c.by_rest(c.chance.choice(c.audio.long))),
    "gRPC, to the fallback": (4, lambda c: c.by_grpc(_short(c), "fallback")),
    "REST, another language": (3, lambda c: c.by_rest(c.chance.choice(c.audio.foreign), "fallback")),
    "gRPC stream": (5, lambda c: c.by_stream()),
    "WebSocket": (5, lambda c: c.by_websocket()),
    "Realtime": (4, lambda c: c.by_realtime()),
    "Wyoming": (3, lambda c: c.by_wyoming()),
    "gRPC, caller leaves": (3, lambda c: c.leave(lambda: c.by_grpc(_short(c)), 0.3)),
    "REST, caller leaves": (3, lambda c: c.leave(lambda: c.by_rest(_short(c)), 0.3)),
    "gRPC stream, caller leaves": (1, lambda c: c.leave(c.by_stream, 2)),
    "OpenAI, caller leaves": (1, lambda c: c.leave(lambda: c.by_openai(_short(c)), 0.3)),
    "WebSocket, caller leaves": (1, lambda c: c.leave(c.by_websocket, 2)),
    "Realtime, caller leaves": (1, lambda c: c.leave(c.by_realtime, 2)),
    "Wyoming, caller leaves": (1, lambda c: c.leave(c.by_wyoming, 2)),
    "a wrong key": (2, lambda c: c.with_wrong_key()),
    "no audio": (2, lambda c: c.bytes_by_either(c.chance.randbytes(20000))),
    "a damaged file": (2, lambda c: c.damaged()),
    "too large": (0.5, lambda c: c.bytes_by_either(_too_large(c))),
    "health and metrics": (5, lambda c: c.look()),
}
"""Kinds of requests: weight, in percent about, and function."""

EXPECTED = {
    "a wrong key": "unauthenticated",
    "no audio": "unsupported_audio",
    "a damaged file": "ok",
    "too large": "payload_too_large",
    "health and metrics": "ok",
    **{what: "left" for what in MIX if what.endswith("leaves")},
}
"""Expected results; otherwise `CORRECT`."""

TIMED = ("gRPC", "REST")
OVER_HTTP = ("REST", "OpenAI", "WebSocket", "Realtime")
TO_THE_FALLBACK = ("gRPC, to the fallback", "REST, another language")
