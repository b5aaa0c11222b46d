"""Hostile callers: invalid uploads and slow bodies."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable, Mapping

from buildscripts.lib.chaos.callers import Callers
from buildscripts.lib.chaos.deployment import Member
from buildscripts.lib.chaos.ledger import Entry
from buildscripts.lib.chaos.transports import Transports
from buildscripts.lib.load.plain_clients import NoResponse, Unreachable, rest
from protos.stt.v1 import speech_pb2 as pb
from stt_server.testing.processes import HOST

NOT_AUDIO = ("unsupported_audio", "invalid_argument", "empty_audio", "audio_too_long")
SLOW_S = 0.5


def _wav(rate: int, samples: int) -> bytes:
    """Noise as a WAV file with any sample rate in its header."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    data = random.Random(rate).randbytes(2 * samples)  # noqa: S311
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data


UPLOADS: Mapping[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "garbage": (lambda: random.randbytes(50000), NOT_AUDIO),  # noqa: S311
    "nothing": (lambda: b"", NOT_AUDIO),
    "a playlist": (lambda: b"ffconcat version 1.0\nfile '/etc/passwd'\n" * 100, NOT_AUDIO),
    "8 Hz": (lambda: _wav(8, 20000), NOT_AUDIO),
    "4 GHz": (lambda: _wav(2**32 // 2 - 1, 1000), NOT_AUDIO),
    "half a header": (lambda: _wav(16000, 1000)[:30], NOT_AUDIO),
    "an endless Ogg page": (lambda: b"OggS" + b"\xff" * 100000, NOT_AUDIO),
    "too much": (lambda: bytes(3 << 20), (*NOT_AUDIO, "payload_too_large")),
}


async def attack(callers: Callers, member: Member, chance: random.Random, stop: asyncio.Event) -> None:
    """Send hostile requests to one primary, one at a time, until `stop`."""
    while not stop.is_set():
        name = chance.choice((*UPLOADS, "a slow body"))
        entry, _ = callers.entry("hostile", member.name, unsure=False)
        entry.container = name
        callers.ledger.entries.append(entry)
        if name == "a slow body":
            await callers.settle(entry, _trickle(callers.transports, member), SLOW_S)
        else:
            make, entry.may = UPLOADS[name]
            transport = _rest if chance.random() < 0.5 else _stub
            await callers.settle(entry, transport(callers.transports, member, entry, make()))
        await asyncio.sleep(chance.uniform(0.01, 0.1))


async def _rest(transports: Transports, member: Member, entry: Entry, audio: bytes) -> None:
    headers = {"X-Req-Id": entry.id}
    http, key = transports.connections.http, transports.deployment.key
    entry.said = (await rest(http, member.http, audio, key, {}, headers))["text"]


async def _stub(transports: Transports, member: Member, entry: Entry, audio: bytes) -> None:
    request = pb.TranscribeRequest(audio=audio)
    entry.said = (await transports.call_stub(entry, request)).text


async def _trickle(transports: Transports, member: Member) -> None:
    """Upload one byte every 50 ms."""
    try:
        _, writer = await asyncio.open_connection(HOST, member.http_port)
    except ConnectionRefusedError as error:
        raise Unreachable(str(error)) from None
    try:
        head = f"POST /v1/transcribe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {transports.deployment.key}\r\n"
        writer.write(f"{head}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9999\r\n\r\n".encode())
        while True:
            writer.write(b"-")
            await writer.drain()
            await asyncio.sleep(0.05)
    except ConnectionError as error:
        raise NoResponse(str(error)) from None
    finally:
        writer.transport.abort()
