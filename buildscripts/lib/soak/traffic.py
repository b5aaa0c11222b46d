"""What callers do all day: recordings in every container, live speech, mistakes, and leaving in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx

from buildscripts.lib.load.corpus import Clip, joined
from buildscripts.lib.load.plain_clients import RATE, Broken, Told, bearer, pieces, rest, websocket
from buildscripts.lib.load.recordings import Spoken, is_answer, long_clip, sample_clips, spoken
from stt_client import AudioFormat, Final, SttClient, SttError

TIMEOUT_S = 60.0
ABROAD = ("es/pangrama", "fr/pangrama", "pt/pangrama")
"""Recordings in other languages that the smaller multilingual models understand: the fallback's part."""

RIGHT = "its own text"


@dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    what: str
    """The kind of request."""
    result: str
    """`RIGHT`, `left`, `ok`, an error type of the contract, or what else happened."""
    as_wanted: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class Material:
    """What is said."""

    short: list[Spoken]
    long: list[Spoken]
    abroad: list[Spoken]

    @classmethod
    def make(cls) -> Material:
        """Encodes all of it, which takes some seconds."""
        clips = sample_clips("en")
        pairs = [joined(f"{a.name}+{b.name}", [a, b]) for a in clips for b in clips if a is not b]
        longs = [long_clip(f"{seconds} s", clips, seconds) for seconds in (65, 110)]
        abroad = [clip for name in ABROAD for clip in _named(name)]
        return cls(
            [spoken(clip) for clip in (*clips, *pairs)],
            [spoken(clip, ("wav", "ogg")) for clip in longs],
            [spoken(clip) for clip in abroad],
        )


def _named(name: str) -> list[Clip]:
    language, _, stem = name.partition("/")
    return [clip for clip in sample_clips(language) if clip.name == stem]


