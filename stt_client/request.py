"""Request messages from audio (a path, bytes or samples) and options."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from protos.stt.v1 import speech_pb2
from protos.stt.v1.wire import is_request_id, new_request_id
from stt_client.errors import PayloadTooLarge

if TYPE_CHECKING:
    from types import EllipsisType

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Required, Unpack

TASKS: Mapping[str, int] = {
    "transcribe": speech_pb2.TASK_TRANSCRIBE,
    "translate": speech_pb2.TASK_TRANSLATE,
}
ROUTINGS: Mapping[str, int] = {
    "auto": speech_pb2.ROUTING_POLICY_UNSPECIFIED,
    "primary": speech_pb2.ROUTING_POLICY_PRIMARY_ONLY,
    "fallback": speech_pb2.ROUTING_POLICY_FALLBACK_ONLY,
}
ENCODINGS: Mapping[str, int] = {
    "linear16": speech_pb2.AUDIO_ENCODING_LINEAR16,
    "mulaw": speech_pb2.AUDIO_ENCODING_MULAW,
    "alaw": speech_pb2.AUDIO_ENCODING_ALAW,
}


@dataclass(frozen=True)
class AudioFormat:
    """Format of headerless audio."""

    encoding: Literal["linear16", "mulaw", "alaw"]
    """Signed 16-bit little-endian PCM, or G.711 mu-law or A-law."""
    sample_rate: int
    """Hertz, 4000 to 192000."""
    channels: int = 1
    """Interleaved channels, 1 to 8; mixed to mono by the service."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Decoded audio in memory."""

    array: NDArray[np.float32] | NDArray[np.int16]
    """Shape (samples,) or (samples, channels). float32 in [-1, 1], clipped to that range, or int16, sent unchanged."""
    sample_rate: int
    """Hertz, 4000 to 192000."""


Audio = str | os.PathLike[str] | bytes | Samples


class SpeechOptions(TypedDict, total=False):
    """Options of speech recognition."""

    language: str | None
    """Spoken language: an ISO 639-1 code (`en`), a locale (`en-US`) or an English name, in any case. None, the default,
    or `auto`: detect it."""
    candidate_languages: Sequence[str]
    """Languages to detect among, named in the same way; empty: all languages of the model."""
    task: str
    """`transcribe` or `translate` (to English)."""
    prompt: str
    """Text that precedes the audio; conveys style and vocabulary."""
    hotwords: Sequence[str]
    """Words that are likely to occur."""
    word_timestamps: bool
    """Also return each word's time."""
    routing: str
    """`auto`, `primary` or `fallback`."""


class PrepareOptions(SpeechOptions, total=False):
    """Options in the request message."""

    encoding: AudioFormat | None
    """Format of headerless bytes; None: a container such as WAV, which states its own."""
    separate_channels: bool
    """Transcribe each channel by itself; segments then name their channel."""


class CallOptions(PrepareOptions, total=False):
    """Keyword arguments of `SttClient.transcribe`."""

    timeout: float | EllipsisType | None
    """Seconds; None: no limit; default: the client's. Of a recording that is split, of each part."""
    request_id: str | None
    """1 to 64 characters of `A-Z a-z 0-9 . _ -`; None: a random one."""
    metadata: Sequence[tuple[str, str]]
    """Additional request metadata; overrides the client's own entries of the same name."""


class SendOptions(TypedDict, total=False):
    """Keyword arguments of `SttClient.send`."""

    deadline: Required[float | None]
    """Time on `time.monotonic`; None: no limit."""
    request_id: str | None
    metadata: Sequence[tuple[str, str]]


def send_options(options: CallOptions, timeout: float | None) -> tuple[SendOptions, PrepareOptions]:
    """Separate the options of a call from those of its request. The deadline is counted from here.

    Args:
        timeout: the client's, in seconds; None: no limit.

    Raises:
        ValueError: the request id is invalid.
    """
    rest = dict(options)
    given = cast("float | EllipsisType | None", rest.pop("timeout", ...))
    seconds = timeout if given is ... else given
    send = SendOptions(
        deadline=None if seconds is None else time.monotonic() + seconds,
        # Chosen here, as all attempts share it: in the logs they are one request.
        request_id=checked_request_id(cast("str | None", rest.pop("request_id", None))),
        metadata=cast("Sequence[tuple[str, str]]", rest.pop("metadata", ())),
    )
    return send, cast(PrepareOptions, rest)


