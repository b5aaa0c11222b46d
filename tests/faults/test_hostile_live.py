"""Malformed frames, invalid messages and foreign origins, sent to the live endpoint of a real process."""

from __future__ import annotations

import json
import struct

import pytest

from stt_server.testing.services import ServiceProcess
from tests.faults.frames import BINARY, TEXT, handshake, masked
from tests.faults.hostile import BEARER, KEY, Wire, assert_error, http, status_of

CONFIG = json.dumps({"encoding": "linear16", "sample_rate_hertz": 16000}).encode()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "https://\xe9"])
def test_foreign_origin_cannot_open_a_stream(attacked: ServiceProcess, origin: str) -> None:
    answer = http(attacked.http_port, handshake(f"Origin: {origin}", BEARER))
    assert_error(answer[: answer.index(b"}}") + 2], "invalid_argument", 403)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (masked(BINARY, b"\0\0"), 1007),
        (masked(TEXT, b"not json"), 1007),
        (masked(TEXT, b"[" * 50_000), 1007),
        (masked(TEXT, b"[]"), 1007),
        (masked(TEXT, b'{"encoding": "linear16", "sample_rate_hertz": 1' + b"0" * 5000 + b"}"), 1007),
        (masked(TEXT, b'{"flush": {}}'), 1007),
        (masked(TEXT, json.dumps({"x\r\n\0": 1}).encode()), 1007),
        (masked(TEXT, b'{"prompt": "\\ud800", "encoding": "linear16", "sample_rate_hertz": 16000}'), 1007),
        (masked(TEXT, b"\xff\xfe"), 1007),
        (masked(TEXT, CONFIG) + masked(TEXT, CONFIG), 1007),
        (masked(TEXT, CONFIG) + masked(BINARY, bytes(2**20 + 2)), 1009),
        (masked(TEXT, b"", 2**40), 1009),
        (masked(TEXT, b"", 2**63), 1009),
        (masked(BINARY, bytes(2**21 + 1)), 1009),
        (b"\x81\x05hello", 1002),
        (masked(0xF1, b"reserved bits"), 1002),
        (masked(0x83, b"no such opcode"), 1002),
        (masked(0x89, bytes(200)), 1002),
        (masked(0x80, b"a continuation of nothing"), 1002),
        (masked(0x01, b"a") + masked(0x00, b"") * 5000, 1009),
        (bytes(range(256)) * 40, 1002),
    ],
    ids=range(21),
)
def test_protocol_violation_closes_with_its_code(attacked: ServiceProcess, sent: bytes, code: int) -> None:
    with Wire(attacked.http_port) as wire:
        wire.send(handshake(BEARER))
        assert status_of(wire.read(until=b"\r\n\r\n")) == 101
        wire.send(sent)
        answer = wire.read(until=struct.pack(">H", code))
    assert struct.pack(">H", code) in answer, answer


def test_stream_with_a_wrong_key_is_unauthenticated(attacked: ServiceProcess) -> None:
    for key in ("wrong", f"{KEY}x", "schl\u00fcssel", "a\r\nb", "x" * 5000):
        with Wire(attacked.http_port) as wire:
            wire.send(handshake())
            assert status_of(wire.read(until=b"\r\n\r\n")) == 101
            wire.send(masked(TEXT, json.dumps({**json.loads(CONFIG), "api_key": key}).encode()))
            answer = wire.read(until=struct.pack(">H", 1008))
        assert b'"unauthenticated"' in answer
