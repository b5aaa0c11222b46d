"""What strangers send to a real process over gRPC: each is answered, nobody else waits, and nothing is given away."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.errors import ERRORS
from stt_server.rpc.limits import METADATA_BYTES
from tests.faults.hostile import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
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
    call,
    clean,
    frame,
    header_of,
    hpack,
    peak_mib,
    status_of,
)
from tests.faults.processes import ServiceProcess
from tests.services import LARGE, speech

Metadata = tuple[tuple[str, str], ...]
LET_IN: Metadata = (("authorization", f"Bearer {KEY}"),)
TRANSCRIBE = "/stt.v1.SpeechToText/Transcribe"
BEARER = (b"authorization", b"Bearer " + KEY.encode())


@pytest.fixture
def channel(besieged: ServiceProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(besieged.target, options=LARGE) as found:
        yield found


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return speech_pb2_grpc.SpeechToTextStub(channel)


def failure(attempt: Any) -> grpc.RpcError:
    """The error that a call, or a list of what a stream says, ends with: checked for what no answer may hold."""
    with pytest.raises(grpc.RpcError) as caught:
        attempt()
    error: Any = caught.value
    clean(error.details(), *(f"{name}: {value}" for name, value in error.trailing_metadata() or ()))
    clean(*(value for _, value in error.trailing_metadata() or () if isinstance(value, bytes)))
    return error  # type: ignore[no-any-return]


def told(error: Any, type_: str) -> str:
    """An error of the table in the contract's shape; its message."""
    trailers = dict(error.trailing_metadata())
    kind = ERRORS[type_]
    assert (error.code().name, trailers["x-error-type"]) == (kind.status, type_)
    message = str(trailers["x-error-message"])
    assert message.isascii() and message.isprintable() and 0 < len(message) <= 256
    details = error.details()
    assert "\r" not in details and "\n" not in details and "\0" not in details
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == type_.upper()
    return message


def alive(service: ServiceProcess) -> None:
    """An ordinary caller is served, on a connection of its own."""
    with grpc.insecure_channel(service.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        asked = health_pb2.HealthCheckRequest(service="stt.v1.SpeechToText")
        told = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=PATIENCE_S)
        assert told.status == health_pb2.HealthCheckResponse.SERVING
        request = pb.TranscribeRequest(audio=speech())
        stub = speech_pb2_grpc.SpeechToTextStub(channel)
        assert stub.Transcribe(request, metadata=LET_IN, timeout=PATIENCE_S).text


BAD_KEYS: list[Metadata] = [
    (),
    (("authorization", ""),),
    (("authorization", "Bearer"),),
    (("authorization", "Bearer wrong"),),
    (("authorization", f"Bearer {KEY[:-1]}"),),
    (("authorization", f"Bearer {KEY}x"),),
    (("authorization", f"Basic {KEY}"),),
    (("authorization", KEY),),
    (*LET_IN, *LET_IN),
    (*LET_IN, ("authorization", "Bearer wrong")),
    (("authorization", f"Bearer {KEY},Bearer {KEY}"),),
    (("authorization", "Bearer " + "x" * 12_000),),
    (("x-api-key", KEY), ("x-verify-key", KEY)),
]


@pytest.mark.parametrize("metadata", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_a_bad_key_is_refused_before_the_message_is_read(channel: grpc.Channel, metadata: Metadata) -> None:
    """A unary call whose message never comes: whoever reads it first would wait for ever."""
    ending: list[None] = []

    def never() -> Iterator[bytes]:
        while not ending:
            time.sleep(0.01)
        yield from ()

    method: Any = channel.stream_unary(TRANSCRIBE)
    error = failure(lambda: method(never(), metadata=metadata, timeout=PATIENCE_S))
    ending.append(None)
    told(error, "unauthenticated")


@pytest.mark.parametrize("metadata", BAD_KEYS[:4], ids=range(4))
def test_a_bad_key_opens_no_stream(stub: Any, metadata: Metadata) -> None:
    config = pb.StreamConfig(format=pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16000))
    sent = iter([pb.StreamTranscribeRequest(config=config)])
    told(failure(lambda: list(stub.StreamTranscribe(sent, metadata=metadata, timeout=PATIENCE_S))), "unauthenticated")


