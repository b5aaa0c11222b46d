"""Hostile bytes, HTTP/2 frames and floods: a real process withstands them and serves other callers."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import version

import pytest

from stt_server.testing.services import ServiceProcess
from tests.faults.hostile import (
    DATA,
    END_HEADERS,
    HEADERS,
    KEY,
    PREFACE,
    RST_STREAM,
    SETTINGS,
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
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, bytes(1000)),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 10_000),
    ],
    ids=["not HTTP/2", "data without headers", "invalid HPACK"],
)
def test_malformed_http_2_closes_its_own_connection_only(attacked: ServiceProcess, sent: bytes) -> None:
    before = peak_mib(attacked)
    with Wire(attacked.grpc_port) as wire:
        wire.send(sent)
        alive(attacked)
    assert peak_mib(attacked) - before < 25


def test_reset_streams_cancel_no_other_callers_calls(attacked: ServiceProcess) -> None:
    """Rapid reset (CVE-2023-44487) without a key, against `MAX_PENDING_CALLS`."""
    alive(attacked)
    before = peak_mib(attacked)
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
    assert peak_mib(attacked) - before < 60


def test_grpc_has_its_fixes_for_frame_floods() -> None:
    """gRPC limits floods of CONTINUATION (CVE-2024-27316), PING and SETTINGS frames since older versions."""
    assert tuple(map(int, version("grpcio").split(".")[:2])) >= (1, 85)


def test_silent_connections_delay_no_one(attacked: ServiceProcess) -> None:
    before = attacked.resident_mib()
    with ExitStack() as stack:
        for number in range(600):
            wire = stack.enter_context(Wire(attacked.grpc_port))
            wire.send((b"", PREFACE[:5], PREFACE, PREFACE + frame(SETTINGS, 0, 0) + OPEN)[number % 4])
        alive(attacked)
        assert attacked.resident_mib() - before < 100
    alive(attacked)
