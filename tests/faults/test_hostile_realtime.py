"""Hostile frames, messages and headers, sent to Realtime sessions of a real process."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stt_server.testing.services import ServiceProcess
from tests.faults.frames import BINARY, TEXT, handshake, masked
from tests.faults.hostile import BEARER, KEY, Wire, alive, header_of, http, peak_mib, status_of

PATH = "/v1/realtime"
APPEND = "input_audio_buffer.append"
MARKER = b"input_audio_buffer_commit_empty"
"""In the answer to a commit without audio: everything before it was processed."""


def text(**fields: object) -> bytes:
    return masked(TEXT, json.dumps(fields).encode())


COMMIT = text(type="input_audio_buffer.commit")


@contextmanager
def session(service: ServiceProcess, *lines: str) -> Iterator[Wire]:
    """An open session."""
    with Wire(service.http_port) as wire:
        wire.send(handshake(BEARER, *lines, path=PATH))
        assert status_of(wire.read(until=b"session.created")) == 101
        yield wire


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((), 401),
        (("Authorization: Bearer wrong",), 401),
        ((BEARER, BEARER), 401),
        ((f"Authorization: Bearer {'x' * 5000}",), 401),
        (("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.",), 401),
        (("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.schl\xfcssel",), 400),
        ((BEARER, "Origin: https://evil.example"), 403),
        ((BEARER, "Origin: null"), 403),
    ],
)
def test_the_handshake_is_refused(attacked: ServiceProcess, lines: tuple[str, ...], status: int) -> None:
    answer = http(attacked.http_port, handshake(*lines, path=PATH))
    assert status_of(answer) == status, answer
    if status != 400:  # invalid for WebSockets: the library answers
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["type"] == "invalid_request_error" and error["request_id"] == header_of(answer, "x-request-id")


def test_the_key_in_the_address_does_not_count(attacked: ServiceProcess) -> None:
    answer = http(attacked.http_port, handshake(path=f"{PATH}?api_key={KEY}&model=whisper-1"))
    assert status_of(answer) == 401


def test_huge_headers_are_refused(attacked: ServiceProcess) -> None:
    for lines in (("X-A: " + "a" * 100_000,), tuple(f"X-{n}: a" for n in range(5000))):
        assert status_of(http(attacked.http_port, handshake(BEARER, *lines, path=PATH))) in (400, 431)


@pytest.mark.parametrize(
    "sent",
    [
        masked(TEXT, b"not json"),
        masked(TEXT, b"[" * 1_000_000),
        masked(TEXT, b'{"a":' * 300_000),
        masked(TEXT, b'{"type": ' + b"9" * 1_000_000 + b"}"),
        masked(TEXT, b'{"type": "session.update", "session": ' + b'{"audio":' * 900 + b"1" + b"}" * 901),
        masked(BINARY, bytes(1000)),
        text(type=APPEND, audio="*" * 1_000_000),
        text(type=APPEND, audio=[0] * 100_000),
        text(type="session.update", session={"audio": {"input": {"format": {"type": "audio/pcm", "rate": 10**300}}}}),
        text(type="session.update", session={"audio": {"input": {"transcription": {"languages": ["xx"] * 50_000}}}}),
        text(type="session.update", session={"audio": {"input": {"transcription": {"prompt": "\ud800"}}}}),
        text(type="x\r\n\0", event_id="y" * 100_000),
        text(type="conversation.item.delete", item_id="../../etc/passwd"),
        COMMIT + COMMIT,
    ],
    ids=range(14),
)
def test_a_hostile_message_is_an_error_event(attacked: ServiceProcess, sent: bytes) -> None:
    with session(attacked) as wire:
        wire.send(sent)
        wire.send(COMMIT)
        answer = wire.read(until=MARKER)
    assert answer.count(b'"invalid_request_error"') >= 1
    assert len(answer) < 4000


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (masked(TEXT, b"", 2**40), 1009),
        (masked(TEXT, b"x" * (2**21 + 1)), 1009),
        (masked(TEXT, b"\xff\xfe"), 1007),
        (b"\x81\x05hello", 1002),
        (masked(0x01, b"a") + masked(0x00, b"") * 5000, 1009),
        (bytes(range(256)) * 40, 1002),
    ],
    ids=range(6),
)
def test_a_protocol_violation_closes_with_its_code(attacked: ServiceProcess, sent: bytes, code: int) -> None:
    with session(attacked) as wire:
        wire.send(sent)
        assert struct.pack(">H", code) in wire.read(until=struct.pack(">H", code))


def test_events_in_any_order_end_no_session(attacked: ServiceProcess) -> None:
    audio = base64.b64encode(bytes(48_000)).decode()
    update = {"audio": {"input": {"turn_detection": None}}}
    with session(attacked) as wire:
        for number in range(20):
            wire.send(text(type="input_audio_buffer.clear"))
            wire.send(text(type=APPEND, audio=audio if number % 2 else ""))
            wire.send(COMMIT)
            wire.send(text(type="session.update", session=update if number % 3 else {"audio": None}))
            wire.send(text(type="transcription_session.update", session={"turn_detection": {"type": "server_vad"}}))
        wire.send(text(type="input_audio_buffer.clear"))
        answer = b""
        while answer.count(b"input_audio_buffer.cleared") < 21:
            answer += wire.read(until=b"input_audio_buffer.cleared")
    assert answer.count(b"input_audio_buffer.committed") == 10


def test_many_large_messages_take_bounded_memory(attacked: ServiceProcess) -> None:
    alive(attacked)
    before = peak_mib(attacked)
    large = text(type=APPEND, audio=base64.b64encode(bytes(1_500_000)).decode())
    wires = [Wire(attacked.http_port) for _ in range(8)]
    for wire in wires:
        wire.send(handshake(BEARER, path=PATH))
        assert status_of(wire.read(until=b"session.created")) == 101
    for wire in wires:
        wire.send(text(type="session.update", session={"audio": {"input": {"turn_detection": None}}}))
        wire.send(large[: len(large) // 2])  # and never the rest
    for wire in wires[:4]:
        wire.send(large[len(large) // 2 :])
        wire.send(COMMIT)
        wire.read(until=b"transcription.completed")
    for wire in wires:
        wire.__exit__()
    alive(attacked)
    assert peak_mib(attacked) - before < 200