def test_the_right_key_is_waited_for(channel: grpc.Channel) -> None:
    """The counterpart of the refusals above: with it, the missing message is what is waited for."""
    ending: list[None] = []

    def never() -> Iterator[bytes]:
        while not ending:
            time.sleep(0.01)
        yield from ()

    method: Any = channel.stream_unary(TRANSCRIBE)
    error: Any = failure(lambda: method(never(), metadata=LET_IN, timeout=0.5))
    ending.append(None)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("value", [b"Bearer cl\xc3\xa9", b"Bearer \xff\xfe", b"Bearer \xd0\xba", b"Bearer a\x01b"])
def test_a_key_of_other_bytes_is_refused(besieged: ServiceProcess, value: bytes) -> None:
    with Http2(besieged.grpc_port) as wire:
        wire.headers(1, call((b"authorization", value)))
        frames = wire.frames_until(HEADERS, RST_STREAM, GOAWAY)
    assert frames[-1][0] in (HEADERS, RST_STREAM, GOAWAY)
    assert frames[-1][0] != HEADERS or frames[-1][1] & END_STREAM
    alive(besieged)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("mib", [30, 150])
def test_a_compressed_message_that_inflates_over_the_limit_is_refused(
    besieged: ServiceProcess, stub: Any, compression: grpc.Compression, mib: int
) -> None:
    before = peak_mib(besieged)
    request = pb.TranscribeRequest(audio=bytes(mib * 2**20))
    error: Any = failure(
        lambda: stub.Transcribe(request, metadata=LET_IN, compression=compression, timeout=4 * PATIENCE_S)
    )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_mib(besieged) - before < 25


def test_a_compressed_message_within_the_limit_is_taken(stub: Any) -> None:
    request = pb.TranscribeRequest(audio=speech())
    assert stub.Transcribe(request, metadata=LET_IN, compression=grpc.Compression.Gzip, timeout=PATIENCE_S).text


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (b"gzip", b"\x01" + (100).to_bytes(4, "big") + b"g" * 100),
        (b"gzip", b"\x01" + (0).to_bytes(4, "big")),
        (b"gzip", b"\x01" + (30).to_bytes(4, "big") + gzip.compress(bytes(100))[:30]),
        (b"identity", b"\x01" + (5).to_bytes(4, "big") + b"abcde"),
        (b"br", b"\x01" + (5).to_bytes(4, "big") + b"abcde"),
        (b"identity", b"\xff" + (5).to_bytes(4, "big") + b"abcde"),
        (b"identity", b"\x00" + (2**32 - 1).to_bytes(4, "big") + b"abcde"),
        (b"identity", b"\x00" + (5).to_bytes(4, "big") + b"abc"),
        (b"identity", b"\x00\x00"),
        (b"identity", b""),
    ],
    ids=range(10),
)
def test_a_message_that_is_none_is_refused(besieged: ServiceProcess, encoding: bytes, message: bytes) -> None:
    before = peak_mib(besieged)
    with Http2(besieged.grpc_port) as wire:
        wire.headers(1, call(BEARER, (b"grpc-encoding", encoding)))
        wire.send(frame(DATA, END_STREAM, 1, message))
        frames = wire.frames_until(HEADERS, RST_STREAM, GOAWAY)
    assert frames[-1][0] in (HEADERS, RST_STREAM, GOAWAY)
    assert peak_mib(besieged) - before < 25
    alive(besieged)


