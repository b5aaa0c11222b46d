"""Hostile HTTP requests to a real process: each is answered, none delays others, and nothing leaks."""

from __future__ import annotations

import gzip
import hashlib
import time
import zlib
from contextlib import ExitStack
from functools import cache

import pytest

from stt_client import SyncSttClient
from stt_server.testing.paths import SPEECH
from stt_server.testing.services import ServiceProcess
from tests.faults.hostile import (
    BEARER,
    CLOSE,
    FORM,
    KEY,
    PATIENCE_S,
    PREFACE,
    Wire,
    assert_error,
    chunked,
    form,
    head,
    header_of,
    http,
    length,
    part,
    peak_mib,
    post,
    status_of,
)
from tests.support.services import speech

BODY = form(part("audio", b"RIFF", '; filename="a.wav"'))
"""A request that ends with 415 once admitted."""


def alive(service: ServiceProcess) -> None:
    """Assert that an ordinary request succeeds."""
    answer = http(service.http_port, head(CLOSE, start="GET /v1/health HTTP/1.1"))
    assert (status_of(answer), b'"ok":true' in answer) == (200, True)
    body = form(part("audio", speech()))
    assert status_of(post(service, body)) == 200


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Authorization:",),
        ("Authorization: Bearer",),
        ("Authorization: Bearer wrong",),
        (f"Authorization: Bearer {KEY[:-1]}",),
        (f"Authorization: Bearer {KEY}x",),
        (f"Authorization: Basic {KEY}",),
        (f"Authorization: {KEY}",),
        (BEARER, BEARER),
        (BEARER, "Authorization: Bearer wrong"),
        (f"Authorization: Bearer {KEY}, Bearer {KEY}",),
        ("Authorization: Bearer cl\xe9",),
        ("Authorization: Bearer \xd0\xba\xd0\xbb\xd1\x8e\xd1\x87",),
        ("Authorization: Bearer " + "x" * 9000,),
        (f"X-Api-Key: {KEY}", f"Cookie: key={KEY}"),
    ],
)
def test_a_bad_key_is_refused_before_the_body_is_read(attacked: ServiceProcess, lines: tuple[str, ...]) -> None:
    with Wire(attacked.http_port) as wire:
        wire.send(head(*lines, FORM, "Content-Length: 1000000"))
        answer = wire.read(until=b"}}")
    assert_error(answer, "unauthenticated")
    assert header_of(answer, "WWW-Authenticate") == "Bearer"
    assert header_of(answer, "Connection") == "close"


def test_a_key_in_the_url_does_not_count(attacked: ServiceProcess) -> None:
    start = f"POST /v1/transcribe?key={KEY}&authorization=Bearer%20{KEY} HTTP/1.1"
    assert_error(http(attacked.http_port, head(FORM, CLOSE, length(BODY), start=start) + BODY), "unauthenticated")


SMUGGLED = head(start="GET /v1/health HTTP/1.1")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Content-Length: -5",), 400),
        (("Content-Length: +5",), 400),
        (("Content-Length: 0x10",), 400),
        (("Content-Length: 1e3",), 400),
        (("Content-Length: five",), 400),
        (("Content-Length:",), 400),
        (("Content-Length: 5, 6",), 400),
        (("Content-Length: " + "9" * 30,), 400),
        (("Content-Length: 5", "Content-Length: 6"), 400),
        (("Content-Length: 1000000000000",), 413),
        (("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (("Transfer-Encoding: chunked", "Content-Length: 5"), 400),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (("Transfer-Encoding: gzip, chunked",), 400),
        (("Transfer-Encoding: chunked, identity",), 400),
        (("Transfer-Encoding: xchunked",), 400),
        (("Content-Length : 5",), 400),
        (("X-A: a\0b", "Content-Length: 5"), 400),
        (("Host: another", "Content-Length: 5"), 400),
        ((), 400),
    ],
)
def test_ambiguous_lengths_are_refused_and_smuggle_nothing(
    attacked: ServiceProcess, lines: tuple[str, ...], status: int
) -> None:
    answer = http(attacked.http_port, head(BEARER, FORM, *lines) + chunked(BODY) + SMUGGLED)
    if lines == ():
        # Without a length the body is empty (RFC 9112, 6.3): the rest is a new request, and a chunk is not a valid one.
        assert [status_of(b"HTTP/1.1 " + it) for it in answer.split(b"HTTP/1.1 ")[1:]] == [400, 400]
    else:
        assert_error(answer, "payload_too_large" if status == 413 else "invalid_argument", status)


