"""Audio files: demuxed and decoded by FFmpeg through PyAV, inside a fence.

The file is hostile until it has been decoded. It reaches only the demuxer that its first bytes name, only audio
decoders of a list, no protocol; it is decoded no further than the limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import av
import av.container
import av.error
import numpy as np
import numpy.typing as npt

from stt_server.audio.formats import check_stated, sniff
from stt_server.audio.mono import MonoSink
from stt_server.errors import EmptyAudio, InvalidArgument, SttError, UnsupportedAudio

_TAKEN = "WAV, FLAC, MP3, Ogg, MP4/M4A, WebM and ADTS AAC are taken"

_DECODERS = frozenset(
    {
        "aac",
        "alac",
        "flac",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "opus",
        "libopus",
        "speex",
        "vorbis",
        "libvorbis",
    }
    | {"adpcm_ima_wav", "adpcm_ms", "gsm_ms", "pcm_alaw", "pcm_mulaw", "pcm_u8"}
    | {f"pcm_{sample}{order}" for sample in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")}
)
"""FFmpeg's decoders of speech as people record it. No video decoder runs, not even to probe."""

_OPTIONS = {
    "format_whitelist": "wav,flac,mp3,ogg,mov,matroska,aac",
    "codec_whitelist": ",".join(sorted(_DECODERS)),
    # No protocol of this name: whatever a file refers to, it can't be opened.
    "protocol_whitelist": "none",
}

_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
"""Of FFmpeg's sample formats; the planar ones have a `p` behind."""

_SLACK_BYTES = 1 << 20


def check_known(data: bytes) -> str:
    """The FFmpeg demuxer for the file `data`.

    Raises:
        EmptyAudio: 0 bytes.
        UnsupportedAudio: not audio of a listed format, by its first bytes.
    """
    if not data:
        raise EmptyAudio("the recording has 0 bytes")
    demuxer = sniff(data)
    if demuxer is None:
        raise UnsupportedAudio(f"not an audio file that is known here; {_TAKEN}")
    return demuxer


def decode_container(data: bytes, sink: MonoSink) -> None:
    """Gives the first audio stream of the file `data` to `sink`.

    Damaged packets are left out; a truncated file gives the audio it still holds.

    Raises:
        EmptyAudio: 0 bytes, or no samples.
        UnsupportedAudio: not audio of a listed format, or nothing in it decodes.
        InvalidArgument: sample rate or channels out of range.
        AudioTooLong: over the sink's limit; decoding stops there.
        MemoryError: there isn't as much as the file asks for.
    """
    demuxer = check_known(data)
    try:
        _decode(data, demuxer, sink)
    except (SttError, MemoryError):
        raise
    # PyAV meets damaged files with IndexError, ValueError, UnicodeDecodeError and all of FFmpeg's own errors. Their
    # texts can hold internals, so that the caller gets ours.
    except Exception as error:
        raise undecodable() from error


def undecodable() -> UnsupportedAudio:
    """The error for a file on which a decoder gave up."""
    return UnsupportedAudio(f"the file can't be decoded; {_TAKEN}")


def _decode(data: bytes, demuxer: str, sink: MonoSink) -> None:
    # Tags are in whatever encoding their writer liked: they are not read, and must not matter.
    with av.open(BytesIO(data), format=demuxer, options=_OPTIONS, metadata_errors="ignore") as container:
        stream = _first_audio_stream(container)
        damaged = 0
        for packet in _packets(container, stream, budget=2 * len(data) + _SLACK_BYTES):
            try:
                for frame in packet.decode():
                    # Again, for HE-AAC and chained Ogg change as they go, and damage can say anything.
                    check_stated(frame.sample_rate, frame.layout.nb_channels)
                    if frame.samples:
                        sink.add(_planar(frame), frame.sample_rate)
            except av.error.MemoryError:
                raise
            except (av.error.FFmpegError, InvalidArgument):
                damaged += 1
    sink.finish()
    if not sink.samples:
        if damaged or stream.frames:  # there were to be some
            raise UnsupportedAudio(f"nothing in the file can be decoded; {_TAKEN}")
        raise EmptyAudio("the file holds no audio samples")


def _first_audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise UnsupportedAudio(f"the file has no audio stream; {_TAKEN}")
    stream = container.streams.audio[0]
    codec = stream.codec_context
    if codec is None or codec.name not in _DECODERS:
        raise UnsupportedAudio(f"the file's audio is in a codec that is not taken; {_TAKEN}")
    if not (codec.sample_rate and codec.layout.nb_channels):
        raise UnsupportedAudio(f"the file breaks off before its audio can be made out; {_TAKEN}")
    check_stated(codec.sample_rate, codec.layout.nb_channels)
    codec.thread_count = 1  # the caller decides how many recordings are decoded at a time
    return stream


def _packets(
    container: av.container.InputContainer, stream: av.AudioStream, *, budget: int
) -> Iterator[av.Packet[av.AudioStream]]:
    """The stream's packets, up to `budget` bytes, until the file ends or breaks off.

    Packets lie side by side in an honest file. An index may name the same bytes a billion times, none of which need
    decode to a sample: the budget ends that.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            return  # the rest of the file is missing or broken
        if packet is None:
            return
        budget -= max(packet.size, 1)
        if budget < 0:
            raise UnsupportedAudio(f"the file's index is broken; {_TAKEN}")
        yield packet


def _planar(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """The frame's samples, shaped (channels, n); good for as long as the frame is.

    `AudioFrame.to_ndarray` would do, but takes a ninth plane for real in planar audio of 8 channels, where FFmpeg's
    list of planes has no end mark, and reads wherever that points.
    """
    channels = frame.layout.nb_channels
    dtype = _DTYPES[frame.format.name.removesuffix("p")]
    planes = [memoryview(plane) for plane in frame.planes[: channels if frame.format.is_planar else 1]]
    samples: npt.NDArray[Any]
    if frame.format.is_planar:
        samples = np.stack([np.frombuffer(plane, dtype, count=frame.samples) for plane in planes])
    else:
        samples = np.frombuffer(planes[0], dtype, count=frame.samples * channels).reshape(-1, channels).T
    return samples