async def prepare(
    audio: Audio,
    max_bytes: int,
    *,
    encoding: AudioFormat | None = None,
    separate_channels: bool = False,
    **speech: Unpack[SpeechOptions],
) -> speech_pb2.TranscribeRequest:
    """Build the request message. Reads files and converts samples in a thread.

    Raises:
        ValueError: invalid option.
        OSError: the file can't be read (`FileNotFoundError`, `IsADirectoryError`, ...).
        PayloadTooLarge: the file is larger than `max_bytes`.
    """
    options = transcribe_options(**speech)
    options.separate_channels = separate_channels
    if isinstance(audio, Samples):
        if encoding is not None:
            raise ValueError("encoding applies to headerless bytes, not to Samples; leave it out")
        data, encoding = await asyncio.to_thread(linear16, audio)
    elif isinstance(audio, str | os.PathLike):
        data = await asyncio.to_thread(_read, Path(audio), max_bytes)
    else:
        data = bytes(audio)
    return speech_pb2.TranscribeRequest(options=options, format=format_of(encoding), audio=data)


def transcribe_options(
    *,
    language: str | None = None,
    candidate_languages: Sequence[str] = (),
    task: str = "transcribe",
    prompt: str = "",
    hotwords: Sequence[str] = (),
    word_timestamps: bool = False,
    routing: str = "auto",
) -> speech_pb2.TranscribeOptions:
    """Build the options message. Raises ValueError: invalid option."""
    return speech_pb2.TranscribeOptions(
        language=language or "",
        candidate_languages=_strings("candidate_languages", candidate_languages),
        task=_choice("task", task, TASKS),
        prompt=prompt,
        hotwords=_strings("hotwords", hotwords),
        word_timestamps=word_timestamps,
        routing=_choice("routing", routing, ROUTINGS),
    )


def checked_request_id(request_id: str | None) -> str:
    """Validate a request id; None: return a random one.

    Raises:
        ValueError: the service would replace it.
    """
    if request_id is None:
        return new_request_id()
    if not is_request_id(request_id):
        raise ValueError(f"invalid request_id {request_id!r}: use 1 to 64 characters of A-Z a-z 0-9 . _ -")
    return request_id


def _choice(name: str, value: str, known: Mapping[str, Any]) -> Any:
    if value not in known:
        raise ValueError(f"invalid {name} {value!r}: use {' or '.join(known)}")
    return known[value]


def _strings(name: str, values: Sequence[str]) -> list[str]:
    # A string is a sequence of strings, too: its characters would be sent one by one.
    if isinstance(values, str):
        raise ValueError(f"{name} must be a sequence of strings, such as [{values!r}]")
    return list(values)


def format_of(encoding: AudioFormat | None) -> speech_pb2.AudioFormat | None:
    """Build the format message. Raises ValueError: unknown encoding."""
    if encoding is None:
        return None
    return speech_pb2.AudioFormat(
        encoding=_choice("encoding", encoding.encoding, ENCODINGS),
        sample_rate_hertz=encoding.sample_rate,
        channel_count=encoding.channels,
    )


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise PayloadTooLarge(f"{path.name} has {size} bytes; the limit of this client is {max_bytes}")
        return file.read()


def linear16(samples: Samples) -> tuple[bytes, AudioFormat]:
    """Convert samples to headerless audio. Raises ValueError: their shape or type is invalid."""
    import numpy as np

    array = np.asarray(samples.array)
    if array.ndim not in (1, 2):
        raise ValueError(f"invalid shape {array.shape} of samples: use (samples,) or (samples, channels)")
    if array.dtype.kind == "f":
        # Scaled by 32768, as decoders divide by it; 1.0 exceeds the range and becomes 32767.
        unit = np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0), -1.0, 1.0)
        array = np.minimum(np.rint(unit * 32768), 32767).astype(np.int16)
    elif array.dtype != np.int16:
        raise ValueError(f"invalid dtype {array.dtype} of samples: use float32 in [-1, 1] or int16")
    channels = array.shape[1] if array.ndim == 2 else 1
    return array.astype("<i2").tobytes(), AudioFormat("linear16", samples.sample_rate, channels)
