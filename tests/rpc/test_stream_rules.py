"""The rules of a stream: each breach has a clear error, and everything within them is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protos.stt.v1 import speech_pb2 as pb
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.services import running, stub_of
from tests.support.speech import clip, samples_of, silence
from tests.support.streams import FLUSH, Caller, audio, config, finals, kind_of, opened, pcm, stream

LINEAR = pb.AUDIO_ENCODING_LINEAR16
UNKNOWN: Any = 77
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def rejection_of(stub: Any, *messages: pb.StreamTranscribeRequest) -> str:
    """Send messages to a stream that must fail as invalid; return the error message."""
    caller = Caller(stub.StreamTranscribe())
    for message in messages:
        await caller.call.write(message)
    code, kind, error = await caller.failure()
    assert (code, kind) == (INVALID, "invalid_argument")
    return error


async def test_audio_before_config_is_rejected(stub: Any) -> None:
    assert "config" in await rejection_of(stub, audio(bytes(100)))
    assert "config" in await rejection_of(stub, FLUSH)
    assert "config" in await rejection_of(stub, pb.StreamTranscribeRequest())


async def test_a_stream_without_a_message_is_rejected(stub: Any) -> None:
    caller = Caller(stub.StreamTranscribe())
    await caller.call.done_writing()
    assert (await caller.failure())[:2] == (INVALID, "invalid_argument")


async def test_a_second_config_is_rejected(stub: Any) -> None:
    assert "config" in await rejection_of(stub, config(), audio(bytes(100)), config())


async def test_a_message_without_payload_is_rejected(stub: Any) -> None:
    assert "neither" in await rejection_of(stub, config(), pb.StreamTranscribeRequest())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"format": pb.AudioFormat()}, "encoding"),
        ({"format": pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16)}, "sample_rate_hertz"),
        ({"format": pb.AudioFormat(encoding=pb.AUDIO_ENCODING_MULAW, sample_rate_hertz=7999)}, "8000 to 48000"),
        ({"format": pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=48001)}, "8000 to 48000"),
        ({"format": pb.AudioFormat(encoding=UNKNOWN, sample_rate_hertz=16000)}, "encoding"),
        ({"format": pb.AudioFormat(encoding=LINEAR, sample_rate_hertz=16000, channel_count=9)}, "channel_count"),
        ({"format": pb.AudioFormat(encoding=LINEAR, sample_rate_hertz=16000, channel_count=-1)}, "channel_count"),
        ({"endpoint_silence": Duration(nanos=99_000_000)}, "endpoint_silence"),
        ({"endpoint_silence": Duration(seconds=5, nanos=1_000_000)}, "endpoint_silence"),
        ({"endpoint_silence": Duration(seconds=-1)}, "endpoint_silence"),
        ({"options": pb.TranscribeOptions(language="xx")}, "xx"),
        ({"options": pb.TranscribeOptions(language="zh-yue")}, "does not support"),
        ({"options": pb.TranscribeOptions(candidate_languages=["klingon"])}, "klingon"),
        ({"options": pb.TranscribeOptions(task=UNKNOWN)}, "task"),
        ({"options": pb.TranscribeOptions(routing=UNKNOWN)}, "routing"),
        ({"options": pb.TranscribeOptions(separate_channels=True)}, "separate_channels"),
        ({"options": pb.TranscribeOptions(routing=pb.ROUTING_POLICY_FALLBACK_ONLY)}, "routing"),
        ({"options": pb.TranscribeOptions(prompt="x" * 5000)}, "prompt"),
        ({"options": pb.TranscribeOptions(hotwords=["w"] * 300)}, "hotwords"),
    ],
)
async def test_an_invalid_config_names_the_field(stub: Any, fields: dict[str, Any], named: str) -> None:
    assert named in await rejection_of(stub, config(**fields))


async def test_audio_messages_are_limited_to_one_mebibyte(stub: Any) -> None:
    assert await stream(stub, config(), audio(bytes(2**20))) == []
    assert "1048576" in await rejection_of(stub, config(), audio(bytes(2**20 + 1)))


async def test_the_limits_of_rate_and_silence_are_accepted(stub: Any) -> None:
    for rate in (8000, 48000):
        for endpoint in (Duration(nanos=100_000_000), Duration(seconds=5)):
            format_ = pb.AudioFormat(encoding=pb.AUDIO_ENCODING_MULAW, sample_rate_hertz=rate, channel_count=8)
            message = config(format=format_, endpoint_silence=endpoint)
            assert await stream(stub, message, audio(b"\xff" * 8000)) == []


async def test_a_stream_without_audio_ends_without_events(stub: Any) -> None:
    assert await stream(stub, config()) == []
    assert await stream(stub, config(), audio(b""), FLUSH, FLUSH) == []


async def test_an_utterance_over_the_upload_limit_is_rejected(tmp_path: Path) -> None:
    samples = samples_of(clip("en", "quick_brown_fox"))
    async with running(tmp_path, MAX_UPLOAD_MB=0.05) as service, stub_of(service) as stub:
        caller = await opened(stub)
        await caller.send_audio(samples)
        code, kind, _ = await caller.failure()
    assert (code, kind) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "payload_too_large")


MESSAGES = st.lists(
    st.one_of(
        st.just(config()),
        st.just(FLUSH),
        st.just(pb.StreamTranscribeRequest()),
        st.integers(0, 40_000).map(lambda size: audio(bytes(size))),
        st.just(audio(pcm(samples_of(clip("en", "hello_world"))))),
    ),
    max_size=6,
)


@given(messages=MESSAGES)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_a_stream_ends_with_ok_exactly_if_it_keeps_the_rules(
    stub: Any, messages: Sequence[pb.StreamTranscribeRequest]
) -> None:
    kinds = [message.WhichOneof("payload") for message in messages]
    breach = next((at for at, kind in enumerate(kinds) if (kind == "config") is not (at == 0) or kind is None), None)
    if breach is not None or not messages:
        # Writing on after the breach could fail before the status is read.
        caller = Caller(stub.StreamTranscribe())
        await caller.send(*messages[: (breach or 0) + 1])
        if not messages:
            await caller.call.done_writing()
        assert (await caller.failure())[0] is INVALID
        return
    responses = await stream(stub, *messages)
    order = [kind_of(response) for response in responses if kind_of(response) != "interim"]
    assert order.count("started") == order.count("ended") == order.count("final")
    assert [final.utterance for final in finals(responses)] == list(range(order.count("final")))


@given(cuts=st.lists(st.integers(0, 2 * 16000 * 5), max_size=20))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_split_into_messages_gives_the_same_events(stub: Any, model: ScriptedModel, cuts: list[int]) -> None:
    data = pcm(np.concatenate([silence(0.5), samples_of(clip("en", "quick_brown_fox")), silence(1)]))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [audio(data[a:b]) for a, b in pairwise(edges)]
    whole = await stream(stub, config(interim_results=False), audio(data))
    split = await stream(stub, config(interim_results=False), *parts)
    assert [without_timings(r) for r in whole] == [without_timings(r) for r in split]


def without_timings(response: pb.StreamTranscribeResponse) -> tuple[Any, ...]:
    """The fields of a response that do not depend on processing time."""
    if kind_of(response) == "final":
        result = response.final.result
        return "final", response.final.utterance, result.text, result.audio_duration, list(result.segments)
    return kind_of(response), response.speech_event.offset
