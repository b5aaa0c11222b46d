"""Options of a live stream, and the config message built from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from protos.stt.v1 import speech_pb2
from stt_client.request import AudioFormat, SpeechOptions, format_of, transcribe_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

ENDPOINT_SILENCE_S = 0.6
"""Default of the service. Seconds."""


class ConfigOptions(SpeechOptions, total=False):
    """Options in the config message."""

    interim_results: bool
    """Yield `Interim` events (default: True)."""
    endpoint_silence: float | None
    """Seconds of silence that end an utterance, 0.1 to 5; None: the service's default, 0.6."""
    single_utterance: bool
    """End after the first final (default: False)."""


class StreamOptions(ConfigOptions, total=False):
    """Keyword arguments of `SttClient.stream` besides `encoding`."""

    timeout: float | None
    """Timeout of the whole stream, in seconds (default: None, no limit)."""
    request_id: str | None
    """1 to 64 characters of `A-Z a-z 0-9 . _ -`; None: a random one."""
    metadata: Sequence[tuple[str, str]]
    """Additional request metadata; overrides the client's own entries of the same name."""
    resume: bool
    """Reconnect and continue when the connection is lost (default: False)."""


def stream_config(
    encoding: AudioFormat,
    *,
    interim_results: bool = True,
    endpoint_silence: float | None = None,
    single_utterance: bool = False,
    **speech: Unpack[SpeechOptions],
) -> speech_pb2.StreamConfig:
    """Build the config, the first message of a stream.

    Raises:
        ValueError: invalid option.
    """
    silence = None
    if endpoint_silence is not None:
        if not (math.isfinite(endpoint_silence) and endpoint_silence > 0):
            raise ValueError(f"invalid endpoint_silence {endpoint_silence!r}: use seconds greater than 0")
        silence = Duration()
        silence.FromNanoseconds(round(endpoint_silence * 1e9))
    return speech_pb2.StreamConfig(
        options=transcribe_options(**speech),
        format=format_of(encoding),
        interim_results=interim_results,
        endpoint_silence=silence,
        single_utterance=single_utterance,
    )
