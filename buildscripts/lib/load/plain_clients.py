"""REST, OpenAI, WebSocket and Wyoming clients without the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException
from wyoming.client import AsyncTcpClient
from wyoming.event import Event

from protos.stt.v1.errors import ERRORS
from stt_server.testing.wyoming_caller import answers, speak

RATE = 16000
CHUNK_S = 0.1
"""Seconds of live audio in one message."""


class ApiError(Exception):
    """An error of the error table; the text is its type."""


class NoResponse(Exception):
    """Neither an answer nor an error of the table, such as a broken connection; the text says what."""


class Unreachable(NoResponse):
    """The connection was refused: nothing was sent."""


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def rest(
    http: httpx.AsyncClient,
    url: str,
    audio: bytes,
    key: str,
    fields: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Send POST /v1/transcribe; return the JSON response.

    Args:
        url: `http://host:port`.
        headers: in addition to the key.

    Raises:
        ApiError: the gateway or its service refused the request.
        NoResponse: anything else was answered, or nothing.
        Unreachable: a `NoResponse` before anything was sent.
    """
    files = {"audio": ("a recording", audio)}
    reply = await _post(http, f"{url}/v1/transcribe", files, fields, {**bearer(key), **(headers or {})})
    body = _json(reply.text)
    if reply.status_code == httpx.codes.OK and "text" in body:
        return body
    raise error_of(body.get("error"), f"HTTP {reply.status_code}")


async def openai(
    http: httpx.AsyncClient,
    url: str,
    audio: bytes,
    key: str,
    fields: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Send POST /v1/audio/transcriptions; return text and request id. Arguments and errors are those of `rest`.

    Args:
        fields: with `stream=true`, the text is that of the deltas put together.
    """
    files = {"file": ("a recording", audio)}
    target = f"{url}/v1/audio/transcriptions"
    reply = await _post(http, target, files, {"model": "whisper-1", **fields}, {**bearer(key), **(headers or {})})
    if reply.status_code != httpx.codes.OK:
        raise error_of({"type": reply.headers.get("x-error-type")}, f"HTTP {reply.status_code}")
    text = _deltas(reply.text) if fields.get("stream") == "true" else _json(reply.text).get("text")
    if not isinstance(text, str):
        raise NoResponse(f"HTTP 200: {reply.text[:200]!r}")
    return text, reply.headers["x-request-id"]


def _deltas(lines: str) -> str:
    """The text of a whole stream. Raises ApiError, or NoResponse if it isn't whole."""
    found = [line.removeprefix("data: ") for line in lines.splitlines() if line.startswith("data: ")]
    events = [_json(line) for line in found]
    text = "".join(event.get("delta", "") for event in events)
    if found[-1:] == ["[DONE]"] and any(event.get("text") == text for event in events):
        return text
    error = events[-1].get("error") if events else None
    raise error_of({"type": error.get("code")} if isinstance(error, dict) else None, f"a stream that ends {found[-1:]}")


async def _post(
    http: httpx.AsyncClient, url: str, files: Any, fields: Mapping[str, str], headers: Mapping[str, str]
) -> httpx.Response:
    try:
        return await http.post(url, files=files, data=dict(fields), headers=dict(headers))
    except httpx.ConnectError as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from None
    except httpx.TransportError as error:
        raise NoResponse(f"{type(error).__name__}: {error}") from None


async def websocket(
    url: str, pcm: AsyncIterator[bytes], key: str, config: Mapping[str, Any], timeout: float = 60
) -> str:
    """Stream `pcm` over GET /v1/stream, then end the stream; return the finals, joined.

    Args:
        url: `http://host:port`.
        pcm: mono, 16-bit, at 16 kHz.
        config: fields of the first message, in addition to the encoding.

    Raises:
        ApiError: the stream ended with an error.
        NoResponse: the connection broke.
    """
    first = {"encoding": "linear16", "sample_rate_hertz": RATE, "api_key": key, **config}
    try:
        return await asyncio.wait_for(
            _finals(url.replace("http", "ws", 1) + "/v1/stream", json.dumps(first), pcm), timeout
        )
    except InvalidStatus as refused:
        body = _json(bytes(refused.response.body or b""))
        raise error_of(body.get("error"), f"HTTP {refused.response.status_code}") from None
    except ConnectionRefusedError as error:
        raise Unreachable(str(error)) from None
    except (OSError, WebSocketException, asyncio.TimeoutError) as error:
        raise NoResponse(f"{type(error).__name__}: {error}") from None


async def _finals(url: str, first: str, pcm: AsyncIterator[bytes]) -> str:
    finals: list[str] = []
    async with connect(url) as socket:

        async def speak() -> None:
            await socket.send(first)
            async for piece in pcm:
                await socket.send(piece)
            await socket.send('{"end": {}}')

        speaking = asyncio.create_task(speak())
        try:
            async for message in socket:  # until the server closes it with 1000
                said = _json(message)
                if "error" in said:
                    raise error_of(said["error"], "not an error of the table")
                if "final" in said:
                    finals.append(said["final"]["result"]["text"].strip())
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
    return " ".join(finals)


async def wyoming(address: str, pcm: AsyncIterable[bytes], hotwords: Sequence[str] = (), timeout: float = 60) -> str:
    """Send `pcm` to the Wyoming port; return the transcript.

    Args:
        address: `host:port`.
        pcm: mono, 16-bit, at 16 kHz.

    Raises:
        ApiError: the answer is an error.
        NoResponse: the connection broke, or the answer is not one transcript.
    """
    host, _, port = address.rpartition(":")
    try:
        events = await asyncio.wait_for(_wyoming_answers(AsyncTcpClient(host, int(port)), pcm, hotwords), timeout)
    except ConnectionRefusedError as error:
        raise Unreachable(str(error)) from None
    except (OSError, asyncio.TimeoutError) as error:
        raise NoResponse(f"{type(error).__name__}: {error}") from None
    if events and events[-1].type == "error":
        raise error_of({"type": events[-1].data.get("code")}, "an unknown code")
    texts = [str(event.data["text"]) for event in events if event.type == "transcript"]
    chunks = "".join(str(event.data["text"]) for event in events if event.type == "transcript-chunk")
    if len(texts) != 1 or chunks != texts[0]:
        raise NoResponse(f"events {[event.type for event in events]}, texts {texts!r}"[:200])
    return texts[0]


async def _wyoming_answers(client: AsyncTcpClient, pcm: AsyncIterable[bytes], hotwords: Sequence[str]) -> list[Event]:
    async with client:
        with contextlib.suppress(ConnectionError):  # refused while speaking: the answer says why
            await speak(client, pcm, RATE, transcript_names=list(hotwords))
        return await answers(client)


def error_of(error: Any, otherwise: str) -> ApiError | NoResponse:
    """Exception for the JSON of an error."""
    type_ = error.get("type") if isinstance(error, dict) else None
    return ApiError(type_) if type_ in ERRORS else NoResponse(f"{otherwise}: {error!r}"[:200])


async def paced_chunks(pcm: bytes, speed: float = 1.0) -> AsyncIterator[bytes]:
    """Mono 16-bit audio at 16 kHz in chunks, paced at `speed` times real time."""
    size = round(CHUNK_S * RATE) * 2
    began = time.monotonic()
    for at in range(0, len(pcm), size):
        await asyncio.sleep(max(0.0, began + (at / 2 / RATE) / speed - time.monotonic()))
        yield pcm[at : at + size]


def _json(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
