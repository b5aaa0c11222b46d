"""Decodes audio files with FFmpeg, through PyAV, with restrictions.

Files are untrusted. Only the demuxer chosen by the first bytes, a list of audio decoders and no protocols are enabled,
and decoding stops at the length limit.
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

from stt_server.audio.channels import Sink
from stt_server.audio.formats import check_stated, sniff
from stt_server.errors import EmptyAudio, InvalidArgument, SttError, UnsupportedAudio

_SUPPORTED = "supported: WAV, FLAC, MP3, Ogg, MP4/M4A, WebM and ADTS AAC"

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
"""FFmpeg decoders for usual recordings of speech. No video decoder runs, not even to probe."""

_OPTIONS = {
    "format_whitelist": "wav,flac,mp3,ogg,mov,matroska,aac",
    "codec_whitelist": ",".join(sorted(_DECODERS)),
    # There is no protocol of this name, so that references to other files or addresses can't be opened.
    "protocol_whitelist": "none",
}

_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
"""NumPy types of FFmpeg's sample formats; planar formats have a `p` appended."""

_SLACK_BYTES = 1 << 20


def check_known(data: bytes) -> str:
    """The name of the FFmpeg demuxer for the file `data`.

    Raises:
        EmptyAudio: 0 bytes.
        UnsupportedAudio: the first bytes are not those of a supported format.
    """
    if not data:
        raise EmptyAudio("the recording is empty (0 bytes)")
    demuxer = sniff(data)
    if demuxer is None:
        raise UnsupportedAudio(f"unrecognized audio format; {_SUPPORTED}")
    return demuxer


def decode_container(data: bytes, sink: Sink) -> None:
    """Decode the first audio stream of the file `data` into `sink`.

    Skips damaged packets. A truncated file yields the audio that it still contains.

    Raises:
        EmptyAudio: 0 bytes, or no samples.
        UnsupportedAudio: not a supported format, or nothing in it could be decoded.
        InvalidArgument: sample rate or channels out of range.
        AudioTooLong: over the sink's limit; decoding stops there.
        MemoryError: the file needs more memory than there is.
    """
    demuxer = check_known(data)
    try:
        _decode(data, demuxer, sink)
    except (SttError, MemoryError):
        raise
    # Damaged files make PyAV raise IndexError, ValueError, UnicodeDecodeError and any of FFmpeg's errors. Their texts
    # may contain internals, so callers get ours.
    except Exception as error:
        raise undecodable() from error


def undecodable() -> UnsupportedAudio:
    """The error for a file that the decoder failed on."""
    return UnsupportedAudio(f"the file can't be decoded; {_SUPPORTED}")


def _decode(data: bytes, demuxer: str, sink: Sink) -> None:
    # Tags may be in any encoding. They aren't read, so errors in them are ignored.
    with av.open(BytesIO(data), format=demuxer, options=_OPTIONS, metadata_errors="ignore") as container:
        stream = _first_audio_stream(container)
        packets = _packets(container, stream, budget=2 * len(data) + _SLACK_BYTES)
        damaged = sum(not _decode_packet(packet, sink) for packet in packets)
    sink.finish()
    if not sink.samples:
        if damaged or stream.frames:
            raise UnsupportedAudio(f"nothing in the file can be decoded; {_SUPPORTED}")
        raise EmptyAudio("the file contains no audio samples")


def _decode_packet(packet: av.Packet[av.AudioStream], sink: Sink) -> bool:
    """Decode one packet into `sink`; False if it is damaged."""
    try:
        for frame in packet.decode():
            # Checked for each frame: HE-AAC and chained Ogg change them midway, and so may damage.
            check_stated(frame.sample_rate, frame.layout.nb_channels)
            if frame.samples:
                sink.add(_planar(frame), frame.sample_rate)
    except av.error.MemoryError:
        raise
    except (av.error.FFmpegError, InvalidArgument):
        return False
    return True


def _first_audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise UnsupportedAudio(f"the file has no audio stream; {_SUPPORTED}")
    stream = container.streams.audio[0]
    codec = stream.codec_context
    if codec is None or codec.name not in _DECODERS:
        raise UnsupportedAudio(f"unsupported audio codec; {_SUPPORTED}")
    if not (codec.sample_rate and codec.layout.nb_channels):
        raise UnsupportedAudio(f"the file ends before its audio format is known; {_SUPPORTED}")
    check_stated(codec.sample_rate, codec.layout.nb_channels)
    codec.thread_count = 1  # the caller controls parallelism
    return stream


def _packets(
    container: av.container.InputContainer, stream: av.AudioStream, *, budget: int
) -> Iterator[av.Packet[av.AudioStream]]:
    """Yield the stream's packets, up to `budget` bytes, until the file ends or is broken.

    Packets of an intact file don't overlap. A hostile index may refer to the same bytes a billion times without
    yielding a sample; the budget bounds that.
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
            raise UnsupportedAudio(f"the file's index is corrupt; {_SUPPORTED}")
        yield packet


def _planar(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """The frame's samples with shape (channels, n), valid as long as the frame.

    Replaces `AudioFrame.to_ndarray`, which reads a ninth plane, out of bounds, from planar audio of 8 channels: there,
    FFmpeg's list of planes has no end mark.
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
