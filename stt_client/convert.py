"""Conversion of protobuf messages to the dataclasses that callers get."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from protos.stt.v1 import speech_pb2
from stt_client.errors import Internal
from stt_client.results import (
    Limits,
    Progress,
    Routing,
    Segment,
    SettledSegments,
    Status,
    Timings,
    Transcript,
    Word,
)
from stt_client.streaming.results import Final, Interim, SpeechEvent, StreamEvent

_NANOS = 1_000_000_000


def seconds_of(duration: Duration) -> float:
    """Duration in seconds: the nearest float, exact to the microsecond."""
    return (duration.seconds * _NANOS + duration.nanos) / _NANOS


def transcript_of(response: speech_pb2.TranscribeResponse, metadata: Mapping[str, str]) -> Transcript:
    """Convert the answer of `Transcribe`, given the trailing metadata of its call."""
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


def progress_of(progress: speech_pb2.Progress, elapsed: float) -> Progress:
    """Convert a message of `TranscribeWithProgress`; `elapsed`: seconds since the call began."""
    known = progress.HasField("audio_duration")
    duration = seconds_of(progress.audio_duration) if known else None
    return Progress(duration, seconds_of(progress.audio_settled), elapsed)


def settled_of(settled: speech_pb2.SettledSegments) -> SettledSegments:
    """Convert a message of `TranscribeWithProgress`."""
    return SettledSegments(tuple(map(_segment_of, settled.segments)))


def status_of(response: speech_pb2.GetStatusResponse) -> Status:
    """Convert the answer of `GetStatus`.

    Raises:
        Internal: the snapshot is not a JSON object.
    """
    try:
        snapshot = json.loads(response.snapshot_json or "{}")
    except ValueError:
        snapshot = None
    if not isinstance(snapshot, dict):
        raise Internal("GetStatus: snapshot_json is not a JSON object; check that client and service versions match")
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
    """Convert an event of a stream; None for a kind that this version doesn't know."""
    processed = seconds_of(response.audio_processed)
    kind = response.WhichOneof("event")
    if kind == "interim":
        interim = response.interim
        return Interim(interim.utterance, interim.stable_text, interim.unstable_text, interim.language, processed)
    if kind == "final":
        return Final(response.final.utterance, transcript_of(response.final.result, {}), processed)
    event = response.speech_event
    if kind == "speech_event" and event.type == speech_pb2.SpeechEvent.TYPE_STARTED:
        return SpeechEvent("started", seconds_of(event.offset), processed)
    if kind == "speech_event" and event.type == speech_pb2.SpeechEvent.TYPE_ENDED:
        return SpeechEvent("ended", seconds_of(event.offset), processed)
    return None


def reason_of(reason: speech_pb2.RouteReason.ValueType) -> str:
    """Name of a route reason, such as `low_logprob`; its number if this version doesn't know it."""
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
        channel=segment.channel,
        language=segment.language,
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


def _single(value: float) -> float:
    """Shortest decimal that rounds to the same 32-bit float: 0.9 instead of 0.8999999761581421."""
    exact = struct.pack("<f", value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == exact:
            return short
    return value
