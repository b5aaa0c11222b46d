"""Bytes of a recording -> mono float32 at 16 kHz."""

from __future__ import annotations

from stt_server.audio.container import check_known, decode_container
from stt_server.audio.formats import AudioFormat
from stt_server.audio.headerless import decode_headerless
from stt_server.audio.mono import FloatArray, MonoSink, Recording
from stt_server.audio.wav import read_wav


def decode(data: bytes, format: AudioFormat, *, max_seconds: float) -> FloatArray:
    """`data` as mono samples at 16 kHz, full scale at 1 (lossy codecs may overshoot a little); channels are averaged,
    and float samples that are no finite numbers become 0.

    For recordings of one's own: those of strangers are decoded in a child (`children.Children`).

    Args:
        data: a whole audio file, or headerless samples, as `format` says.
        max_seconds: longest recording that is taken; decoding stops there, so that memory is bounded by it.

    Raises:
        EmptyAudio: 0 bytes, or no samples.
        UnsupportedAudio: not audio of a listed format, or nothing in it decodes.
        InvalidArgument: sample rate or channels out of range, or headerless bytes that don't make whole samples.
        AudioTooLong: over `max_seconds`.
    """
    audio = decode_plain(data, format, max_seconds=max_seconds)
    if audio is not None:
        return audio
    recording = Recording()
    decode_container(data, MonoSink(max_seconds, recording.add))
    return recording.samples()


def decode_plain(data: bytes, format: AudioFormat, *, max_seconds: float) -> FloatArray | None:
    """What `decode` gives, if no FFmpeg demuxer or decoder is needed: headerless audio and plain PCM WAV.

    None: it is a file for FFmpeg, by its first bytes. Raises as `decode` does.
    """
    recording = Recording()
    sink = MonoSink(max_seconds, recording.add)
    if format.encoding != "container":
        decode_headerless(data, format, sink, max_seconds=max_seconds)
    else:
        wav = read_wav(data) if check_known(data) == "wav" else None
        if wav is None:
            return None
        wav.feed(sink)
    sink.finish()
    return recording.samples()
