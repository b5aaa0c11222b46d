"""The callers of a chaos run: each way to the services, and the ledger's entry of each request."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import httpx

from buildscripts.lib.chaos.ledger import Entry, Ledger
from buildscripts.lib.chaos.stage import UNSURE, Member, Stage
from buildscripts.lib.load.plain_clients import RATE, Broken, Told, Unreachable, pieces, rest, websocket
from buildscripts.lib.load.recordings import Spoken, is_answer
from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_client import AudioFormat, Final, SttError, SttPool
from stt_client.request import ROUTINGS

IDS = re.compile(r"\bq\d+q\b")
"""What a request's prompt holds, and the text of a scripted model with it."""

CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


class Wrong(Exception):
    """An answer that is not the request's own, once; its text says how."""


@dataclass
class Callers:
    """Who calls, until told to stop."""

    stage: Stage
    ledger: Ledger
    spoken: list[Spoken]
    chance: random.Random
    deadline: float
    """Seconds that a recording may take."""
    began: float = field(default_factory=time.monotonic)
    made: int = 0
    pool: SttPool = field(init=False)
    stubs: dict[str, speech_pb2_grpc.SpeechToTextStub] = field(init=False)
    http: httpx.AsyncClient = field(init=False)

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[Callers]:
        """With connections."""
        a, b = self.stage.primaries
        # No connection is used twice: whoever sends into one that is just being closed can't know whether it was heard.
        limits = httpx.Limits(max_connections=500, max_keepalive_connections=0)
        async with (
            SttPool([a.grpc, b.grpc]) as self.pool,
            httpx.AsyncClient(limits=limits, timeout=self.deadline + 2) as self.http,
            grpc.aio.insecure_channel(a.grpc, options=CHANNEL) as to_a,
            grpc.aio.insecure_channel(b.grpc, options=CHANNEL) as to_b,
        ):
            self.stubs = {"a": speech_pb2_grpc.SpeechToTextStub(to_a), "b": speech_pb2_grpc.SpeechToTextStub(to_b)}
            yield self

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    async def call_on(self, way: str, to: str, stop: asyncio.Event, pause: float) -> None:
        """One caller, with one request at a time."""
        while not stop.is_set():
            await self.one(way, to)
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * pause)

    async def one(self, way: str, to: str) -> Entry:
        """One request from beginning to end, entered in the ledger."""
        entry, said = self.entry(way, to, unsure=self.chance.random() < 0.3)
        self.ledger.entries.append(entry)
        leaves = self.chance.uniform(0.0, 0.1) if self.chance.random() < 0.03 else None
        await self._settle(entry, said, leaves)
        return entry

    def entry(self, way: str, to: str, *, unsure: bool) -> tuple[Entry, Spoken]:
        """A request to be made, and what is said in it."""
        said = self.chance.choice(self.spoken)
        container = self.chance.choice(("wav", "wav", "wav", "flac", "ogg"))
        streams = way in STREAMS
        self.made += 1
        entry = Entry(
            id=f"q{self.made}q",
            way=way,
            to=to,
            unsure=unsure and not streams,
            container="wav" if streams else container,
            sent=self.now,
            deadline=self.deadline + (said.seconds if streams else 0),
        )
        return entry, said

    async def until_settled(self) -> None:
        """Returns once all that is in flight now has come to something."""
        pending = [entry for entry in self.ledger.entries if entry.done is None]
        while True:
            pending = [entry for entry in pending if entry.done is None]
            if not pending:
                return
            await asyncio.sleep(PROBE_S)

    async def until_well(self) -> None:
        """Returns once every way is answered as if nothing had been, the fallback's included."""
        while True:
            answers = await asyncio.gather(*(self._well(*probe) for probe in PROBES))
            if all(answers):
                return
            await asyncio.sleep(PROBE_S)

    async def _well(self, way: str, to: str, unsure: bool) -> bool:
        entry, said = self.entry(way, to, unsure=unsure)
        entry.container = "flac"  # for which it takes a decoding child too
        await self._settle(entry, said, None)
        by_fallback = not unsure or not self.stage.scripted or "the fallback says" in entry.said
        return entry.outcome == "text" and by_fallback

    async def _settle(self, entry: Entry, said: Spoken, leaves: float | None) -> None:
        await self.settle(entry, WAYS[entry.way](self, entry, said), leaves)

    async def settle(self, entry: Entry, way: Coroutine[None, None, None], leaves: float | None = None) -> None:
        """Has a request made, and writes down what comes of it.

        Args:
            leaves: go away after so many seconds.
        """
        call = asyncio.ensure_future(way)
        try:
            await asyncio.wait((call,), timeout=leaves)
            if not call.done():
                call.cancel()
            await call
            entry.outcome = "text"
        except asyncio.CancelledError:
            if leaves is None:
                raise
            entry.outcome = "left"
        except SttError as error:
            entry.outcome, entry.detail = "refused", error.type
        except Told as error:
            entry.outcome, entry.detail = "refused", str(error)
        except Unreachable as error:
            entry.outcome, entry.detail = "unreachable", str(error)
        except Broken as error:
            entry.outcome, entry.detail = "broken", str(error)
        except Wrong as error:
            entry.outcome, entry.detail = "wrong", str(error)
        finally:
            call.cancel()
        entry.done = self.now

    def judge(self, entry: Entry, said: Spoken, text: str, request_id: str) -> None:
        """Raises Wrong: the answer is not this request's."""
        entry.said = text
        if request_id != entry.id:
            raise Wrong(f"the answer is to {request_id!r}")
        if self.stage.scripted:
            if set(IDS.findall(text)) != {entry.id}:
                raise Wrong(f"the text is {text[:200]!r}")
        elif not is_answer(text, said, self.spoken):
            raise Wrong(f"the text is {text[:200]!r}")

    def prompt(self, entry: Entry) -> str:
        """What makes a scripted model's answer its own. A real one is not to be put on by it."""
        if not self.stage.scripted:
            return ""
        return f"{entry.id} {UNSURE}" if entry.unsure else entry.id

    def routing(self, entry: Entry) -> str:
        return "fallback" if entry.unsure and not self.stage.scripted else "auto"

    def metadata(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.stage.key}"), ("x-req-id", entry.id))

    async def by_pool(self, entry: Entry, said: Spoken) -> None:
        transcript = await self.pool.transcribe(
            said.files[entry.container],
            prompt=self.prompt(entry),
            routing=self.routing(entry),
            timeout=entry.deadline,
            metadata=self.metadata(entry),
        )
        self.judge(entry, said, transcript.text, transcript.request_id)

    async def by_stub(self, entry: Entry, said: Spoken) -> None:
        policy: Any = ROUTINGS[self.routing(entry)]
        options = pb.TranscribeOptions(prompt=self.prompt(entry), routing=policy)
        request = pb.TranscribeRequest(audio=said.files[entry.container], options=options)
        response = await self.by_plain_call(entry, request)
        self.judge(entry, said, response.text, response.request_id)

    async def by_plain_call(self, entry: Entry, request: pb.TranscribeRequest) -> pb.TranscribeResponse:
        """The response of one RPC, without any retry of the SDK's. Raises Told, Unreachable, Broken."""
        try:
            call: Any = self.stubs[entry.to].Transcribe(request, timeout=entry.deadline, metadata=self.metadata(entry))
            response: pb.TranscribeResponse = await call
            return response
        except grpc.aio.AioRpcError as error:
            raise _of_rpc(error) from None

    async def by_rest(self, entry: Entry, said: Spoken) -> None:
        fields = {"prompt": self.prompt(entry), "routing": self.routing(entry)}
        headers = {"X-Req-Id": entry.id, "X-Timeout-Ms": f"{entry.deadline * 1000:.0f}"}
        url = self._member(entry.to).http
        answer = await rest(self.http, url, said.files[entry.container], self.stage.key, fields, headers)
        self.judge(entry, said, answer["text"], answer["request_id"])

    async def by_stream(self, entry: Entry, said: Spoken) -> None:
        finals: dict[int, str] = {}
        events = self.pool.stream(
            pieces(said.pcm, 2),
            encoding=AudioFormat("linear16", RATE),
            prompt=self.prompt(entry),
            timeout=entry.deadline,
            metadata=self.metadata(entry),
            resume=True,
        )
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Final):
                    if event.utterance in finals:
                        raise Wrong(f"utterance {event.utterance} came twice")
                    finals[event.utterance] = event.result.text
        self.judge(entry, said, " ".join(finals.values()), entry.id)

    async def by_websocket(self, entry: Entry, said: Spoken) -> None:
        config = {"prompt": self.prompt(entry)}
        url = self._member(entry.to).http
        text = await websocket(url, pieces(said.pcm, 2), self.stage.key, config, entry.deadline)
        self.judge(entry, said, text, entry.id)

    def _member(self, name: str) -> Member:
        return {member.name: member for member in self.stage.members}[name]


