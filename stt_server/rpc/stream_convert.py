"""Protobuf to a live session's messages, and its events to protobuf."""

from __future__ import annotations

from collections.abc import AsyncIterator

from protos.stt.v1 import speech_pb2 as pb
from stt_server.rpc.convert import duration, format_of, options_of, policy_of, response_of, seconds
from stt_server.streaming.events import (
    ENDPOINT_SILENCE,
    Audio,
    Flush,
    Interim,
    Message,
    Nothing,
    Sent,
    Speech,
    StreamConfig,
)

_TYPES = {"started": pb.SpeechEvent.TYPE_STARTED, "ended": pb.SpeechEvent.TYPE_ENDED}


async def messages_of(requests: AsyncIterator[pb.StreamTranscribeRequest]) -> AsyncIterator[Message]:
    """A session's messages, from the wire's.

    Raises:
        InvalidArgument: an enum value that this version doesn't know.
    """
    async for request in requests:
        yield _message(request)


def _message(request: pb.StreamTranscribeRequest) -> Message:
    payload = request.WhichOneof("payload")
    if payload == "audio":
        return Audio(request.audio)
    if payload == "flush":
        return Flush()
    return _config(request.config) if payload == "config" else Nothing()


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
    """An event as it goes over the wire."""
    event, heard = sent.event, duration(sent.heard)
    if isinstance(event, Speech):
        spoken = pb.SpeechEvent(type=_TYPES[event.type], offset=duration(event.offset))
        return pb.StreamTranscribeResponse(speech_event=spoken, audio_processed=heard)
    if isinstance(event, Interim):
        interim = pb.Interim(
            utterance=event.utterance,
            stable_text=event.stable,
            unstable_text=event.unstable,
            language=event.language,
        )
        return pb.StreamTranscribeResponse(interim=interim, audio_processed=heard)
    result = response_of(event.transcript, event.trace, request_id, event.total)
    return pb.StreamTranscribeResponse(final=pb.Final(utterance=event.utterance, result=result), audio_processed=heard)