@pytest.mark.parametrize("raw", [b"\xff" * 100, b"\x1a\xff\xff\xff\xff\x0f", b"\x0a" * 5000], ids=range(3))
def test_bytes_that_are_no_request_are_refused(channel: grpc.Channel, raw: bytes) -> None:
    method: Any = channel.unary_unary(TRANSCRIBE)
    error: Any = failure(lambda: method(raw, metadata=LET_IN, timeout=PATIENCE_S))
    told(error, "invalid_argument")
    for other in ("/stt.v1.Operations/GetStatus", "/grpc.health.v1.Health/Check"):
        calling: Any = channel.unary_unary(other)
        error = failure(lambda calling=calling: calling(raw, timeout=PATIENCE_S))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_metadata_up_to_its_limit_is_taken_and_over_it_refused(stub: Any) -> None:
    request = pb.TranscribeRequest(audio=speech())
    for _ in range(4):  # by chance would do neither each time
        near = (*LET_IN, ("x-near", "n" * (METADATA_BYTES - 1500)))
        assert stub.Transcribe(request, metadata=near, timeout=PATIENCE_S).text
        for over in (("x-over", "o" * METADATA_BYTES),), tuple((f"x-{n}", "o") for n in range(600)):
            error: Any = failure(
                lambda over=over: stub.Transcribe(request, metadata=(*LET_IN, *over), timeout=PATIENCE_S)
            )
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_recording_over_the_limit_is_told_so_and_one_far_over_it_is_not_even_read(
    besieged: ServiceProcess, stub: Any
) -> None:
    def send(size: int) -> Any:
        return failure(
            lambda: stub.Transcribe(pb.TranscribeRequest(audio=bytes(size)), metadata=LET_IN, timeout=PATIENCE_S)
        )

    told(send(2**20 + 1), "payload_too_large")
    before = peak_mib(besieged)
    assert send(200 * 2**20).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_mib(besieged) - before < 25


def config(**fields: Any) -> pb.StreamTranscribeRequest:
    format_ = pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16000)
    return pb.StreamTranscribeRequest(config=pb.StreamConfig(format=format_, options=pb.TranscribeOptions(**fields)))


def audio(size: int) -> pb.StreamTranscribeRequest:
    return pb.StreamTranscribeRequest(audio=bytes(size))


@pytest.mark.parametrize(
    ("sent", "type_"),
    [
        ([], "invalid_argument"),
        ([pb.StreamTranscribeRequest()], "invalid_argument"),
        ([audio(320)], "invalid_argument"),
        ([pb.StreamTranscribeRequest(flush=pb.Flush())], "invalid_argument"),
        ([pb.StreamTranscribeRequest(config=pb.StreamConfig())], "invalid_argument"),
        ([config(), config()], "invalid_argument"),
        ([config(), pb.StreamTranscribeRequest()], "invalid_argument"),
        ([config(), audio(2**20 + 2)], "invalid_argument"),
        ([config(language="x\r\nx-injected: 1\0\u202e")], "invalid_argument"),
        ([config(candidate_languages=["xx"] * 10_000)], "invalid_argument"),
    ],
    ids=range(10),
)
def test_a_stream_that_breaks_the_rules_is_told(stub: Any, sent: list[Any], type_: str) -> None:
    error = failure(lambda: list(stub.StreamTranscribe(iter(sent), metadata=LET_IN, timeout=PATIENCE_S)))
    told(error, type_)


@pytest.mark.parametrize(
    "options",
    [
        {"language": "xx\r\nx-injected: 1"},
        {"language": "nul\0"},
        {"language": "naïve \U0001f600\u202e" * 1000},
        {"task": 99},
        {"routing": -1},
    ],
    ids=range(5),
)
def test_an_option_of_any_characters_is_refused_in_plain_ones(stub: Any, options: dict[str, Any]) -> None:
    request = pb.TranscribeRequest(audio=speech(), options=pb.TranscribeOptions(**options))
    error: Any = failure(lambda: stub.Transcribe(request, metadata=LET_IN, timeout=PATIENCE_S))
    told(error, "invalid_argument")
    assert "x-injected" not in dict(error.trailing_metadata())


@pytest.mark.parametrize("prompt", ["line\r\nx-injected: 1", "nul\0", "naïve 你好 \U0001f600\u202e", "\x1b[31m"])
def test_a_text_of_any_characters_comes_back_as_a_text(stub: Any, prompt: str) -> None:
    request = pb.TranscribeRequest(audio=speech(), options=pb.TranscribeOptions(prompt=prompt))
    response, ended = stub.Transcribe.with_call(request, metadata=LET_IN, timeout=PATIENCE_S)
    assert "".join(prompt.split()) in "".join(response.text.split())
    clean(*(f"{name}: {value}" for name, value in ended.trailing_metadata()))
    assert "x-injected" not in dict(ended.trailing_metadata())