def test_a_body_shorter_or_longer_than_declared(attacked: ServiceProcess) -> None:
    assert_error(http(attacked.http_port, head(BEARER, FORM, CLOSE, "Content-Length: 20") + BODY), "invalid_argument")
    assert_error(
        http(attacked.http_port, head(BEARER, FORM, CLOSE, length(BODY)) + BODY + SMUGGLED), "unsupported_audio"
    )
    with Wire(attacked.http_port) as wire:
        wire.send(head(BEARER, FORM, "Content-Length: 1000") + BODY)
    alive(attacked)


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nxx\r\n0\r\n\r\n",
        b"-5\r\nabcde\r\n0\r\n\r\n",
        b"0x5\r\nabcde\r\n0\r\n\r\n",
        b"f" * 40 + b"\r\nabc",
        b"5\r\nabcdefgh\r\n0\r\n\r\n",
        b"5\r\nabcde0\r\n\r\n",
        b"5;" + b"x" * 100_000 + b"\r\nabcde\r\n0\r\n\r\n",
        b"".join(b"1;" + b"e" * 8000 + b"\r\nx\r\n" for _ in range(200)),
        b"0\r\n" + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    ],
    ids=lambda chunks: repr(chunks[:12]),
)
def test_broken_chunks_and_huge_extensions_are_refused(attacked: ServiceProcess, chunks: bytes) -> None:
    answer = http(attacked.http_port, head(BEARER, FORM, CLOSE, "Transfer-Encoding: chunked") + chunks)
    assert_error(answer, "invalid_argument")


def test_chunks_count_towards_the_limit(attacked: ServiceProcess) -> None:
    body = form(part("audio", bytes(2**20 + 1)))
    pieces = b"".join(
        b"%x\r\n%s\r\n" % (len(body[i : i + 9999]), body[i : i + 9999]) for i in range(0, len(body), 9999)
    )
    raw = head(BEARER, FORM, CLOSE, "Transfer-Encoding: chunked") + pieces + b"0\r\n\r\n"
    assert_error(http(attacked.http_port, raw), "payload_too_large")


@pytest.mark.parametrize(
    ("raw", "type_", "status"),
    [
        (head("X-A: " + "a" * 100_000, CLOSE), "invalid_argument", (400, 431)),
        (head(*(f"X-{n}: a" for n in range(5000)), CLOSE), "invalid_argument", (400, 431)),
        (head(CLOSE, start=f"GET /{'a' * 100_000} HTTP/1.1"), "invalid_argument", (400, 431)),
        (head(CLOSE, start="GET /v1/health HTTP/2.0"), "invalid_argument", (505,)),
        (head(CLOSE, start="GET /v1/health HTTP/0.9"), "invalid_argument", (505,)),
        (head(CLOSE, start="get"), "invalid_argument", (400,)),
        (head(CLOSE, start="CONNECT 127.0.0.1:22 HTTP/1.1"), "invalid_argument", (404,)),
        (head(CLOSE, start="TRACE /v1/health HTTP/1.1"), "invalid_argument", (405,)),
        (head(CLOSE, start="GET http://elsewhere.example/v1/health HTTP/1.1"), "invalid_argument", (404,)),
        (head(CLOSE, start="GET /live/../../../../etc/passwd HTTP/1.1"), "invalid_argument", (404,)),
        (head(CLOSE, start="GET /live/%2e%2e/%2e%2e/%2e%2e/etc/passwd%00 HTTP/1.1"), "invalid_argument", (404,)),
        (head(CLOSE, start="GET /a%0d%0aX-Injected:%20a HTTP/1.1"), "invalid_argument", (404,)),
        (PREFACE + bytes(100), "invalid_argument", (505,)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500, "invalid_argument", (400,)),
        (bytes(range(256)) * 100, "invalid_argument", (400,)),
        (b"\r\n" * 50_000, "invalid_argument", (400, 0)),
    ],
    ids=range(16),
)
def test_malformed_heads_are_refused(attacked: ServiceProcess, raw: bytes, type_: str, status: tuple[int, ...]) -> None:
    answer = http(attacked.http_port, raw).replace(b"HTTP/1.1 400 Bad Request\r\n", b"", 0)
    first = answer[: answer.index(b"}}") + 2] if b"}}" in answer else answer
    assert status_of(first) in status
    if first:
        assert_error(first, type_, status_of(first))
        assert not header_of(first, "X-Injected")


