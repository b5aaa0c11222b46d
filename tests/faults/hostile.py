"""Hand-written hostile requests, and checks of the answers for leaks."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.errors import ERRORS
from stt_server.testing.paths import ROOT
from stt_server.testing.services import ServiceProcess
from tests.support.services import speech

if TYPE_CHECKING:
    from typing_extensions import Self

KEY = "the-key-of-the-web-0123456789abcdef"
BEARER = f"Authorization: Bearer {KEY}"
Metadata = tuple[tuple[str, str], ...]
LET_IN: Metadata = (("authorization", f"Bearer {KEY}"),)
CLOSE = "Connection: close"
FORM = "Content-Type: multipart/form-data; boundary=frontier"
PATIENCE_S = 30.0
"""Longest wait, in seconds, for an answer that is due at once: a busy machine may need some of it."""

_LEAKS = re.compile(
    rb"Traceback|File \"|line \d+, in |\.py\b|site-packages|/(?:usr|home|root|tmp|work|opt|proc|var|etc)/"
    rb"|unix:|grpc\.sock|0x[0-9a-f]{8}|object at |_pb2|Exception\b"
)


def clean(*pieces: object) -> None:
    """Assert that parts of an answer (body, headers, details, trailers) hold no path, traceback or key."""
    for piece in pieces:
        raw = piece if isinstance(piece, bytes) else str(piece).encode()
        assert KEY.encode() not in raw, raw
        assert str(ROOT).encode() not in raw, raw
        assert not (found := _LEAKS.search(raw)), (found, raw[:2000])


def part(name: str, value: bytes, more: str = "") -> bytes:
    """One part of a form; `more`: text after its name."""
    head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--frontier--\r\n"


def head(*lines: str, start: str = "POST /v1/transcribe HTTP/1.1", host: str = "Host: stranger") -> bytes:
    """A request up to its empty line, encoded as Latin-1."""
    return "\r\n".join((start, host, *lines, "", "")).encode("latin-1")


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


class Wire:
    """A raw connection. `clean` checks everything received."""

    def __init__(self, port: int, timeout_s: float = PATIENCE_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, raw: bytes) -> None:
        """Send; ignore that the other end has closed."""
        try:
            self._socket.sendall(raw)
        except OSError:
            return

    def half_close(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def read(self, until: bytes = b"") -> bytes:
        """Receive until the other end closes, or until those bytes arrived.

        Raises:
            TimeoutError: neither happened in time.
        """
        received = b""
        try:
            while not (until and until in received) and (more := self._socket.recv(65536)):
                received += more
        except ConnectionError:
            pass
        clean(received)
        return received

    def exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count and (more := self._socket.recv(count - len(received))):
            received += more
        return received


def http(port: int, raw: bytes) -> bytes:
    """Answer to `raw` bytes, until the connection closes."""
    with Wire(port) as wire:
        wire.send(raw)
        return wire.read()


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def post(service: ServiceProcess, body: bytes, content_type: str = FORM, path: str = "/v1/transcribe") -> bytes:
    """Answer to a body sent with a valid key."""
    start = f"POST {path} HTTP/1.1"
    return http(service.http_port, head(BEARER, content_type, CLOSE, length(body), start=start) + body)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def header_of(answer: bytes, name: str) -> str:
    """A header's value; empty if absent. Asserts that it occurs once at most."""
    found = re.findall(rb"(?im)^%s: ([^\r\n]*)\r$" % name.encode(), answer.partition(b"\r\n\r\n")[0] + b"\r")
    assert len(found) < 2, found
    return found[0].decode("latin-1") if found else ""


def assert_error(answer: bytes, type_: str, status: int | None = None) -> str:
    """Assert that an answer is an error of the table in the contract's format; return its message."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert status_of(answer) == (status or ERRORS[type_].http), answer
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["type"] == header_of(answer, "X-Error-Type") == type_
    assert error["message"] == header_of(answer, "X-Error-Message")
    assert error["message"].isascii() and error["message"].isprintable() and 0 < len(error["message"]) <= 256
    assert error["request_id"] == header_of(answer, "X-Req-Id") != ""
    return str(error["message"])


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame of HTTP/2; `length`: declared instead of the payload's length."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def hpack(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as literals without indexing and without Huffman coding (RFC 7541, 6.2.2)."""
    return b"".join(b"\x00" + _hpack_text(name) + _hpack_text(value) for name, value in pairs)


def _hpack_text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, size = len(text) - 127, b"\x7f"
    while rest >= 128:
        size, rest = size + bytes((rest % 128 + 128,)), rest // 128
    return size + bytes((rest,)) + text


def call(*more: tuple[bytes, bytes], method: bytes = b"/stt.v1.SpeechToText/Transcribe") -> list[tuple[bytes, bytes]]:
    """The headers of a gRPC call."""
    first = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", method), (b":authority", b"stranger")]
    return [*first, (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more]


class Http2(Wire):
    """A raw HTTP/2 connection."""

    def __init__(self, port: int, timeout_s: float = PATIENCE_S) -> None:
        super().__init__(port, timeout_s)
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def headers(self, stream: int, pairs: Sequence[tuple[bytes, bytes]], flags: int = END_HEADERS) -> None:
        self.send(frame(HEADERS, flags, stream, hpack(pairs)))

    def frames_until(self, *kinds: int) -> list[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of each frame, up to one of these types, or the connection's end."""
        found = []
        try:
            while first := self.exactly(9):
                kind, flags, stream = first[3], first[4], int.from_bytes(first[5:9], "big")
                payload = self.exactly(int.from_bytes(first[:3], "big"))
                clean(payload)
                found.append((kind, flags, stream, payload))
                if kind in kinds:
                    break
        except ConnectionError:
            pass
        return found


def peak_mib(service: ServiceProcess) -> float:
    """Peak resident memory of the process, MiB."""
    status = Path(f"/proc/{service.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def alive(service: ServiceProcess) -> None:
    """Assert that an ordinary gRPC call on a new connection succeeds."""
    with grpc.insecure_channel(service.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        health = health_pb2.HealthCheckRequest(service="stt.v1.SpeechToText")
        answer = health_pb2_grpc.HealthStub(channel).Check(health, timeout=PATIENCE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = pb.TranscribeRequest(audio=speech())
        stub = speech_pb2_grpc.SpeechToTextStub(channel)
        assert stub.Transcribe(request, metadata=LET_IN, timeout=PATIENCE_S).text
