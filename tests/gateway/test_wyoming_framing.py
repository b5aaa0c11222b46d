"""Reading Wyoming events within bounds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk
from wyoming.event import Event, async_write_event

from gateway.http.errors import Refusal
from gateway.wyoming import framing
from gateway.wyoming.framing import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, READER_LIMIT, read_event


def stream(sent: bytes, *, ended: bool = True) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=READER_LIMIT)
    reader.feed_data(sent)
    if ended:
        reader.feed_eof()
    return reader


def line(**header: Any) -> bytes:
    return json.dumps(header).encode() + b"\n"


class Written:
    """A writer that collects what the package writes."""

    def __init__(self) -> None:
        self.raw = b""

    def write(self, data: bytes) -> None:
        self.raw += data

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.raw += b"".join(pieces)

    async def drain(self) -> None:
        pass


@pytest.mark.parametrize(
    "event",
    [
        Event("describe"),
        Transcribe(language="de", transcript_names=["Küche", "日本"]).event(),
        AudioChunk(16_000, 2, 1, bytes(range(256))).event(),
        AudioChunk(16_000, 2, 1, bytes(MAX_PAYLOAD_BYTES)).event(),
    ],
    ids=["bare", "data", "payload", "largest-payload"],
)
async def test_what_the_package_writes_is_read(event: Event) -> None:
    written = Written()
    await async_write_event(event, written)  # type: ignore[arg-type]
    reader = stream(written.raw)
    assert await read_event(reader) == event
    assert await read_event(reader) is None


async def test_data_may_be_in_the_header_and_behind_it() -> None:
    more = b'{"b": 2}'
    reader = stream(line(type="x", data={"a": 1, "b": 1}, data_length=len(more)) + more)
    assert await read_event(reader) == Event("x", {"a": 1, "b": 2})


async def test_largest_header_is_read() -> None:
    type_ = "x" * (MAX_HEADER_BYTES - len(b'{"type": ""}'))
    assert await read_event(stream(line(type=type_))) == Event(type_)


@pytest.mark.parametrize(
    ("sent", "type_"),
    [
        (b"x" * (MAX_HEADER_BYTES + 1), "payload_too_large"),
        (b'{"type": "' + b"x" * (MAX_HEADER_BYTES - 11) + b'"}\n', "payload_too_large"),
        (line(type="x", data_length=MAX_HEADER_BYTES + 1), "payload_too_large"),
        (line(type="x", payload_length=MAX_PAYLOAD_BYTES + 1), "payload_too_large"),
        (line(type="x", payload_length=10**30), "payload_too_large"),
        (line(type="x", payload_length=-1), "invalid_argument"),
        (line(type="x", data_length=-1), "invalid_argument"),
        (line(type="x", payload_length=1.5), "invalid_argument"),
        (line(type="x", payload_length="12"), "invalid_argument"),
        (line(type="x", payload_length=True), "invalid_argument"),
        (b'{"type": "x", "payload_length": 1' + b"0" * 5000 + b"}\n", "invalid_argument"),
        (line(type=1), "invalid_argument"),
        (line(), "invalid_argument"),
        (line(type="x", data=[1]), "invalid_argument"),
        (line(type="x", data_length=2) + b"[]", "invalid_argument"),
        (b"\n", "invalid_argument"),
        (b"null\n", "invalid_argument"),
        (b"[" * 60_000 + b"\n", "invalid_argument"),
        (b"\xff\xfe\n", "invalid_argument"),
        (b'{"type": "ping", "data": {"text": "\\ud800"}}\n', "invalid_argument"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "invalid_argument"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n", "invalid_argument"),
    ],
    ids=range(22),
)
async def test_what_is_no_event_or_too_large_is_refused_unread(sent: bytes, type_: str) -> None:
    with pytest.raises(Refusal) as refused:
        await read_event(stream(sent, ended=False))
    assert refused.value.type == type_


@pytest.mark.parametrize("sent", [b'{"type"', line(type="x", data_length=9) + b"{", line(type="x", payload_length=2)])
async def test_an_event_that_breaks_off_is_the_end(sent: bytes) -> None:
    assert await read_event(stream(sent)) is None


async def test_an_event_in_drips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "EVENT_TIMEOUT_S", 0.01)
    with pytest.raises(Refusal) as refused:
        await read_event(stream(b"{", ended=False))
    assert refused.value.type == "deadline_exceeded"
