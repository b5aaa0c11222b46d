"""Requests with arbitrary fields to a real service: each answer is text or an error of the table."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.duration_pb2 import Duration
from hypothesis import strategies as st
from websockets.sync.client import connect

from gateway.openai.errors import OPENAI_ERRORS
from gateway.openai.form import TRANSCRIPTION_RULES
from gateway.rest.form import FIELDS
from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.errors import ERRORS
from stt_server.testing.audio_samples import chirp, encode, wav_header
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import UNLIMITED, ServiceProcess, running

TIMEOUT_S = 60.0
_PCM = (chirp(0.2) * 32767).astype("<i2").tobytes()


def _mostly(good: st.SearchStrategy[Any], any_: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Valid in four of five cases: otherwise some field is always invalid, and later checks are not reached."""
    return st.integers(0, 4).flatmap(lambda die: any_ if die == 4 else good)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_wild_languages = st.one_of(st.sampled_from(["EN", "xx", "auto", "en-GB", "english", "en\0"]), _texts)
_languages = _mostly(st.sampled_from(["", "en", "de", "fr"]), _wild_languages)
_int32 = st.one_of(st.integers(-3, 10), st.integers(-(2**31), 2**31 - 1))
_audio = _mostly(
    st.sampled_from([wav_header(16_000, 1, len(_PCM)) + _PCM, encode(chirp(0.2), 16_000, "flac", "flac")]),
    st.sampled_from([b"", b"\0", _PCM, b"OggS" * 9]),
)
_options = st.builds(
    pb.TranscribeOptions,
    language=_languages,
    candidate_languages=_mostly(st.sampled_from([[], ["en", "de"]]), st.lists(_languages, max_size=5)),
    task=_mostly(st.integers(0, 2), _int32),
    prompt=st.one_of(_texts, st.just("long " * 3000)),
    hotwords=st.lists(_texts, max_size=5),
    word_timestamps=st.booleans(),
    routing=_mostly(st.integers(0, 1), _int32),
)
_format = st.builds(
    pb.AudioFormat,
    encoding=_mostly(st.integers(0, 2), _int32),
    sample_rate_hertz=_mostly(st.sampled_from([8000, 16_000, 44_100]), _int32),
    channel_count=_mostly(st.integers(0, 2), _int32),
)
_request = st.builds(pb.TranscribeRequest, options=_options, format=st.one_of(st.none(), _format), audio=_audio)
_good_fields = {
    "task": st.sampled_from(["", "transcribe", "translate"]),
    "routing": st.sampled_from(["", "auto", "primary"]),
    "response_format": st.sampled_from(["json", "text", "srt", "vtt"]),
    "word_timestamps": st.sampled_from(["true", "0", ""]),
}
_form = st.fixed_dictionaries(
    {}, optional={name: _mostly(_good_fields.get(name, _languages), _texts) for name in sorted(FIELDS)}
)
_good_openai_fields = {
    "response_format": st.sampled_from(["", "json", "text", "srt", "vtt", "verbose_json"]),
    "timestamp_granularities": st.sampled_from(["", "word", "segment", "segment,word"]),
    "timestamp_granularities[]": st.sampled_from(["", "word"]),
    "temperature": st.sampled_from(["", "0", "0.5", "1"]),
    "stream": st.sampled_from(["", "true", "false"]),
    "routing": st.sampled_from(["", "auto", "primary"]),
}
_openai_form = st.fixed_dictionaries(
    {},
    optional={
        name: _mostly(_good_openai_fields.get(name, _languages), _texts)
        for name in ("model", "user", *sorted(TRANSCRIPTION_RULES.fields))
    },
)

_silence = st.builds(
    Duration,
    seconds=_mostly(st.integers(0, 4), st.integers(-(2**63), 2**63 - 1)),
    nanos=_mostly(st.just(5 * 10**8), _int32),
)
_pcm_format = st.just(pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16_000))
_config = st.builds(
    pb.StreamConfig,
    options=_options,
    format=_mostly(_pcm_format, st.one_of(_format, st.none())),
    interim_results=st.booleans(),
    endpoint_silence=st.one_of(st.none(), _silence),
    single_utterance=st.booleans(),
)
_first = st.builds(pb.StreamTranscribeRequest, config=_config)
_later = st.one_of(
    st.builds(pb.StreamTranscribeRequest, audio=st.sampled_from([b"", b"\0", _PCM])),
    st.builds(pb.StreamTranscribeRequest, flush=st.just(pb.Flush())),
    st.just(pb.StreamTranscribeRequest()),
)
_stream = st.builds(
    lambda first, rest: [*first, *rest],
    st.lists(_mostly(_first, _later), max_size=1),
    st.lists(_mostly(_later, _first), max_size=4),
)


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
_vad = st.fixed_dictionaries(
    {},
    optional={"type": _mostly(st.sampled_from(["server_vad", "semantic_vad"]), _json), "silence_duration_ms": _int32},
)
_audio_input = st.fixed_dictionaries(
    {},
    optional={
        "format": _mostly(st.sampled_from([None, "pcm16", {"type": "audio/pcm", "rate": 8000}, "g711_alaw"]), _json),
        "transcription": _mostly(st.fixed_dictionaries({}, optional={"language": _languages, "prompt": _texts}), _json),
        "turn_detection": _mostly(st.one_of(st.none(), _vad), _json),
    },
)
_update = st.builds(
    lambda given: {"type": "session.update", "session": {"type": "transcription", "audio": {"input": given}}},
    _mostly(_audio_input, _json),
)
_append = st.builds(
    lambda audio: {"type": "input_audio_buffer.append", "audio": audio},
    _mostly(st.sampled_from(["", "AA==", base64.b64encode(_PCM).decode()]), _json),
)
_plain = st.sampled_from([{"type": f"input_audio_buffer.{what}"} for what in ("commit", "clear")])
_realtime = st.lists(_mostly(st.one_of(_update, _append, _plain), _json), max_size=8)


