"""Conversion between protobuf messages and domain objects. Rejects unknown enum values; decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeVar

from google.protobuf.duration_pb2 import Duration

from protos.stt.v1 import speech_pb2 as pb
from stt_server.audio import AudioFormat
from stt_server.audio.formats import Encoding
from stt_server.engine.types import DecodeOptions, Segment, Word
from stt_server.errors import InvalidArgument
from stt_server.request import Answer, Request, Trace, Transcript, Upload
from stt_server.routing import Policy, Reason

T = TypeVar("T")

_TASKS: dict[int, Literal["transcribe", "translate"]] = {
    pb.TASK_UNSPECIFIED: "transcribe",
    pb.TASK_TRANSCRIBE: "transcribe",
    pb.TASK_TRANSLATE: "translate",
}
_POLICIES: dict[int, Policy] = {
    pb.ROUTING_POLICY_UNSPECIFIED: "auto",
    pb.ROUTING_POLICY_PRIMARY_ONLY: "primary",
    pb.ROUTING_POLICY_FALLBACK_ONLY: "fallback",
}
_WIRE_ENCODINGS: dict[Encoding, pb.AudioEncoding.ValueType] = {
    "container": pb.AUDIO_ENCODING_UNSPECIFIED,
    "linear16": pb.AUDIO_ENCODING_LINEAR16,
    "mulaw": pb.AUDIO_ENCODING_MULAW,
    "alaw": pb.AUDIO_ENCODING_ALAW,
}
_ENCODINGS = {int(wire): name for name, wire in _WIRE_ENCODINGS.items()}
_REASONS = {reason: pb.RouteReason.Value(f"ROUTE_REASON_{reason.name}") for reason in Reason}


def request_of(message: pb.TranscribeRequest, request_id: str, deadline: float | None) -> Request:
    """Convert a message to a request.

    Args:
        deadline: monotonic seconds; None: no deadline.

    Raises:
        InvalidArgument: unknown enum value.
    """
    options = message.options
    return Request(
        source=Upload(message.audio, format_of(message.format), options.separate_channels),
        options=options_of(options),
        request_id=request_id,
        policy=policy_of(options),
        deadline=deadline,
    )


def options_of(options: pb.TranscribeOptions) -> DecodeOptions:
    """Convert decode options. Raises InvalidArgument for an unknown task."""
    return DecodeOptions(
        language=options.language or None,
        candidate_languages=tuple(options.candidate_languages),
        task=_known(_TASKS, options.task, "options.task"),
        prompt=options.prompt,
        hotwords=tuple(word for word in options.hotwords if word.strip()),
        word_timestamps=options.word_timestamps,
    )


def format_of(format_: pb.AudioFormat) -> AudioFormat:
    """Convert an audio format. Raises InvalidArgument for an unknown encoding."""
    return AudioFormat(
        encoding=_known(_ENCODINGS, format_.encoding, "format.encoding"),
        sample_rate=format_.sample_rate_hertz,
        channels=format_.channel_count or 1,
    )


def policy_of(options: pb.TranscribeOptions) -> Policy:
    """Convert a routing policy. Raises InvalidArgument for an unknown one."""
    return _known(_POLICIES, options.routing, "options.routing")


def _known(table: Mapping[int, T], value: int, field: str) -> T:
    try:
        return table[value]
    except KeyError:
        raise InvalidArgument(f"{field}: unknown value {value}; use one of speech.proto", field=field) from None


def message_of(request: Request) -> pb.TranscribeRequest:
    """The message in which the primary sends a request to the fallback."""
    options, upload = request.options, request.upload
    return pb.TranscribeRequest(
        options=pb.TranscribeOptions(
            language=options.language or "",
            candidate_languages=options.candidate_languages,
            task=pb.TASK_TRANSLATE if options.task == "translate" else pb.TASK_TRANSCRIBE,
            prompt=options.prompt,
            hotwords=options.hotwords,
            word_timestamps=options.word_timestamps,
            separate_channels=upload.separate_channels,
        ),
        format=pb.AudioFormat(
            encoding=_WIRE_ENCODINGS[upload.format.encoding],
            sample_rate_hertz=upload.format.sample_rate,
            channel_count=upload.format.channels,
        ),
        audio=upload.data,
    )


def response_of(transcript: Transcript, trace: Trace, request_id: str, total_s: float) -> pb.TranscribeResponse:
    """The response for a transcript.

    Args:
        total_s: seconds from the request's arrival to its answer.
    """
    answer = transcript.answer
    return pb.TranscribeResponse(
        request_id=request_id,
        text=answer.text,
        language=answer.language,
        language_probability=answer.language_probability,
        audio_duration=duration(transcript.audio_seconds),
        segments=[segment_of(s, model) for s, model in zip(answer.segments, answer.segment_models)],
        routing=_routing(transcript),
        timings=pb.Timings(
            queue_wait=duration(trace.queue_wait or 0.0),
            primary_infer=duration(trace.primary_infer or 0.0),
            fallback_infer=duration(trace.fallback_infer or 0.0),
            total=duration(total_s),
        ),
    )


def _routing(transcript: Transcript) -> pb.Routing:
    return pb.Routing(
        fallback_used=transcript.fallback_used,
        final_model=transcript.answer.model,
        confidence_below=transcript.decision.confidence_below,
        language_check_applicable=transcript.language_check_applicable,
        reasons=[_REASONS[reason] for reason in transcript.decision.reasons],
        primary_confidence=transcript.primary_confidence,
        fallback_confidence=transcript.fallback_confidence,
        fallback_error=transcript.fallback_error,
    )


def segment_of(segment: Segment, model: str) -> pb.Segment:
    """The message of a segment, whose text is from `model`."""
    return pb.Segment(
        start=duration(segment.start),
        end=duration(segment.end),
        # Whisper starts each word with a space, which a segment or word by itself doesn't need.
        text=segment.text.strip(),
        avg_logprob=segment.avg_logprob,
        no_speech_prob=segment.no_speech_prob,
        compression_ratio=segment.compression_ratio,
        model=model,
        words=[
            pb.Word(start=duration(w.start), end=duration(w.end), text=w.text.strip(), probability=w.probability)
            for w in segment.words
        ],
        channel=segment.channel,
        language=segment.language,
    )


def segment_from(message: pb.Segment) -> Segment:
    """Convert a segment of the fallback."""
    return Segment(
        start=seconds(message.start),
        end=seconds(message.end),
        text=message.text,
        avg_logprob=message.avg_logprob,
        no_speech_prob=message.no_speech_prob,
        compression_ratio=message.compression_ratio,
        words=tuple(Word(seconds(w.start), seconds(w.end), w.text, w.probability) for w in message.words),
        language=message.language,
        channel=message.channel,
    )


def answer_of(response: pb.TranscribeResponse) -> Answer:
    """Convert the fallback's response to its answer."""
    has_probability = response.HasField("language_probability")
    has_confidence = response.routing.HasField("fallback_confidence")
    return Answer(
        model=response.routing.final_model,
        segments=tuple(segment_from(segment) for segment in response.segments),
        text=response.text,
        language=response.language,
        language_probability=response.language_probability if has_probability else None,
        confidence=response.routing.fallback_confidence if has_confidence else None,
        segment_models=tuple(s.model for s in response.segments),
    )


def duration(value: float) -> Duration:
    """Seconds as a protobuf Duration, to the microsecond."""
    whole = math.floor(value)
    micros = round((value - whole) * 1_000_000)
    return Duration(seconds=whole + micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def seconds(value: Duration) -> float:
    """A protobuf Duration as seconds."""
    return value.seconds + value.nanos / 1e9