@dataclass
class Callers:
    """The callers of one primary, who keep to a share of their time.

    Args:
        share: of its time that a caller has a request in flight; between two it waits.
    """

    grpc: str
    http: str
    key: str
    material: Material
    max_upload_bytes: int
    chance: random.Random
    share: float
    outcomes: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """By kind of request, what came of it, and whether that was wanted."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of short recordings that were answered; whoever reads them empties the list."""
    unwanted: list[Outcome] = field(default_factory=list)

    async def run(self, count: int, stop: asyncio.Event) -> None:
        """So many callers, each with one request at a time, until `stop`."""
        limits = httpx.Limits(max_connections=4 * count)
        async with (
            SttClient(self.grpc, api_key=self.key, timeout=TIMEOUT_S) as self._client,
            SttClient(self.grpc, api_key="not-a-key", timeout=TIMEOUT_S) as self._stranger,
            httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as self._browser,
        ):
            await asyncio.gather(*(self._call_on(stop) for _ in range(count)))

    async def _call_on(self, stop: asyncio.Event) -> None:
        names, weights = zip(*((what, weight) for what, (weight, _) in MIX.items()))
        while not stop.is_set():
            (what,) = self.chance.choices(names, weights)
            outcome = await self._one(what, MIX[what][1])
            self.outcomes[(what, outcome.result, outcome.as_wanted)] += 1
            if not outcome.as_wanted:
                self.unwanted.append(outcome)
            if what in TIMED and outcome.as_wanted:
                self.latencies.append(outcome.seconds)
            pause = outcome.seconds * (1 / self.share - 1)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def _one(self, what: str, kind: Callable[[Callers], Awaitable[str]]) -> Outcome:
        began = time.perf_counter()
        try:
            result = await kind(self)
        except (Told, Broken) as error:
            result = str(error)
        except SttError as error:
            result = error.type
        return Outcome(what, result, result == WANTED.get(what, RIGHT), time.perf_counter() - began)

    def judged(self, text: str, said: Spoken) -> str:
        others = [*self.material.short, *self.material.long, *self.material.abroad]
        return RIGHT if is_answer(text, said, [other for other in others if other is not said]) else f"{text!r}"[:120]

    async def by_grpc(self, said: Spoken, routing: str = "auto") -> str:
        transcript = await self._client.transcribe(self._any_file(said), routing=routing)
        return self.judged(transcript.text, said)

    async def by_rest(self, said: Spoken, routing: str = "auto") -> str:
        answer = await rest(self._browser, self.http, self._any_file(said), self.key, {"routing": routing})
        return self.judged(answer["text"], said)

    def _any_file(self, said: Spoken) -> bytes:
        return said.files[self.chance.choice(sorted(said.files))]

    async def by_stream(self) -> str:
        said = self.chance.choice(self.material.short)
        finals = []
        async with aclosing(self._client.stream(pieces(said.pcm), encoding=AudioFormat("linear16", RATE))) as events:
            async for event in events:
                if isinstance(event, Final):
                    finals.append(event.result.text)
        return self.judged(" ".join(finals), said)

    async def by_websocket(self) -> str:
        said = self.chance.choice(self.material.short)
        return self.judged(await websocket(self.http, pieces(said.pcm), self.key, {}), said)

    async def leave(self, way: Callable[[], Awaitable[str]], within: float) -> str:
        """Makes a call and goes away, at any time within so many seconds."""
        call = asyncio.ensure_future(way())
        await asyncio.wait((call,), timeout=self.chance.uniform(0, within))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return "left"

    async def with_wrong_key(self) -> str:
        said = self.chance.choice(self.material.short)
        if self.chance.random() < 0.5:
            return (await self._stranger.transcribe(said.files["wav"])).text
        return str((await rest(self._browser, self.http, said.files["wav"], "not-a-key", {}))["text"])

    async def bytes_by_either(self, audio: bytes) -> str:
        if self.chance.random() < 0.5:
            return (await self._client.transcribe(audio)).text
        return str((await rest(self._browser, self.http, audio, self.key, {}))["text"])

    async def damaged(self) -> str:
        """A file that begins well and goes on as noise: text or an error, but an answer."""
        said = self.chance.choice(self.material.short)
        audio = said.files[self.chance.choice(sorted(said.files))]
        cut = audio[: self.chance.randrange(40, len(audio) // 2)] + self.chance.randbytes(2000)
        try:
            await self.bytes_by_either(cut)
        except (Told, SttError) as error:
            type_ = str(error) if isinstance(error, Told) else error.type
            return "ok" if type_ in ("unsupported_audio", "empty_audio", "invalid_argument") else type_
        return "ok"

    async def look(self) -> str:
        """What probes and Prometheus ask."""
        path = self.chance.choice(("/v1/health", "/metrics", "/v1/metrics"))
        try:
            reply = await self._browser.get(self.http + path, headers=bearer(self.key))
        except httpx.TransportError as error:
            raise Broken(f"{path}: {error!r}") from None
        healthy = await self._client.health()
        return "ok" if healthy and reply.status_code == httpx.codes.OK else f"{path}: {reply.status_code}, {healthy}"


def _short(callers: Callers) -> Spoken:
    return callers.chance.choice(callers.material.short)


def _too_large(callers: Callers) -> bytes:
    return bytes(callers.max_upload_bytes + 1000)


MIX: dict[str, tuple[float, Callable[[Callers], Awaitable[str]]]] = {
    "gRPC": (30, lambda c: c.by_grpc(_short(c))),
    "REST": (30, lambda c: c.by_rest(_short(c))),
    "gRPC, long": (1.5, lambda c: c.by_grpc(c.chance.choice(c.material.long))),
    "REST, long": (1.5, lambda c: c.by_rest(c.chance.choice(c.material.long))),
    "gRPC, to the fallback": (4, lambda c: c.by_grpc(_short(c), "fallback")),
    "REST, another language": (3, lambda c: c.by_rest(c.chance.choice(c.material.abroad), "fallback")),
    "gRPC stream": (5, lambda c: c.by_stream()),
    "WebSocket": (5, lambda c: c.by_websocket()),
    "gRPC, caller leaves": (3, lambda c: c.leave(lambda: c.by_grpc(_short(c)), 0.3)),
    "REST, caller leaves": (3, lambda c: c.leave(lambda: c.by_rest(_short(c)), 0.3)),
    "gRPC stream, caller leaves": (1, lambda c: c.leave(c.by_stream, 2)),
    "WebSocket, caller leaves": (1, lambda c: c.leave(c.by_websocket, 2)),
    "a wrong key": (2, lambda c: c.with_wrong_key()),
    "no audio": (2, lambda c: c.bytes_by_either(c.chance.randbytes(20000))),
    "a damaged file": (2, lambda c: c.damaged()),
    "too large": (0.5, lambda c: c.bytes_by_either(_too_large(c))),
    "health and metrics": (5, lambda c: c.look()),
}
"""What is asked: how often in a hundred, about, and how."""

WANTED = {
    "a wrong key": "unauthenticated",
    "no audio": "unsupported_audio",
    "a damaged file": "ok",
    "too large": "payload_too_large",
    "health and metrics": "ok",
    **{what: "left" for what in MIX if what.endswith("leaves")},
}
"""What has to come of it; else `RIGHT`."""

TIMED = ("gRPC", "REST")