Way = Callable[[Callers, Entry, Spoken], Coroutine[None, None, None]]
WAYS: dict[str, Way] = {
    "pool": Callers.by_pool,
    "gRPC": Callers.by_stub,
    "REST": Callers.by_rest,
    "stream": Callers.by_stream,
    "WebSocket": Callers.by_websocket,
}
PROBES = (
    ("pool", "pool", False),
    *(("gRPC", name, unsure) for name in ("a", "b") for unsure in (False, True)),
    *(("REST", name, False) for name in ("a", "b", "gateway")),
)
PROBE_S = 0.05
"""From one look at what others do to the next."""
STREAMS = ("stream", "WebSocket")
TEAM = (
    *(("pool", "pool"),) * 4,
    *(("gRPC", name) for name in ("a", "a", "b", "b")),
    *(("REST", name) for name in ("a", "b", "gateway", "gateway")),
    *(("stream", "pool"),) * 2,
    *(("WebSocket", name) for name in ("a", "gateway")),
)
"""A caller for each: how it calls, and whom."""


def _of_rpc(error: grpc.aio.AioRpcError) -> Exception:
    """What a plain caller sees of a failed call."""
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    if said := trailers.get("x-error-type"):
        return Told(said)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Told("deadline_exceeded")  # by the caller's own clock
    details = f"{error.code().name}: {error.details()}"
    # gRPC cancels a call that reaches a server while it shuts down, before any handler sees it.
    unseen = error.code() is grpc.StatusCode.CANCELLED or "failed to connect" in details.lower()
    return Unreachable(details) if unseen else Broken(details)
