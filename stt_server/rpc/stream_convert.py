"""Conversion of a live session's messages and events from and to protobuf."""

from __future__ import annotations

from collections.abc import AsyncIterator

from protos.stt.v1 import speech_pb2 as pb
from stt_server.rpc.convert import duration, format_of, options_of, policy_of, response_of, seconds
from stt_server.streaming.events import (
    ENDPOINT_SILENCE,
    Audio,
    Empty,
    Final,
    Flush,
    Interim,
    Message,
    Sent,
    SpeechStarted,
    StreamConfig,
)


async def messages_of(requests: AsyncIterator[pb.StreamTranscribeRequest]) -> AsyncIterator[Message]:
    """Convert a caller's requests.

    Raises:
        InvalidArgument: unknown enum value.
    """
    async for request in requests:
        yield _message(request)


def _message(request: pb.StreamTranscribeRequest) -> Message:
    payload = request.WhichOneof("payload")
    if payload == "audio":
        return Audio(request.audio)
    if payload == "flush":
        return Flush()
    return _config(request.config) if payload == "config" else Empty()


def _config(config: pb.StreamConfig) -> StreamConfig:
    return StreamConfig(
        options=options_of(config.options),
        format=format_of(config.format),
        policy=policy_of(config.options),
        interim_results=config.interim_results,
        endpoint_silence=seconds(config.endpoint_silence) if config.HasField("endpoint_silence") else ENDPOINT_SILENCE,
        single_utterance=config.single_utterance,
    )


def event_of(sent: Sent, request_id: str) -> pb.StreamTranscribeResponse:
    """Convert an event; `request_id` goes into a final's result."""
    event, processed = sent.event, duration(sent.audio_processed)
    if isinstance(event, Interim):
        interim = pb.Interim(
            utterance=event.utterance,
            stable_text=event.stable,
            unstable_text=event.unstable,
            language=event.language,
        )
        return pb.StreamTranscribeResponse(interim=interim, audio_processed=processed)
    if isinstance(event, Final):
        result = response_of(event.transcript, event.trace, request_id, event.total)
        final = pb.Final(utterance=event.utterance, result=result)
        return pb.StreamTranscribeResponse(final=final, audio_processed=processed)
    type_ = pb.SpeechEvent.TYPE_STARTED if isinstance(event, SpeechStarted) else pb.SpeechEvent.TYPE_ENDED
    speech = pb.SpeechEvent(type=type_, offset=duration(event.offset))
    return pb.StreamTranscribeResponse(speech_event=speech, audio_processed=processed)