@dataclass
class ServiceUnderTest:
    stub: Any
    http: httpx.Client
    realtime: str
    """Address of the WebSocket."""


@contextmanager
def serving(folder: Path) -> Iterator[ServiceUnderTest]:
    """Run a service with a scripted model."""
    process = ServiceProcess("primary", folder, {"STREAM_IDLE_TIMEOUT_S": 5}, Script())
    with running(process), grpc.insecure_channel(process.target, options=UNLIMITED) as channel:
        with httpx.Client(base_url=process.url, timeout=TIMEOUT_S) as http:
            address = process.url.replace("http", "ws", 1) + "/v1/realtime"
            yield ServiceUnderTest(speech_pb2_grpc.SpeechToTextStub(channel), http, address)
        assert process.stop() == 0, "the service did not exit with status 0"


def _kind(error: grpc.RpcError) -> str:
    """Type of an error, which must be one of the table and not that of a bug."""
    assert isinstance(error, grpc.Call)
    kind = str(dict(error.trailing_metadata() or ()).get("x-error-type", ""))
    assert kind in ERRORS, f"{error.code()}: {error.details()!r} is not an error of the table"
    assert error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), f"{kind}: {error.details()!r}"
    return kind


def transcribe(served: ServiceUnderTest, request: pb.TranscribeRequest) -> str:
    try:
        served.stub.Transcribe(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return _kind(error)
    return "text"


def stream(served: ServiceUnderTest, messages: list[pb.StreamTranscribeRequest]) -> str:
    try:
        for _ in served.stub.StreamTranscribe(iter(messages), timeout=TIMEOUT_S):
            pass
    except grpc.RpcError as error:
        return _kind(error)
    return "ended"


def rest(served: ServiceUnderTest, fields: dict[str, str]) -> str:
    files = {"audio": ("a.wav", wav_header(16_000, 1, len(_PCM)) + _PCM)}
    answer = served.http.post("/v1/transcribe", data=fields, files=files)
    if answer.status_code == 200:
        return "text"
    kind = answer.headers["X-Error-Type"]
    assert kind in ERRORS, f"{answer.status_code}: {kind} is not an error of the table"
    assert answer.status_code == ERRORS[kind].http != 500, answer.text
    return str(kind)


def openai(served: ServiceUnderTest, fields: dict[str, str]) -> str:
    files = {"file": ("a.wav", wav_header(16_000, 1, len(_PCM)) + _PCM)}
    answer = served.http.post("/v1/audio/transcriptions", data=fields, files=files)
    assert answer.headers["x-request-id"] == answer.headers["X-Req-Id"]
    if answer.status_code == 200:
        streamed = answer.headers["content-type"].startswith("text/event-stream")
        assert not streamed or answer.text.endswith("data: [DONE]\n\n"), answer.text
        return "events" if streamed else "text"
    kind = answer.headers["X-Error-Type"]
    assert answer.status_code == OPENAI_ERRORS[kind].http != 500, answer.text
    named = {name.removesuffix("[]") for name in fields}
    assert kind != "invalid_argument" or answer.json()["error"]["param"] in named, answer.text
    return str(kind)


def realtime(served: ServiceUnderTest, messages: list[Any]) -> str:
    """Whatever the messages are, the session answers an event behind them, and a commit has its result."""
    kinds = set()
    with connect(served.realtime, compression=None) as socket:
        for message in messages:
            socket.send(json.dumps(message))
        socket.send('{"type": "input_audio_buffer.clear", "event_id": "last"}')
        commits = sum(message == {"type": "input_audio_buffer.commit"} for message in messages)
        clears = 1 + sum(message == {"type": "input_audio_buffer.clear"} for message in messages)
        answered = 0
        while clears:
            event = json.loads(socket.recv(TIMEOUT_S))
            kinds.add(event["type"])
            clears -= event["type"] == "input_audio_buffer.cleared"
            ended = event["type"].rpartition(".")[2] in ("completed", "failed")
            answered += ended or event.get("error", {}).get("code") == "input_audio_buffer_commit_empty"
            assert event.get("error", {}).get("code") != "internal", event
    assert answered >= commits, "a commit had neither a result nor an error"
    return "results" if answered else "errors" if "error" in kinds else "nothing"


Run = Callable[[ServiceUnderTest, Any], str]
REQUESTS: Mapping[str, tuple[st.SearchStrategy[Any], Run]] = {
    "transcribe": (_request, transcribe),
    "rest": (_form, rest),
    "openai": (_openai_form, openai),
    "stream": (_stream, stream),
    "realtime_session": (_realtime, realtime),
}
