"""Reads packets of a file and decodes them to arrays of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import av.container
import av.error
import numpy as np
import numpy.typing as npt

from stt_server.audio.codecs import SUPPORTED
from stt_server.audio.formats import check_stated
from stt_server.errors import InvalidArgument, UnsupportedAudio

_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
"""NumPy types of FFmpeg's sample formats; planar formats have a `p` appended."""


def packets(
    container: av.container.InputContainer, streams: Sequence[av.AudioStream], *, budget: int
) -> Iterator[av.Packet[av.AudioStream]]:
    """Yield the streams' packets, up to `budget` bytes, until the file ends or is broken.

    Packets of an intact file don't overlap. A hostile index may refer to the same bytes a billion times without
    yielding a sample; the budget bounds that.

    Raises:
        UnsupportedAudio: the budget is used up.
    """
    found: Iterator[av.Packet[Any]] = container.demux(*streams)
    while True:
        try:
            packet = next(found, None)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            return  # the rest of the file is missing or broken
        if packet is None:
            return
        budget -= max(packet.size, 1)
        if budget < 0:
            raise UnsupportedAudio(f"the file's index is corrupt; {SUPPORTED}")
        yield packet


def decode_packet(packet: av.Packet[av.AudioStream], add: Callable[[npt.NDArray[Any], int], None]) -> bool:
    """Decode one packet; False if it is damaged.

    Args:
        add: called with the samples of each frame, of shape (channels, n) and valid during the call, and their rate in
            hertz.
    """
    try:
        for frame in packet.decode():
            # Checked for each frame: HE-AAC and chained Ogg change them midway, and so may damage.
            check_stated(frame.sample_rate, frame.layout.nb_channels)
            if frame.samples:
                add(_planar(frame), frame.sample_rate)
    except av.error.MemoryError:
        raise
    except (av.error.FFmpegError, InvalidArgument):
        return False
    return True


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
