"""A pair under requests of every kind that contain secrets, and a record of everything that it answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import grpc
import httpx
from google.protobuf.text_format import MessageToString

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess
from tests.faults.callers import PATIENCE_S, post, rest, say, socket_to, streaming
from tests.support.services import speech
from tests.support.speech import samples_of

CALLER_KEY = "caller+7f3a/9c2e=5b81~d046"
NEW_KEY = "rotated+1d9b/44ce=b07a~92f1"
FALLBACK_KEY = "fallback+e1d0/83fa=2c6b~7795"
WRONG_KEY = "stranger+0b6e/51dd=97ac~3f28"
TEXT = "zyxquartz vexmuffin"
LARGER_TEXT = "jabberfjord wumpwhistle"
PROMPT = "promptoxide crumblewick"
HOTWORD = "hotglimmer"
FILE_NAME = "nameplinth.wav"
ODD = "oddfangle"
"""Sent where a known name is expected; errors may quote it."""
AUDIO = b"rawflummox, which is no audio"
ADDRESS = "203.0.113.77"

SAID_BY_CALLERS = (CALLER_KEY, FALLBACK_KEY, WRONG_KEY, *PROMPT.split(), HOTWORD, FILE_NAME, "rawflummox", ADDRESS)
SPOKEN = (*TEXT.split(), *LARGER_TEXT.split())
KEYS = (CALLER_KEY, NEW_KEY, FALLBACK_KEY, WRONG_KEY)


def forms(secret: str) -> Iterator[str]:
    """Encodings in which a secret may leak."""
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield json.dumps(secret)[1:-1]
    yield secret.encode().hex()
    for text in (secret, f"Bearer {secret}"):
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + text.encode()).decode()
            # Without the characters that neighbouring bytes influence.
            yield coded[4:-4]
            yield coded[4:-4].replace("+", "-").replace("/", "_")


@dataclass
class Answers:
    """What callers received."""

    successes: list[str] = field(default_factory=list)
    """Answers of successful calls."""
    errors: list[str] = field(default_factory=list)
    """Bodies, headers, trailers and statuses of failed calls."""

    def response(self, answer: httpx.Response) -> httpx.Response:
        kept = self.successes if answer.status_code < 400 else self.errors
        kept.append(f"{answer.status_code} {dict(answer.headers)} {answer.text}")
        return answer

    def failed(self, error: grpc.aio.AioRpcError) -> None:
        self.errors.append(f"{error.code()} {error.details()} {list(error.trailing_metadata() or ())}")


def authorized(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"), ("x-forwarded-for", ADDRESS))


class Busy:
    """A primary with its fallback, both at the most verbose log level."""

    def __init__(self, primary: ServiceProcess, fallback: ServiceProcess) -> None:
        self.primary, self.fallback = primary, fallback
        self.answers = Answers()

    async def work(self) -> None:
        """Every kind of request once, successful and failing."""
        async with self.primary.channel() as channel, self._http() as client:
            stub = speech_pb2_grpc.SpeechToTextStub(channel)
            await self._calls(stub, client)
            for error in ("engine", "out_of_memory", "bug"):
                self.primary.act(Script(text=TEXT, error=error, spares_silence=True))
                await self._calls(stub, client)
            self.primary.act(Script(text=TEXT, confidence=0.1))
            await self._calls(stub, client)
            await self._streams()
            self.fallback.act(Script(text=LARGER_TEXT, error="bug", spares_silence=True))
            await self._calls(stub, client)
            await self._exceed_a_deadline(stub)
            self.primary.act(Script(text=TEXT))
            self.fallback.act(Script(text=LARGER_TEXT))
            await self._streams()
            await self._refused(stub, client)
            await self._rotate(client)

    async def _exceed_a_deadline(self, stub: Any) -> None:
        """Call until the service reports the deadline; on a busy machine the transport may end the call first."""
        self.primary.act(Script(text=TEXT, seconds=1))
        end = asyncio.get_running_loop().time() + PATIENCE_S
        while "'deadline_exceeded'" not in self.answers.errors[-1]:
            assert asyncio.get_running_loop().time() < end, self.answers.errors[-1]
            await self._call(stub, authorized(CALLER_KEY), timeout=0.5)

    async def strangers(self, count: int) -> None:
        """Call as `count` callers, each with a method, path, language, id, address and key of its own."""
        async with self.primary.channel() as channel, self._http() as client:
            stub = speech_pb2_grpc.SpeechToTextStub(channel)

            async def one(number: int) -> None:
                metadata = (
                    ("authorization", f"Bearer wrong-{number}"),
                    ("x-forwarded-for", f"198.51.100.{number % 256}"),
                )
                headers = {**dict(metadata), "x-req-id": f"id-{number}"}
                await self._call(stub, (*metadata, ("x-req-id", f"id-{number}")))
                await self._call(stub, authorized(CALLER_KEY), audio=b"x", language=f"xx-{number}")
                await self._unknown_method(channel, f"/stt.v1.SpeechToText/Bogus{number}")
                await self._unknown_method(channel, f"/bogus.v{number}.Service/Call")
                self.answers.response(await client.get(f"/v1/bogus-{number}?q={number}", headers=headers))
                self.answers.response(await client.request(f"BOGUS{number}", "/v1/transcribe", headers=headers))

            gate = asyncio.Semaphore(8)

            async def in_turn(number: int) -> None:
                async with gate:
                    await one(number)

            await asyncio.gather(*map(in_turn, range(count)))

    def _http(self, key: str = CALLER_KEY) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}", "x-forwarded-for": ADDRESS}
        return httpx.AsyncClient(base_url=self.primary.url, timeout=PATIENCE_S, headers=headers)

    async def _call(self, stub: Any, metadata: Sequence[tuple[str, str]], timeout: float = 20, **options: Any) -> None:
        audio = options.pop("audio", None)
        given = {"prompt": PROMPT, "hotwords": [HOTWORD], **options}
        request = pb.TranscribeRequest(
            audio=speech() if audio is None else audio, options=pb.TranscribeOptions(**given)
        )
        try:
            answer = await stub.Transcribe(request, metadata=metadata, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            self.answers.failed(error)
        else:
            self.answers.successes.append(MessageToString(answer))

    async def _unknown_method(self, channel: grpc.aio.Channel, method: str) -> None:
        try:
            call: Any = channel.unary_unary(method)
            await call(b"x", timeout=20)
        except grpc.aio.AioRpcError as error:
            self.answers.failed(error)

    async def _calls(self, stub: Any, client: httpx.AsyncClient) -> None:
        await self._call(stub, authorized(CALLER_KEY))
        self.answers.response(await post(client, prompt=PROMPT, hotwords=HOTWORD))

    async def _refused(self, stub: Any, client: httpx.AsyncClient) -> None:
        for key in (WRONG_KEY, f"{CALLER_KEY}x"):
            await self._call(stub, authorized(key))
            self.answers.response(await client.get(f"/v1/transcribe?api_key={quote(key)}"))
            async with self._http(key) as stranger:
                self.answers.response(await post(stranger))
        await self._call(stub, ())
        for audio in (b"", AUDIO, speech()[:60], bytes(3 * 2**20)):
            await self._call(stub, authorized(CALLER_KEY), audio=audio)
            files = {"audio": (FILE_NAME, audio, "audio/wav")}
            self.answers.response(await client.post("/v1/transcribe", files=files, data={"prompt": PROMPT}))
        for fields in ({"language": ODD}, {"task": ODD}, {"routing": ODD}, {ODD: "1"}):
            self.answers.response(await post(client, None, **fields))
        headers = {"content-type": "multipart/form-data; boundary=x"}
        self.answers.response(await client.post("/v1/transcribe", content=AUDIO, headers=headers))
        self.answers.response(await client.get(f"/{ODD}?key={quote(CALLER_KEY)}"))

    async def _streams(self) -> None:
        samples = samples_of(SPEECH)
        for metadata in (authorized(CALLER_KEY), authorized(WRONG_KEY)):
            options = pb.TranscribeOptions(prompt=PROMPT, hotwords=[HOTWORD])
            async with streaming(self.primary, metadata, options=options) as caller:
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # possibly refused already
                    await caller.send_audio(samples)
                    await caller.call.done_writing()
                try:
                    self.answers.successes.extend(map(MessageToString, await caller.rest()))
                except grpc.aio.AioRpcError as error:
                    self.answers.failed(error)
        for fields in ({"api_key": CALLER_KEY}, {"api_key": WRONG_KEY}, {"language": ODD}, {ODD: PROMPT}):
            async with socket_to(self.primary, prompt=PROMPT, hotwords=[HOTWORD], **fields) as socket:
                with contextlib.suppress(Exception):  # some are closed before everything is sent
                    await say(socket, samples)
                    await socket.send('{"end": {}}')
                events, code = await rest(socket)
                (self.answers.successes if code == 1000 else self.answers.errors).append(json.dumps(events))

    async def _rotate(self, client: httpx.AsyncClient) -> None:
        """Add a key beside the old one, and wait until it is applied."""
        self.primary.write_config(API_KEYS=f"web:{CALLER_KEY},next:{NEW_KEY}")

        async def taken_up() -> None:
            while 'key_name="next"' not in (await client.get("/metrics")).text:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)

        await asyncio.wait_for(taken_up(), PATIENCE_S)
