"""Bytes of a recording -> mono float32 at 16 kHz."""

from __future__ import annotations

from stt_server.audio.container import decode_container
from stt_server.audio.formats import AudioFormat
from stt_server.audio.headerless import decode_headerless
from stt_server.audio.mono import FloatArray


def decode(data: bytes, format: AudioFormat, *, max_seconds: float) -> FloatArray:
    """`data` as mono samples at 16 kHz, full scale at 1 (lossy codecs may overshoot a little); channels are averaged.

    Args:
        data: a whole audio file, or headerless samples, as `format` says.
        max_seconds: longest recording that is taken; decoding stops there, so that memory is bounded by it.

    Raises:
        EmptyAudio: 0 bytes, or no samples.
        UnsupportedAudio: not audio of a listed format, or nothing in it decodes.
        InvalidArgument: sample rate or channels out of range, or headerless bytes that don't make whole samples.
        AudioTooLong: over `max_seconds`.
    """
    if format.encoding == "container":
        return decode_container(data, max_seconds=max_seconds)
    return decode_headerless(data, format, max_seconds=max_seconds)
