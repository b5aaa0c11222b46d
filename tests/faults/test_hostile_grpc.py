"""Hostile gRPC requests to a real process: each is answered, none delays others, and nothing leaks."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.errors import ERRORS
from stt_server.rpc.server_options import MAX_METADATA_BYTES
from stt_server.testing.services import UNLIMITED, ServiceProcess
from tests.faults.hostile import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    KEY,
    LET_IN,
    PATIENCE_S,
    RST_STREAM,
    Http2,
    Metadata,
    alive,
    call,
    clean,
    frame,
    peak_mib,
)
from tests.support.services import speech

TRANSCRIBE = "/stt.v1.SpeechToText/Transcribe"
BEARER = (b"authorization", b"Bearer " + KEY.encode())


@pytest.fixture
def channel(attacked: ServiceProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(attacked.target, options=UNLIMITED) as found:
        yield found


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return speech_pb2_grpc.SpeechToTextStub(channel)


def failure(attempt: Any) -> grpc.RpcError:
    """Error of a call or a stream, checked for leaks."""
    with pytest.raises(grpc.RpcError) as caught:
        attempt()
    error: Any = caught.value
    clean(error.details(), *(f"{name}: {value}" for name, value in error.trailing_metadata() or ()))
    clean(*(value for _, value in error.trailing_metadata() or () if isinstance(value, bytes)))
    return error  # type: ignore[no-any-return]


def assert_error(error: Any, type_: str) -> str:
    """Assert that an error is one of the table in the contract's format; return its message."""
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
    (("x-api-key", KEY),),
]


@pytest.mark.parametrize("metadata", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_a_bad_key_is_refused_before_the_message_is_read(channel: grpc.Channel, metadata: Metadata) -> None:
    """The message of the call never arrives, so that reading it first would block forever."""
    ending: list[None] = []

    def never() -> Iterator[bytes]:
        while not ending:
            time.sleep(0.01)
        yield from ()

    method: Any = channel.stream_unary(TRANSCRIBE)
    error = failure(lambda: method(never(), metadata=metadata, timeout=PATIENCE_S))
    ending.append(None)
    assert_error(error, "unauthenticated")


@pytest.mark.parametrize("metadata", BAD_KEYS[:4], ids=range(4))
def test_a_bad_key_opens_no_stream(stub: Any, metadata: Metadata) -> None:
    config = pb.StreamConfig(format=pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16000))
    sent = iter([pb.StreamTranscribeRequest(config=config)])
    assert_error(
        failure(lambda: list(stub.StreamTranscribe(sent, metadata=metadata, timeout=PATIENCE_S))), "unauthenticated"
    )


def test_a_valid_key_waits_for_the_message(channel: grpc.Channel) -> None:
    """Counterpart of the refusals above: the call waits for the missing message."""
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
def test_a_key_of_other_bytes_is_refused(attacked: ServiceProcess, value: bytes) -> None:
    with Http2(attacked.grpc_port) as wire:
        wire.headers(1, call((b"authorization", value)))
        frames = wire.frames_until(HEADERS, RST_STREAM, GOAWAY)
    assert frames[-1][0] in (HEADERS, RST_STREAM, GOAWAY)
    assert frames[-1][0] != HEADERS or frames[-1][1] & END_STREAM
    alive(attacked)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("mib", [30, 150])
def test_a_compressed_message_that_inflates_over_the_limit_is_refused(
    attacked: ServiceProcess, stub: Any, compression: grpc.Compression, mib: int
) -> None:
    before = peak_mib(attacked)
    request = pb.TranscribeRequest(audio=bytes(mib * 2**20))
    error: Any = failure(
        lambda: stub.Transcribe(request, metadata=LET_IN, compression=compression, timeout=4 * PATIENCE_S)
    )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_mib(attacked) - before < 25


def test_a_compressed_message_within_the_limit_is_accepted(stub: Any) -> None:
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
def test_a_malformed_message_is_refused(attacked: ServiceProcess, encoding: bytes, message: bytes) -> None:
    before = peak_mib(attacked)
    with Http2(attacked.grpc_port) as wire:
        wire.headers(1, call(BEARER, (b"grpc-encoding", encoding)))
        wire.send(frame(DATA, END_STREAM, 1, message))
        frames = wire.frames_until(HEADERS, RST_STREAM, GOAWAY)
    assert frames[-1][0] in (HEADERS, RST_STREAM, GOAWAY)
    assert peak_mib(attacked) - before < 25
    alive(attacked)


