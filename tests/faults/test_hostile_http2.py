"""Hostile bytes, HTTP/2 frames and floods: a real process withstands them and serves other callers."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from stt_server.testing.services import ServiceProcess
from tests.faults.hostile import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    KEY,
    PATIENCE_S,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2,
    Wire,
    alive,
    call,
    frame,
    header_of,
    hpack,
    peak_mib,
    status_of,
)

BEARER = (b"authorization", b"Bearer " + KEY.encode())
OPEN = frame(HEADERS, END_HEADERS, 1, hpack(call(BEARER)))


def test_http_1_on_the_grpc_port_is_refused(attacked: ServiceProcess) -> None:
    with Wire(attacked.grpc_port) as wire:
        wire.send(b"GET /v1/health HTTP/1.1\r\nHost: stranger\r\n\r\n")
        answer = wire.read()
    assert b"200 OK" not in answer
    alive(attacked)


def test_grpc_on_the_http_port_is_refused(attacked: ServiceProcess) -> None:
    with Wire(attacked.http_port) as wire:
        wire.send(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, hpack(call(BEARER))))
        answer = wire.read()
    assert status_of(answer) == 505
    assert header_of(answer[: answer.index(b"}}")], "X-Error-Type") == "invalid_argument"


@pytest.mark.parametrize(
    "sent",
    [
        bytes(range(256)) * 200,
        PREFACE + bytes(range(256)) * 200,
        PREFACE + frame(SETTINGS, 0, 0, b"", 2**24 - 1) + bytes(100_000),
        PREFACE + frame(SETTINGS, 0, 0, b"\0" * 7),
        PREFACE + frame(SETTINGS, 0, 0, b"\0\x05\xff\xff\xff\xff"),
        PREFACE + frame(SETTINGS, 0, 0, (b"\0\x01\0\0\0\0" + b"\0\x01\xff\xff\xff\xff") * 1000) * 10,
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, bytes(1000)),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 2, hpack(call(BEARER))),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 0, hpack(call(BEARER))),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 10_000),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\xff\xff\xff\x7f"),
        PREFACE + frame(SETTINGS, 0, 0) + OPEN + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\0"),
        PREFACE + frame(SETTINGS, 0, 0) + OPEN + frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff") * 3,
        PREFACE + frame(SETTINGS, 0, 0) + OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(GOAWAY, 0, 0, bytes(8)) + OPEN,
        PREFACE + frame(SETTINGS, 0, 0) + frame(200, 255, 2**31 - 1, bytes(16_000)) * 20,
    ],
    ids=range(16),
)
def test_malformed_http_2_closes_its_own_connection_only(attacked: ServiceProcess, sent: bytes) -> None:
    before = peak_mib(attacked)
    with Wire(attacked.grpc_port) as wire:
        wire.send(sent)
        alive(attacked)
    assert peak_mib(attacked) - before < 25


def test_endless_headers_are_not_buffered(attacked: ServiceProcess) -> None:
    """CVE-2024-27316 and similar: endless CONTINUATION frames."""
    before = peak_mib(attacked)
    piece = frame(CONTINUATION, 0, 1, hpack([(b"x-a", b"a" * 16_000)]))
    with Http2(attacked.grpc_port) as wire:
        wire.headers(1, call(BEARER), flags=0)
        for _ in range(100):
            wire.send(piece * 100)  # 160 MB in all
        alive(attacked)
    assert peak_mib(attacked) - before < 110, "only read-ahead may be buffered"


def test_a_thousand_reset_streams_leak_nothing(attacked: ServiceProcess) -> None:
    """CVE-2023-44487 (rapid reset), without a key: only the protocol limits it."""
    alive(attacked)
    before, began = peak_mib(attacked), time.monotonic()
    opening = hpack(call())
    for _ in range(5):
        with Http2(attacked.grpc_port) as wire:
            for first in range(1, 4001, 200):
                wire.send(
                    b"".join(
                        frame(HEADERS, END_HEADERS, stream, opening) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
                        for stream in range(first, first + 200, 2)
                    )
                )
            alive(attacked)
    assert time.monotonic() - began < 5 * PATIENCE_S
    assert peak_mib(attacked) - before < 60


def test_floods_of_pings_and_settings_delay_no_one(attacked: ServiceProcess) -> None:
    before = peak_mib(attacked)
    for flood in (frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0)):
        with Http2(attacked.grpc_port) as wire:
            for _ in range(200):
                wire.send(flood * 100)
            alive(attacked)
    assert peak_mib(attacked) - before < 60


def test_silent_connections_delay_no_one(attacked: ServiceProcess) -> None:
    before = attacked.resident_mib()
    with ExitStack() as stack:
        for number in range(600):
            wire = stack.enter_context(Wire(attacked.grpc_port))
            wire.send((b"", PREFACE[:5], PREFACE, PREFACE + frame(SETTINGS, 0, 0) + OPEN)[number % 4])
        alive(attacked)
        assert attacked.resident_mib() - before < 100
    alive(attacked)
