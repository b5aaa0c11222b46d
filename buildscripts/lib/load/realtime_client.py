"""Client of `GET /v1/realtime` without OpenAI's package."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from buildscripts.lib.load.plain_clients import RATE, ApiError, NoResponse, Unreachable, bearer
from gateway.openai.errors import OPENAI_ERRORS

COMPLETED = "conversation.item.input_audio_transcription.completed"
_TYPES = {error.code: type_ for type_, error in OPENAI_ERRORS.items()}


async def realtime(
    url: str,
    pcm: AsyncIterator[bytes],
    key: str,
    settings: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> str:
    """Transcribe `pcm` in a session of its own; return the transcripts of its items, joined.

    Args:
        url: `http://host:port`.
        pcm: mono, 16-bit, at 16 kHz.
        settings: of `audio.input`, in addition to the format.
        headers: in addition to the key.

    Raises:
        ApiError: the session, or an item of it, failed.
        NoResponse: the connection broke.
        Unreachable: a `NoResponse` before anything was sent.
    """
    try:
        return await asyncio.wait_for(_transcripts(url, pcm, settings, {**bearer(key), **(headers or {})}), timeout)
    except InvalidStatus as refused:
        raise _error_of(_json(bytes(refused.response.body or b"")).get("error")) from None
    except ConnectionRefusedError as error:
        raise Unreachable(str(error)) from None
    except (OSError, WebSocketException, asyncio.TimeoutError) as error:
        raise NoResponse(f"{type(error).__name__}: {error}") from None


async def _transcripts(
    url: str, pcm: AsyncIterator[bytes], settings: Mapping[str, Any], headers: Mapping[str, str]
) -> str:
    texts = []
    async with aclosing(realtime_events(url, pcm, settings, headers)) as events:
        async for event in events:
            if event["type"] == COMPLETED:
                texts.append(event["transcript"].strip())
    return " ".join(filter(None, texts))


async def realtime_events(
    url: str, pcm: AsyncIterator[bytes], settings: Mapping[str, Any], headers: Mapping[str, str]
) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a session, until all of `pcm` is committed and transcribed. For arguments see `realtime`.

    Raises:
        ApiError, NoResponse: an event reports an error.
        OSError, WebSocketException: the connection broke.
    """
    async with connect(
        url.replace("http", "ws", 1) + "/v1/realtime", additional_headers=dict(headers), compression=None
    ) as socket:
        speaking = asyncio.create_task(_speak(socket, pcm, settings))
        try:
            async for message in socket:
                event = _json(message)
                if "error" in event:  # of the session or of an item
                    raise _error_of(event["error"])
                if event.get("type") == "input_audio_buffer.cleared":
                    return
                yield event
            raise NoResponse("the session was closed without an error")
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)


async def _speak(socket: ClientConnection, pcm: AsyncIterator[bytes], settings: Mapping[str, Any]) -> None:
    audio_input = {"format": {"type": "audio/pcm", "rate": RATE}, **settings}
    session = {"type": "transcription", "audio": {"input": audio_input}}
    await socket.send(json.dumps({"type": "session.update", "session": session}))
    async for piece in pcm:
        audio = base64.b64encode(piece).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
    await socket.send('{"type": "input_audio_buffer.commit"}')
    # Answered behind the results of the commit, whose number depends on the turns that were detected.
    await socket.send('{"type": "input_audio_buffer.clear"}')


def _error_of(error: Any) -> ApiError | NoResponse:
    code = error.get("code") if isinstance(error, dict) else None
    return ApiError(_TYPES[code]) if code in _TYPES else NoResponse(f"not an error of the table: {error!r}"[:200])


def _json(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