@pytest.mark.parametrize("raw", [b"\xff" * 100, b"\x1a\xff\xff\xff\xff\x0f", b"\x0a" * 5000], ids=range(3))
def test_bytes_that_are_not_protobuf_are_refused(channel: grpc.Channel, raw: bytes) -> None:
    method: Any = channel.unary_unary(TRANSCRIBE)
    error: Any = failure(lambda: method(raw, metadata=LET_IN, timeout=PATIENCE_S))
    assert_error(error, "invalid_argument")
    for other in ("/stt.v1.Operations/GetStatus", "/grpc.health.v1.Health/Check"):
        calling: Any = channel.unary_unary(other)
        error = failure(lambda calling=calling: calling(raw, timeout=PATIENCE_S))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_metadata_over_its_limit_is_refused(stub: Any) -> None:
    request = pb.TranscribeRequest(audio=speech())
    for _ in range(4):  # repeated, as the result must not depend on chance
        near = (*LET_IN, ("x-near", "n" * (MAX_METADATA_BYTES - 1500)))
        assert stub.Transcribe(request, metadata=near, timeout=PATIENCE_S).text
        for over in (("x-over", "o" * MAX_METADATA_BYTES),), tuple((f"x-{n}", "o") for n in range(600)):
            error: Any = failure(
                lambda over=over: stub.Transcribe(request, metadata=(*LET_IN, *over), timeout=PATIENCE_S)
            )
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_recording_over_the_limit_is_refused(attacked: ServiceProcess, stub: Any) -> None:
    def send(size: int) -> Any:
        return failure(
            lambda: stub.Transcribe(pb.TranscribeRequest(audio=bytes(size)), metadata=LET_IN, timeout=PATIENCE_S)
        )

    assert_error(send(2**20 + 1), "payload_too_large")
    before = peak_mib(attacked)
    assert send(200 * 2**20).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_mib(attacked) - before < 25


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
def test_a_stream_that_breaks_the_contract_gets_an_error(stub: Any, sent: list[Any], type_: str) -> None:
    error = failure(lambda: list(stub.StreamTranscribe(iter(sent), metadata=LET_IN, timeout=PATIENCE_S)))
    assert_error(error, type_)


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
def test_errors_about_arbitrary_options_are_plain_text(stub: Any, options: dict[str, Any]) -> None:
    request = pb.TranscribeRequest(audio=speech(), options=pb.TranscribeOptions(**options))
    error: Any = failure(lambda: stub.Transcribe(request, metadata=LET_IN, timeout=PATIENCE_S))
    assert_error(error, "invalid_argument")
    assert "x-injected" not in dict(error.trailing_metadata())


@pytest.mark.parametrize("prompt", ["line\r\nx-injected: 1", "nul\0", "naïve 你好 \U0001f600\u202e", "\x1b[31m"])
def test_arbitrary_text_is_returned_as_text(stub: Any, prompt: str) -> None:
    request = pb.TranscribeRequest(audio=speech(), options=pb.TranscribeOptions(prompt=prompt))
    response, ended = stub.Transcribe.with_call(request, metadata=LET_IN, timeout=PATIENCE_S)
    assert "".join(prompt.split()) in "".join(response.text.split())
    clean(*(f"{name}: {value}" for name, value in ended.trailing_metadata()))
    assert "x-injected" not in dict(ended.trailing_metadata())


@pytest.mark.parametrize("given", ["a b", "x" * 65, "a;b", "../..", ""])
def test_an_invalid_request_id_is_replaced(stub: Any, given: str) -> None:
    error: Any = failure(
        lambda: stub.Transcribe(pb.TranscribeRequest(), metadata=(*LET_IN, ("x-req-id", given)), timeout=PATIENCE_S)
    )
    assert_error(error, "empty_audio")
    assert dict(error.trailing_metadata())["x-req-id"].isalnum()


@pytest.mark.parametrize("method", ["/stt.v1.SpeechToText/Nothing", "/../../etc/passwd", "/stt.v1.SpeechToText/", "/"])
def test_an_unknown_method_is_unimplemented(channel: grpc.Channel, method: str) -> None:
    calling: Any = channel.unary_unary(method)
    error: Any = failure(lambda: calling(b"", metadata=LET_IN, timeout=PATIENCE_S))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
