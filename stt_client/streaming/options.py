"""The options of a live stream, and the message that they become."""

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
"""What a service takes where it is told nothing."""


class ConfigOptions(SpeechOptions, total=False):
    """What the service is told first."""

    interim_results: bool
    """Yield `Interim`s (the default)."""
    endpoint_silence: float | None
    """Seconds of silence that end an utterance, 0.1 to 5; None: the service's own, 0.6."""
    single_utterance: bool
    """End after the first final (default: False)."""


class StreamOptions(ConfigOptions, total=False):
    """The keyword arguments of `SttClient.stream` beside `encoding`."""

    timeout: float | None
    """Seconds that the whole stream may take; None, the default: no limit."""
    request_id: str | None
    """1 to 64 of `A-Z a-z 0-9 . _ -`; None: a new one."""
    metadata: Sequence[tuple[str, str]]
    """Sent as it is; replaces what the client would send under the same name."""
    resume: bool
    """Reconnect when the connection is lost, and go on (default: False)."""


def stream_config(
    encoding: AudioFormat,
    *,
    interim_results: bool = True,
    endpoint_silence: float | None = None,
    single_utterance: bool = False,
    **speech: Unpack[SpeechOptions],
) -> speech_pb2.StreamConfig:
    """The first message of a stream.

    Raises:
        ValueError: an option that isn't one; the message names what it takes.
    """
    silence = None
    if endpoint_silence is not None:
        if not (math.isfinite(endpoint_silence) and endpoint_silence > 0):
            raise ValueError(f"endpoint_silence takes seconds over 0, not {endpoint_silence!r}")
        silence = Duration()
        silence.FromNanoseconds(round(endpoint_silence * 1e9))
    return speech_pb2.StreamConfig(
        options=transcribe_options(**speech),
        format=format_of(encoding),
        interim_results=interim_results,
        endpoint_silence=silence,
        single_utterance=single_utterance,
    )
