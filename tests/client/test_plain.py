"""Targets, options, samples, durations and quantiles: no server needed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from protos.stt.v1 import speech_pb2
from stt_client import LatencyStats, Samples, SttClient, SttPool, Tls
from stt_client.channel import Target, channel_options, parse_target
from stt_client.convert import reason_of, seconds_of, transcript_of
from stt_client.request import AudioFormat, prepare
from tests.support.contract_messages import transcript as transcript_message

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:50051", Target("localhost:50051", None)),
        ("stt.example.com", Target("stt.example.com:50051", None)),
        ("grpc://host:1", Target("host:1", False)),
        ("grpcs://host", Target("host:50051", True)),
        ("grpcs://host:443/", Target("host:443", True)),
        ("[::1]:50052", Target("[::1]:50052", None)),
        (" host:7 ", Target("host:7", None)),
        ("dns:///stt-primary:50051", Target("dns:///stt-primary:50051", None)),
        ("unix:/run/stt.sock", Target("unix:/run/stt.sock", None)),
    ],
)
def test_targets_are_parsed(text: str, expected: Target) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize("text", ["", "host:port", "host:0", "host:65536", "a b:1", "grpc://h:1/path", "ftp://h:1"])
def test_an_invalid_target_is_rejected_with_the_valid_forms(text: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT"):
        SttClient(text)


def test_an_http_address_is_rejected_with_the_grpc_form() -> None:
    with pytest.raises(ValueError, match="write grpc://HOST:PORT"):
        SttClient("http://localhost:8081")
    with pytest.raises(ValueError, match="write grpcs://HOST:PORT"):
        SttClient("https://localhost:8081")


def test_certificates_with_a_plain_text_target_are_rejected() -> None:
    with pytest.raises(ValueError, match="write grpcs://"):
        SttClient("grpc://host:1", tls=Tls())


def test_a_key_with_control_characters_is_rejected() -> None:
    with pytest.raises(ValueError, match="api_key"):
        SttClient(api_key="line\nbreak")


def test_channel_options_retry_once_with_a_large_enough_buffer() -> None:
    options = dict(channel_options("host:1", 100 * MIB))
    method, stream = json.loads(str(options["grpc.service_config"]))["methodConfig"]
    assert method["name"] == [{"service": "stt.v1.SpeechToText"}]
    assert stream == {"name": [{"service": "stt.v1.SpeechToText", "method": "StreamTranscribe"}]}
    assert method["retryPolicy"]["maxAttempts"] == 2
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert int(options["grpc.per_rpc_retry_buffer_size"]) > 100 * MIB
    assert options["grpc.max_receive_message_length"] == 100 * MIB
    assert (options["grpc.initial_reconnect_backoff_ms"], options["grpc.max_reconnect_backoff_ms"]) == (
        200,
        2000,
    )
    assert options["grpc.keepalive_time_ms"] == 30_000


def service_config(address: str) -> Any:
    return json.loads(str(dict(channel_options(address))["grpc.service_config"]))


def test_addresses_of_a_dns_name_are_used_in_turn() -> None:
    assert service_config("dns:///stt:1")["loadBalancingConfig"] == [{"round_robin": {}}]
    assert "loadBalancingConfig" not in service_config("host:1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sing"}, "invalid task 'sing': use transcribe or translate"),
        ({"routing": "both"}, "invalid routing 'both': use auto or primary or fallback"),
        ({"hotwords": "Ada"}, "hotwords must be a sequence"),
        ({"candidate_languages": "en"}, "candidate_languages must be a sequence"),
        ({"encoding": AudioFormat("opus", 8000)}, "use linear16 or mulaw or alaw"),  # type: ignore[arg-type]
    ],
)
async def test_an_invalid_option_is_a_value_error_that_lists_the_valid(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        await prepare(b"x", MIB, **options)  # type: ignore[arg-type]


async def test_int16_samples_are_sent_unchanged_and_floats_clipped() -> None:
    exact = np.array([-32768, -1, 0, 32767], dtype=np.int16)
    request = await prepare(Samples(exact, 16000), MIB)
    assert request.audio == exact.astype("<i2").tobytes()
    assert request.format.channel_count == 1
    wild = np.array([np.nan, 7.0, -7.0, np.inf], dtype=np.float32)
    request = await prepare(Samples(wild, 16000), MIB)
    assert np.frombuffer(request.audio, "<i2").tolist() == [0, 32767, -32768, 32767]


@pytest.mark.parametrize("array", [np.zeros(4, np.int32), np.zeros((1, 2, 3), np.float32)])
async def test_samples_of_an_unsupported_type_are_rejected(
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    with pytest.raises(ValueError, match="of samples: use"):
        await prepare(Samples(array, 16000), MIB)


async def test_samples_with_an_encoding_are_rejected() -> None:
    with pytest.raises(ValueError, match="not to Samples"):
        await prepare(Samples(np.zeros(4, np.float32), 16000), MIB, encoding=AudioFormat("linear16", 8000))


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (Duration(seconds=1, nanos=300_000_000), 1.3),
        (Duration(seconds=359_999, nanos=999_999_000), 359_999.999999),
        (Duration(nanos=1_000), 1e-06),
        (Duration(), 0.0),
    ],
)
def test_durations_are_exact_to_the_microsecond(duration: Duration, seconds: float) -> None:
    assert seconds_of(duration) == seconds


def test_as_dict_is_the_rest_json() -> None:
    transcript = transcript_of(transcript_message("hello world", request_id="abc"), {})
    as_json = json.loads(json.dumps(transcript.as_dict()))
    assert as_json == {
        "request_id": "abc",
        "text": "hello world",
        "language": "en",
        "language_probability": 0.99,
        "audio_duration": 1.3,
        "segments": [
            {
                "start": 0.0,
                "end": 1.234567,
                "text": "hello world",
                "avg_logprob": -0.25,
                "no_speech_prob": 0.01,
                "compression_ratio": 1.1,
                "model": "tiny",
                "channel": 0,
                "language": "",
                "words": [
                    {"start": 0.0, "end": 0.4, "text": "hello", "probability": 0.9},
                    {"start": 0.4, "end": 1.0, "text": "world", "probability": 0.8},
                ],
            }
        ],
        "routing": {
            "fallback_used": True,
            "final_model": "tiny",
            "confidence_below": True,
            "language_check_applicable": True,
            "reasons": ["low_logprob", "few_words"],
            "primary_confidence": 0.4,
            "fallback_confidence": None,
            "fallback_error": "",
        },
        "timings": {
            "queue_wait_ms": 1.5,
            "primary_infer_ms": 20.0,
            "fallback_infer_ms": 0.0,
            "total_ms": 25.25,
        },
        "model": "tiny",
    }


def test_a_forced_language_has_no_probability() -> None:
    message = transcript_message()
    message.ClearField("language_probability")
    assert transcript_of(message, {}).as_dict()["language_probability"] is None


def test_route_reasons_have_the_names_of_the_contract() -> None:
    reasons = [reason_of(value) for value in speech_pb2.RouteReason.values()[1:]]
    assert reasons == [
        "low_logprob",
        "low_language_probability",
        "few_words",
        "repetition",
        "primary_error",
        "requested",
    ]


def test_quantiles_are_nearest_ranks_over_a_rolling_window() -> None:
    stats = LatencyStats(window=100)
    assert (stats.count, stats.p50, stats.p95, stats.p99) == (0, None, None, None)
    for value in range(1, 201):
        stats.add(float(value))
    assert (stats.count, stats.p50, stats.p95, stats.p99) == (100, 150.0, 195.0, 199.0)


def test_a_pool_requires_at_least_one_target() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        SttPool([])
    with pytest.raises(ValueError, match="sequence"):
        SttPool("localhost:1")


def test_importing_the_client_loads_no_heavy_library() -> None:
    heavy = "{'numpy', 'rich', 'stt_server', 'gateway', 'faster_whisper'}"
    code = f"import sys, stt_client, stt_client.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
