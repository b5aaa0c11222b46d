"""Decodes audio files with FFmpeg, through PyAV, with restrictions.

Files are untrusted. Only the demuxer chosen by the first bytes, a list of audio decoders and no protocols are enabled,
and decoding stops at the length limit.
"""

from __future__ import annotations

from io import BytesIO

import av
import av.container

from stt_server.audio.channels import Sink
from stt_server.audio.codecs import OPTIONS, SUPPORTED
from stt_server.audio.packets import decode_packet, packets
from stt_server.audio.signatures import Signature, detect
from stt_server.audio.tracks import audible_stream, usable_streams
from stt_server.errors import EmptyAudio, SttError, UnsupportedAudio

_SLACK_BYTES = 1 << 20


def check_known(data: bytes) -> Signature:
    """The format of the file `data`.

    Raises:
        EmptyAudio: 0 bytes.
        UnsupportedAudio: the first bytes are not those of a supported format.
    """
    if not data:
        raise EmptyAudio("the recording is empty (0 bytes)")
    signature = detect(data)
    if signature is None:
        raise UnsupportedAudio(f"unrecognized audio format; {SUPPORTED}")
    return signature


def decode_container(data: bytes, sink: Sink) -> None:
    """Decode the audio of the file `data` into `sink`.

    Of several streams the default one is taken, or another if that one is silent or of an unknown codec. Skips damaged
    packets. A truncated file yields the audio that it still contains.

    Raises:
        EmptyAudio: 0 bytes, or no samples.
        UnsupportedAudio: not a supported format, or nothing in it could be decoded.
        InvalidArgument: sample rate or channels out of range.
        AudioTooLong: over the sink's limit; decoding stops there.
        MemoryError: the file needs more memory than there is.
    """
    signature = check_known(data)
    try:
        _decode(data[signature.start :], signature.demuxer, sink)
    except (SttError, MemoryError):
        raise
    # Damaged files make PyAV raise IndexError, ValueError, UnicodeDecodeError and any of FFmpeg's errors. Their texts
    # may contain internals, so callers get ours.
    except Exception as error:
        raise undecodable() from error


def undecodable() -> UnsupportedAudio:
    """The error for a file that the decoder failed on."""
    return UnsupportedAudio(f"the file can't be decoded; {SUPPORTED}")


def _decode(data: bytes, demuxer: str, sink: Sink) -> None:
    budget = 2 * len(data) + _SLACK_BYTES
    with _opened(data, demuxer) as container:
        streams = usable_streams(container)
        if len(streams) == 1:
            _decode_stream(container, streams[0], sink, budget=budget)
            return
        chosen = audible_stream(container, streams, budget=budget, max_seconds=sink.max_seconds)
    with _opened(data, demuxer) as container:
        stream = next(stream for stream in usable_streams(container) if stream.index == chosen)
        _decode_stream(container, stream, sink, budget=budget)


def _opened(data: bytes, demuxer: str) -> av.container.InputContainer:
    # Tags may be in any encoding. They aren't read, so errors in them are ignored.
    return av.open(BytesIO(data), "r", format=demuxer, options=OPTIONS, metadata_errors="ignore")


def _decode_stream(container: av.container.InputContainer, stream: av.AudioStream, sink: Sink, *, budget: int) -> None:
    found = packets(container, [stream], budget=budget)
    damaged = sum(not decode_packet(packet, sink.add) for packet in found)
    sink.finish()
    if not sink.samples:
        if damaged or stream.frames:
            raise UnsupportedAudio(f"nothing in the file can be decoded; {SUPPORTED}")
        raise EmptyAudio("the file contains no audio samples")
