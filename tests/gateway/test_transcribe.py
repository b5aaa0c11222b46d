"""`POST /v1/transcribe`: the call to the service, and the response."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from protos.stt.v1 import speech_pb2
from tests.gateway.transcripts import ROUTED, TIMES
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService

pytestmark = pytest.mark.asyncio(loop_scope="session")

AUDIO = {"audio": ("speech.wav", b"RIFF....", "audio/wav")}


async def test_json_has_every_field_of_the_response(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, headers={"X-Req-Id": "abc-1"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    word = {"start": 0.5, "end": 0.9, "text": " Grüße", "probability": 0.9}
    assert body.pop("segments")[0] == {
        "start": 0.5,
        "end": 1.75,
        "text": "Grüße, Welt.",
        "avg_logprob": -0.5,
        "no_speech_prob": 0.125,
        "compression_ratio": 1.25,
        "model": "whisper-tiny",
        "words": [word],
        "channel": 0,
        "language": "",
    }
    assert body == {
        "request_id": "abc-1",
        "text": "Grüße, Welt. 你好。",
        "language": "de",
        "language_probability": 0.75,
        "audio_duration": 3.25,
        "routing": {
            "fallback_used": False,
            "final_model": "whisper-tiny",
            "confidence_below": True,
            "language_check_applicable": True,
            "reasons": ["low_logprob", "few_words"],
            "primary_confidence": 0.5,
            "fallback_confidence": None,
            "fallback_error": "",
        },
        "timings": {
            "queue_wait_ms": 1.5,
            "primary_infer_ms": 120.0,
            "fallback_infer_ms": 0.0,
            "total_ms": 123.4,
        },
        "model": "whisper-tiny",
    }


async def test_language_probability_is_null_for_a_forced_language(
    http: httpx.AsyncClient, service: ContractService
) -> None:
    service.script.response.ClearField("language_probability")
    response = await http.post("/v1/transcribe", files=AUDIO)
    assert response.json()["language_probability"] is None


async def test_headers_mirror_the_trailing_metadata(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO)
    for name, value in {**TIMES, **ROUTED}.items():
        assert response.headers[name] == value
    assert "x-fallback-error" not in response.headers


async def test_text_format_is_the_text_alone(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, data={"response_format": "text"})
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.content.decode() == "Grüße, Welt. 你好。"
    assert response.headers["x-final-model"] == "whisper-tiny"


@pytest.mark.parametrize(
    ("name", "content_type", "cue"),
    [
        ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:00,500 --> 00:00:01,750\nGrüße, Welt.\n"),
        ("vtt", "text/vtt; charset=utf-8", "00:00:00.500 --> 00:00:01.750\nGrüße, Welt.\n"),
    ],
)
async def test_subtitles_are_cues_of_the_segments(
    http: httpx.AsyncClient, service: ContractService, name: str, content_type: str, cue: str
) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, data={"response_format": name})
    assert response.headers["content-type"] == content_type
    assert cue in response.content.decode()
    assert response.content.decode().count("-->") == 2


async def test_subtitles_follow_the_layout_and_the_words(http: httpx.AsyncClient, service: ContractService) -> None:
    texts = ["Once", "upon", "a", "time,", "there", "was", "a", "king."]
    scripted = service.script.response.segments[0]
    scripted.text = " ".join(texts)
    del scripted.words[:]
    for number, text in enumerate(texts):
        at = number / 2 + (3 if number > 3 else 0)  # a pause of 3 s after "time,"
        word = scripted.words.add(text=f" {text}")
        word.start.FromMilliseconds(round(at * 1000))
        word.end.FromMilliseconds(round(at * 1000) + 500)
    del service.script.response.segments[1:]
    fields = {"response_format": "srt", "max_line_width": "17", "max_line_count": "1"}
    response = await http.post("/v1/transcribe", files=AUDIO, data=fields)
    assert response.text == (
        "1\n00:00:00,000 --> 00:00:02,000\nOnce upon a time,\n\n2\n00:00:05,000 --> 00:00:07,000\nthere was a king.\n"
    )


@pytest.mark.parametrize("name", ["srt", "vtt"])
async def test_subtitles_ask_for_word_times(http: httpx.AsyncClient, service: ContractService, name: str) -> None:
    await http.post("/v1/transcribe", files=AUDIO, data={"response_format": name})
    await http.post("/v1/transcribe", files=AUDIO, data={"response_format": "text"})
    assert [call.request.options.word_timestamps for call in service.script.calls] == [True, False]


async def test_separate_channels_are_named_in_text_and_subtitles(
    http: httpx.AsyncClient, service: ContractService
) -> None:
    for number, scripted in enumerate(service.script.response.segments, 1):
        scripted.channel = number
    text = await http.post("/v1/transcribe", files=AUDIO, data={"response_format": "text"})
    assert text.text == "[1] Grüße, Welt.\n[2] 你好。"
    subtitles = await http.post("/v1/transcribe", files=AUDIO, data={"response_format": "vtt"})
    assert [line for line in subtitles.text.splitlines() if line.startswith("[")] == text.text.splitlines()


async def test_every_field_reaches_the_service(http: httpx.AsyncClient, service: ContractService) -> None:
    fields = {
        "language": "en",
        "candidate_languages": "en, de,,fr",
        "task": "translate",
        "prompt": "Zoë said:\r\nhello\0",
        "hotwords": "Kubernetes, gRPC ,你好",
        "word_timestamps": "TRUE",
        "routing": "fallback",
    }
    response = await http.post("/v1/transcribe", files=AUDIO, data=fields)
    assert response.status_code == 200
    request = service.script.calls[0].request
    assert request.audio == b"RIFF...."
    assert request.options == speech_pb2.TranscribeOptions(
        language="en",
        candidate_languages=["en", "de", "fr"],
        task=speech_pb2.TASK_TRANSLATE,
        prompt="Zoë said:\r\nhello\0",
        hotwords=["Kubernetes", "gRPC", "你好"],
        word_timestamps=True,
        routing=speech_pb2.ROUTING_POLICY_FALLBACK_ONLY,
    )


async def test_empty_fields_mean_the_defaults(http: httpx.AsyncClient, service: ContractService) -> None:
    names = ("language", "task", "prompt", "hotwords", "word_timestamps", "routing", "response_format")
    response = await http.post("/v1/transcribe", files=AUDIO, data=dict.fromkeys(names, ""))
    assert response.status_code == 200
    options = service.script.calls[0].request.options
    assert options == speech_pb2.TranscribeOptions(task=speech_pb2.TASK_TRANSCRIBE)


async def test_lists_may_repeat_their_field(http: httpx.AsyncClient, service: ContractService) -> None:
    await http.post("/v1/transcribe", files=AUDIO, data={"hotwords": ["a,b", "c"]})
    assert service.script.calls[0].request.options.hotwords == ["a", "b", "c"]


async def test_audio_may_come_without_a_file_name(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files={"audio": (None, b"abc")})
    assert response.status_code == 200
    assert service.script.calls[0].request.audio == b"abc"


async def test_key_and_request_id_reach_the_service(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.keys = frozenset({"k1"})
    headers = {"Authorization": "Bearer k1", "X-Req-Id": "id.7"}
    response = await http.post("/v1/transcribe", files=AUDIO, headers=headers)
    assert response.status_code == 200
    call = service.script.calls[0].metadata
    assert (call["authorization"], call["x-req-id"]) == ("Bearer k1", "id.7")
    assert service.script.admission_checks[0]["authorization"] == "Bearer k1"
    assert service.script.admission_checks[0]["x-req-id"] == "id.7"


async def test_peer_is_appended_to_forwarded_addresses(http: httpx.AsyncClient, service: ContractService) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9, 2001:db8::1,<evil>"}
    await http.post("/v1/transcribe", files=AUDIO, headers=headers)
    assert service.script.calls[0].metadata["x-forwarded-for"] == "203.0.113.9, 2001:db8::1, unknown, 127.0.0.1"


async def test_peer_is_the_forwarded_address_without_proxies(http: httpx.AsyncClient, service: ContractService) -> None:
    await http.post("/v1/transcribe", files=AUDIO)
    assert service.script.calls[0].metadata["x-forwarded-for"] == "127.0.0.1"
    assert service.script.admission_checks[0]["x-forwarded-for"] == "127.0.0.1"


async def test_deadline_is_an_hour_unless_the_caller_sets_one(
    http: httpx.AsyncClient, service: ContractService
) -> None:
    await http.post("/v1/transcribe", files=AUDIO)
    await http.post("/v1/transcribe", files=AUDIO, headers={"X-Timeout-Ms": "2500.5"})
    first, second = (call.time_remaining for call in service.script.calls)
    # gRPC rounds long deadlines up, by some seconds.
    assert first is not None and 3590 < first < 3620
    assert second is not None and 0 < second <= 2.6


async def test_exceeded_deadline_is_504(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.hold = asyncio.Event()
    response = await http.post("/v1/transcribe", files=AUDIO, headers={"X-Timeout-Ms": "100"})
    assert response.status_code == 504
    assert response.headers["x-error-type"] == "deadline_exceeded"
    assert response.headers["x-error-message"] == "Deadline exceeded before the service answered."


@pytest.mark.parametrize("given", ["0", "-5", "soon", "nan", "inf", ""])
async def test_invalid_timeout_is_rejected(http: httpx.AsyncClient, service: ContractService, given: str) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, headers={"X-Timeout-Ms": given})
    assert response.status_code == 400
    assert "X-Timeout-Ms" in response.json()["error"]["message"]
    assert not service.script.calls


async def test_concurrent_requests_get_their_own_responses(http: httpx.AsyncClient, service: ContractService) -> None:
    ids = [f"caller-{n}" for n in range(40)]
    calls = (http.post("/v1/transcribe", files=AUDIO, headers={"X-Req-Id": id_}) for id_ in ids)
    responses = await asyncio.gather(*calls)
    assert [response.json()["request_id"] for response in responses] == ids
    assert [response.headers["x-req-id"] for response in responses] == ids


async def test_missing_or_invalid_request_id_is_replaced(http: httpx.AsyncClient, service: ContractService) -> None:
    for given in (b"", b"no spaces", b"x" * 65, b"\xe9"):
        response = await http.post("/v1/transcribe", files=AUDIO, headers={b"X-Req-Id": given})
        made = response.headers["x-req-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
        assert response.json()["request_id"] == made


async def test_failed_fallback_has_its_error_header(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.failure = Failure("fallback_failed", trailers={"x-fallback-error": "circuit_open"})
    response = await http.post("/v1/transcribe", files=AUDIO)
    assert response.status_code == 502
    assert response.headers["x-fallback-error"] == "circuit_open"
