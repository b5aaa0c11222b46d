"""Protobuf messages to dataclasses, and dataclasses to the JSON of the REST interface."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from protos.stt.v1 import speech_pb2
from stt_client.errors import Internal
from stt_client.results import Limits, Routing, Segment, Status, Timings, Transcript, Word
from stt_client.streaming.results import Final, Interim, SpeechEvent, StreamEvent

_NANOS = 1_000_000_000


def seconds_of(duration: Duration) -> float:
    """A duration in seconds: the float that is nearest to it, so that microseconds survive for centuries."""
    return (duration.seconds * _NANOS + duration.nanos) / _NANOS


def transcript_of(response: speech_pb2.TranscribeResponse, metadata: Mapping[str, str]) -> Transcript:
    """The typed answer. `metadata`: the call's trailing metadata."""
    known = response.HasField("language_probability")
    return Transcript(
        request_id=response.request_id,
        text=response.text,
        language=response.language,
        language_probability=_single(response.language_probability) if known else None,
        audio_duration=seconds_of(response.audio_duration),
        segments=tuple(map(_segment_of, response.segments)),
        routing=_routing_of(response.routing),
        timings=Timings(
            queue_wait=seconds_of(response.timings.queue_wait),
            primary_infer=seconds_of(response.timings.primary_infer),
            fallback_infer=seconds_of(response.timings.fallback_infer),
            total=seconds_of(response.timings.total),
        ),
        metadata=metadata,
    )


def status_of(response: speech_pb2.GetStatusResponse) -> Status:
    """The typed answer of `GetStatus`.

    Raises:
        Internal: the snapshot is no JSON object.
    """
    try:
        snapshot = json.loads(response.snapshot_json or "{}")
    except ValueError:
        snapshot = None
    if not isinstance(snapshot, dict):
        raise Internal("the service sent a status whose snapshot is no JSON object")
    limits = response.limits
    return Status(
        service=response.service,
        model=response.model,
        device=response.device,
        compute_type=response.compute_type,
        server_commit=response.server_commit,
        uptime=seconds_of(response.uptime),
        limits=Limits(
            max_upload_bytes=limits.max_upload_bytes,
            max_audio_duration=seconds_of(limits.max_audio_duration),
            max_concurrency=limits.max_concurrency,
            max_queue=limits.max_queue,
        ),
        snapshot=snapshot,
    )


def event_of(response: speech_pb2.StreamTranscribeResponse) -> StreamEvent | None:
    """The typed event of a stream; None for one that this version doesn't know."""
    heard = seconds_of(response.audio_processed)
    kind = response.WhichOneof("event")
    if kind == "interim":
        interim = response.interim
        return Interim(interim.utterance, interim.stable_text, interim.unstable_text, interim.language, heard)
    if kind == "final":
        return Final(response.final.utterance, transcript_of(response.final.result, {}), heard)
    event = response.speech_event
    if kind == "speech_event" and event.type == speech_pb2.SpeechEvent.TYPE_STARTED:
        return SpeechEvent("started", seconds_of(event.offset), heard)
    if kind == "speech_event" and event.type == speech_pb2.SpeechEvent.TYPE_ENDED:
        return SpeechEvent("ended", seconds_of(event.offset), heard)
    return None


def event_json(event: StreamEvent) -> dict[str, Any]:
    """An event of a stream as `GET /v1/stream` sends it: the proto's names, times in seconds."""
    if isinstance(event, SpeechEvent):
        said: dict[str, Any] = {"speech_event": {"type": event.type.upper(), "offset": event.offset}}
    elif isinstance(event, Interim):
        said = {
            "interim": {
                "utterance": event.utterance,
                "stable_text": event.stable_text,
                "unstable_text": event.unstable_text,
                "language": event.language,
            }
        }
    else:
        said = {"final": {"utterance": event.utterance, "result": transcript_json(event.result)}}
    return {**said, "audio_processed": event.audio_processed}


def transcript_json(transcript: Transcript) -> dict[str, Any]:
    """The transcript as `POST /v1/transcribe` returns it: times in seconds, `timings` in milliseconds."""
    routing, timings = transcript.routing, transcript.timings
    return {
        "request_id": transcript.request_id,
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": transcript.language_probability,
        "audio_duration": transcript.audio_duration,
        "segments": [_segment_json(segment) for segment in transcript.segments],
        "routing": {
            "fallback_used": routing.fallback_used,
            "final_model": routing.final_model,
            "confidence_below": routing.confidence_below,
            "language_check_applicable": routing.language_check_applicable,
            "reasons": list(routing.reasons),
            "primary_confidence": routing.primary_confidence,
            "fallback_confidence": routing.fallback_confidence,
            "fallback_error": routing.fallback_error,
        },
        "timings": {
            "queue_wait_ms": _ms(timings.queue_wait),
            "primary_infer_ms": _ms(timings.primary_infer),
            "fallback_infer_ms": _ms(timings.fallback_infer),
            "total_ms": _ms(timings.total),
        },
        "model": routing.final_model,
    }


def reason_of(reason: speech_pb2.RouteReason.ValueType) -> str:
    """A route reason as text, `low_logprob`; a number where this version doesn't know it."""
    try:
        name = speech_pb2.RouteReason.Name(reason)
    except ValueError:
        return str(reason)
    return name.removeprefix("ROUTE_REASON_").lower()


def _segment_of(segment: speech_pb2.Segment) -> Segment:
    return Segment(
        start=seconds_of(segment.start),
        end=seconds_of(segment.end),
        text=segment.text,
        avg_logprob=_single(segment.avg_logprob),
        no_speech_prob=_single(segment.no_speech_prob),
        compression_ratio=_single(segment.compression_ratio),
        model=segment.model,
        words=tuple(
            Word(seconds_of(word.start), seconds_of(word.end), word.text, _single(word.probability))
            for word in segment.words
        ),
    )


def _routing_of(routing: speech_pb2.Routing) -> Routing:
    primary, fallback = routing.HasField("primary_confidence"), routing.HasField("fallback_confidence")
    return Routing(
        fallback_used=routing.fallback_used,
        final_model=routing.final_model,
        confidence_below=routing.confidence_below,
        language_check_applicable=routing.language_check_applicable,
        reasons=tuple(map(reason_of, routing.reasons)),
        primary_confidence=_single(routing.primary_confidence) if primary else None,
        fallback_confidence=_single(routing.fallback_confidence) if fallback else None,
        fallback_error=routing.fallback_error,
    )


def _segment_json(segment: Segment) -> dict[str, Any]:
    return {
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "avg_logprob": segment.avg_logprob,
        "no_speech_prob": segment.no_speech_prob,
        "compression_ratio": segment.compression_ratio,
        "model": segment.model,
        "words": [
            {"start": word.start, "end": word.end, "text": word.text, "probability": word.probability}
            for word in segment.words
        ],
    }


def _single(value: float) -> float:
    """The shortest decimal for a 32-bit float: 0.9, where widening it shows 0.8999999761581421."""
    exact = struct.pack("<f", value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == exact:
            return short
    return value


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
