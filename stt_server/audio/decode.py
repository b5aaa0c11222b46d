"""Decodes a whole recording to mono float32 at 16 kHz, in this process."""

from __future__ import annotations

from stt_server.audio.channels import ChannelBuffer, sink_for
from stt_server.audio.container import check_known, decode_container
from stt_server.audio.formats import AudioFormat
from stt_server.audio.headerless import decode_headerless
from stt_server.audio.mono import FloatArray, MonoSink, SampleBuffer
from stt_server.audio.wav import read_wav


def decode(data: bytes, format: AudioFormat, *, max_seconds: float) -> FloatArray:
    """Decode to mono samples at 16 kHz, full scale at 1 (lossy codecs may exceed it slightly).

    Channels are averaged, or the loudest is taken where they cancel each other out. NaN and infinite samples become 0.

    For trusted files only: untrusted ones are decoded in a child process, by `sandbox.pool.DecoderPool`.

    Args:
        data: a whole audio file, or headerless samples, depending on `format`.
        max_seconds: longest recording accepted; decoding stops there, which bounds memory.

    Raises:
        EmptyAudio: 0 bytes, or no samples.
        UnsupportedAudio: not a supported audio format, or nothing in it could be decoded.
        InvalidArgument: sample rate or channels out of range, or headerless bytes that aren't whole samples.
        AudioTooLong: over `max_seconds`.
    """
    plain = decode_plain(data, format, max_seconds=max_seconds)
    if plain is not None:
        return plain[0]
    buffer = SampleBuffer()
    decode_container(data, MonoSink(max_seconds, buffer.add))
    return buffer.samples()


def decode_plain(
    data: bytes, format: AudioFormat, *, max_seconds: float, separate_channels: bool = False
) -> list[FloatArray] | None:
    """Decode headerless audio or a plain PCM WAV file, without FFmpeg's demuxers and decoders.

    Args:
        max_seconds: of one channel.
        separate_channels: keep the channels apart instead of mixing them.

    Returns:
        The samples of each channel, or of the mix; None for a file that needs FFmpeg, judged by its first bytes.

    Raises:
        SttError: as `decode`.
    """
    buffer = ChannelBuffer()
    sink = sink_for(max_seconds, buffer.add, separate_channels=separate_channels)
    if format.encoding != "container":
        decode_headerless(data, format, sink, max_seconds=max_seconds)
    else:
        wav = read_wav(data) if check_known(data).demuxer == "wav" else None
        if wav is None:
            return None
        wav.feed(sink)
    sink.finish()
    return buffer.channels()