@cache
def gzipped() -> bytes:
    """200 MiB of zeros."""
    return gzip.compress(bytes(200 * 2**20), 6)


@cache
def deflated() -> bytes:
    return zlib.compress(bytes(200 * 2**20))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "x-gzip", "identity, gzip", "gzip;q=1"])
def test_a_compressed_body_is_refused_and_never_inflated(attacked: ServiceProcess, coding: str) -> None:
    bomb = deflated() if coding == "deflate" else gzipped()
    before = peak_mib(attacked)
    raw = head(BEARER, FORM, CLOSE, length(bomb), f"Content-Encoding: {coding}") + bomb
    assert "Content-Encoding" in assert_error(http(attacked.http_port, raw), "invalid_argument")
    assert peak_mib(attacked) - before < 100


def test_a_compressed_part_is_not_inflated(attacked: ServiceProcess) -> None:
    bomb = gzipped()
    before = peak_mib(attacked)
    for more in ("", "\r\nContent-Encoding: gzip", "\r\nContent-Type: application/gzip"):
        body = form(part("audio", bomb, f'; filename="a.wav.gz"{more}'))
        assert_error(post(attacked, body), "unsupported_audio")
    assert peak_mib(attacked) - before < 100


@pytest.mark.parametrize("given", ["a b", "\xe9", "x" * 65, "a;b", "../..", "a\x7f", "\x1b[31m", "a\tb"])
def test_an_invalid_request_id_is_replaced(attacked: ServiceProcess, given: str) -> None:
    for lines in ((f"X-Req-Id: {given}",), ("X-Req-Id: one", "X-Req-Id: two")):
        answer = http(attacked.http_port, head(BEARER, FORM, CLOSE, length(BODY), *lines) + BODY)
        assert_error(answer, "unsupported_audio" if status_of(answer) == 415 else "invalid_argument", status_of(answer))
        assert header_of(answer, "X-Req-Id").isalnum()
        assert header_of(answer, "X-Req-Id") not in (given, "one", "two")


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "0", "1e999", "five", "", "9" * 5000, "1\x0b", "\xb2"])
def test_an_invalid_timeout_is_refused(attacked: ServiceProcess, given: str) -> None:
    answer = http(attacked.http_port, head(BEARER, FORM, CLOSE, length(BODY), f"X-Timeout-Ms: {given}") + BODY)
    assert_error(answer, "invalid_argument")


def test_hundreds_of_slow_heads_and_bodies_delay_no_one(attacked: ServiceProcess) -> None:
    before = attacked.resident_mib()
    with ExitStack() as stack:
        for number in range(700):
            wire = stack.enter_context(Wire(attacked.http_port))
            body = part("audio", bytes(500_000))[:-2]
            slow_body = head(BEARER, FORM, "Content-Length: 900000") + body
            wire.send(slow_body if number % 10 == 0 else b"POST /v1/transcribe HTTP/1.1\r\nHost: x\r\nX-Slow")
        began = time.monotonic()
        alive(attacked)
        with SyncSttClient(attacked.target, api_key=KEY) as client:
            assert client.transcribe(SPEECH).text
        assert time.monotonic() - began < PATIENCE_S
        assert attacked.descriptors() < 700
        assert attacked.resident_mib() - before < 200
    alive(attacked)


def test_the_key_is_in_no_metric_and_no_page(attacked: ServiceProcess) -> None:
    for path in ("/metrics", "/v1/metrics", "/v1/health", "/openapi.json", "/docs", "/live/"):
        # Checked by `clean`, which `http` does not do for pages that show paths on purpose.
        answer = http(attacked.http_port, head(CLOSE, start=f"GET {path} HTTP/1.1"))
        assert hashlib.sha256(KEY.encode()).hexdigest().encode() not in answer
        assert status_of(answer) in (200, 307, 308, 404)
    alive(attacked)
