"""Malformed events, floods and slow senders, sent to the Wyoming port of a real process."""

from __future__ import annotations

import json
import random
import socket
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from gateway.wyoming.server import MAX_CONNECTIONS
from stt_server.testing.services import ServiceProcess
from tests.faults.hostile import Wire, alive, peak_mib

AUDIO: dict[str, Any] = {"rate": 16_000, "width": 2, "channels": 1}


def event(type_: str, payload: bytes = b"", /, **data: object) -> bytes:
    header = {"type": type_, "data": data, **({"payload_length": len(payload)} if payload else {})}
    return json.dumps(header).encode() + b"\n" + payload


START, STOP = event("audio-start", **AUDIO), event("audio-stop")
SPOKEN = START + event("audio-chunk", bytes(3200), **AUDIO) + STOP
PING = event("ping", text="x")


def events_of(answer: bytes) -> list[dict[str, object]]:
    """Types and data of the events in an answer, which have no payloads."""
    found, rest = [], answer
    while rest:
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        size = header.get("data_length", 0)
        found.append({"type": header["type"], **json.loads(rest[:size] or b"{}")})
        rest = rest[size:]
    return found


def exchange(service: ServiceProcess, *sent: bytes) -> list[dict[str, object]]:
    """The answer to what is sent, until the other end closes."""
    with Wire(service.wyoming_port) as wire:
        for piece in sent:
            wire.send(piece)
        return events_of(wire.read())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b'{"type": "' + b"x" * 100_000, "payload_too_large"),
        (b"x" * 10_000_000, "payload_too_large"),
        (b'{"type": "audio-chunk", "payload_length": 1048577}\n', "payload_too_large"),
        (b'{"type": "audio-chunk", "data_length": 99999999999}\n', "payload_too_large"),
        (b'{"type": "audio-chunk", "payload_length": -5}\n', "invalid_argument"),
        (b'{"type": "ping", "data": {"text": "\\udfff"}}\n', "invalid_argument"),
        (b"[" * 65_000 + b"\n", "invalid_argument"),
        (b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n", "invalid_argument"),
        (START + START, "invalid_argument"),
        (START + event("audio-chunk", b"\0\0", **{**AUDIO, "rate": 8000}), "invalid_argument"),
        (START + event("audio-chunk", b"\0\0\0", **AUDIO) + STOP, "invalid_argument"),
        (START + event("audio-chunk", bytes(2**20), **AUDIO) * 2, "payload_too_large"),
        (event("audio-start", **{**AUDIO, "rate": 10**400}), "invalid_argument"),
        (event("transcribe", language="klingon") + SPOKEN, "invalid_argument"),
        (event("transcribe", language="x" * 50_000) + SPOKEN, "invalid_argument"),
    ],
    ids=range(15),
)
def test_violation_is_an_error_and_the_end(attacked: ServiceProcess, sent: bytes, code: str) -> None:
    answers = exchange(attacked, sent)
    assert [(each["type"], each["code"]) for each in answers] == [("error", code)]


def test_random_bytes_end_each_connection_and_nothing_else(attacked: ServiceProcess) -> None:
    dice = random.Random(20)
    for _ in range(100):
        with Wire(attacked.wyoming_port) as wire:
            wire.send(dice.randbytes(dice.randrange(1, 3000)) + b"\n")
            wire.send(b"\n")
            answers = events_of(wire.read())
        assert [each["type"] for each in answers] == ["error"]
    alive(attacked)


def test_flood_of_declared_payloads_is_not_buffered(attacked: ServiceProcess) -> None:
    before = peak_mib(attacked)
    for _ in range(50):
        exchange(attacked, b'{"type": "audio-chunk", "payload_length": 1000000000}\n' + bytes(1_000_000))
    assert peak_mib(attacked) - before < 64
    alive(attacked)


def test_senders_that_stop_within_an_event_leave_room_for_others(attacked: ServiceProcess) -> None:
    """Connections that hold an incomplete event, as many as are allowed, make way for one that speaks."""
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 5):
            stack.enter_context(Wire(attacked.wyoming_port)).send(PING[:9])
        with Wire(attacked.wyoming_port) as wire:
            wire.send(PING)
            assert events_of(wire.read(until=b'"x"}')) == [{"type": "pong", "text": "x"}]


def test_caller_that_never_reads_does_not_stop_others(attacked: ServiceProcess) -> None:
    with socket.create_connection(("127.0.0.1", attacked.wyoming_port), timeout=0.5) as deaf:
        with suppress(TimeoutError):
            for _ in range(10):
                deaf.sendall(event("ping", text="x" * 60_000) * 50)
        with Wire(attacked.wyoming_port) as wire:
            wire.send(PING)
            assert events_of(wire.read(until=b'"x"}')) == [{"type": "pong", "text": "x"}]


def test_half_closed_connection_is_closed(attacked: ServiceProcess) -> None:
    with Wire(attacked.wyoming_port) as wire:
        wire.send(START + event("audio-chunk", bytes(3200), **AUDIO))
        wire.half_close()
        assert wire.read() == b""
    alive(attacked)