@pytest.mark.parametrize("given", ["a b", "x" * 65, "a;b", "../..", ""])
def test_an_id_that_is_not_fit_for_a_log_is_replaced(stub: Any, given: str) -> None:
    error: Any = failure(
        lambda: stub.Transcribe(pb.TranscribeRequest(), metadata=(*LET_IN, ("x-req-id", given)), timeout=PATIENCE_S)
    )
    told(error, "empty_audio")
    assert dict(error.trailing_metadata())["x-req-id"].isalnum()


@pytest.mark.parametrize("method", ["/stt.v1.SpeechToText/Nothing", "/../../etc/passwd", "/stt.v1.SpeechToText/", "/"])
def test_a_method_that_is_none_is_unimplemented(channel: grpc.Channel, method: str) -> None:
    calling: Any = channel.unary_unary(method)
    error: Any = failure(lambda: calling(b"", metadata=LET_IN, timeout=PATIENCE_S))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_http_1_on_the_port_of_grpc_is_turned_away(besieged: ServiceProcess) -> None:
    with Wire(besieged.grpc_port) as wire:
        wire.send(b"GET /v1/health HTTP/1.1\r\nHost: stranger\r\n\r\n")
        answer = wire.read()
    assert b"200 OK" not in answer
    alive(besieged)


def test_grpc_on_the_port_of_http_is_turned_away(besieged: ServiceProcess) -> None:
    with Wire(besieged.http_port) as wire:
        wire.send(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, hpack(call(BEARER))))
        answer = wire.read()
    assert status_of(answer) == 505
    assert header_of(answer[: answer.index(b"}}")], "X-Error-Type") == "invalid_argument"


OPEN = frame(HEADERS, END_HEADERS, 1, hpack(call(BEARER)))


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
def test_http_2_that_is_none_ends_its_own_connection_alone(besieged: ServiceProcess, sent: bytes) -> None:
    before = peak_mib(besieged)
    with Wire(besieged.grpc_port) as wire:
        wire.send(sent)
        alive(besieged)
    assert peak_mib(besieged) - before < 25


def test_headers_without_end_are_not_gathered(besieged: ServiceProcess) -> None:
    """CVE-2024-27316 and its kin: CONTINUATION upon CONTINUATION."""
    before = peak_mib(besieged)
    piece = frame(CONTINUATION, 0, 1, hpack([(b"x-a", b"a" * 16_000)]))
    with Http2(besieged.grpc_port) as wire:
        wire.headers(1, call(BEARER), flags=0)
        for _ in range(100):
            wire.send(piece * 100)  # 160 MB in all
        alive(besieged)
    assert peak_mib(besieged) - before < 110, "what is read ahead, and no more"


def test_streams_opened_and_reset_by_the_thousand_cost_nothing_that_lasts(besieged: ServiceProcess) -> None:
    """CVE-2023-44487, the rapid reset: without a key, so that nothing but the protocol stands in its way."""
    alive(besieged)
    before, began = peak_mib(besieged), time.monotonic()
    opening = hpack(call())
    for _ in range(5):
        with Http2(besieged.grpc_port) as wire:
            for first in range(1, 4001, 200):
                wire.send(
                    b"".join(
                        frame(HEADERS, END_HEADERS, stream, opening) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
                        for stream in range(first, first + 200, 2)
                    )
                )
            alive(besieged)
    assert time.monotonic() - began < 5 * PATIENCE_S
    assert peak_mib(besieged) - before < 60


def test_pings_and_settings_by_the_thousand_are_not_answered_for_ever(besieged: ServiceProcess) -> None:
    before = peak_mib(besieged)
    for flood in (frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0)):
        with Http2(besieged.grpc_port) as wire:
            for _ in range(200):
                wire.send(flood * 100)
            alive(besieged)
    assert peak_mib(besieged) - before < 60


def test_connections_that_say_nothing_hold_up_nobody(besieged: ServiceProcess) -> None:
    before = besieged.resident_mib()
    with ExitStack() as stack:
        for number in range(600):
            wire = stack.enter_context(Wire(besieged.grpc_port))
            wire.send((b"", PREFACE[:5], PREFACE, PREFACE + frame(SETTINGS, 0, 0) + OPEN)[number % 4])
        alive(besieged)
        assert besieged.resident_mib() - before < 100
    alive(besieged)
