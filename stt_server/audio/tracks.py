"""Chooses the audio stream of a file: the default one, or another if that one is silent or of an unknown codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import av.container
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from stt_server.audio.codecs import DECODERS, SUPPORTED
from stt_server.audio.formats import check_stated
from stt_server.audio.mono import to_float
from stt_server.audio.packets import decode_packet, packets
from stt_server.errors import InvalidArgument, UnsupportedAudio

_AUDIBLE = 0.003
"""Magnitude (-50 dB of full scale) at which the default stream is taken at once. A quieter one is taken too, unless
another stream is `_MUCH_LOUDER`."""

_MUCH_LOUDER = 10.0

_MOST_STREAMS = 4
"""Streams that are compared, which bounds the work for a hostile file."""


def usable_streams(container: av.container.InputContainer) -> list[av.AudioStream]:
    """Audio streams that can be decoded, default ones first; at least one, at most 4.

    Raises:
        UnsupportedAudio: there is none.
        InvalidArgument: sample rate or channels out of range, in the only streams that could be decoded.
    """
    streams = container.streams.audio
    if not streams:
        raise UnsupportedAudio(f"the file has no audio stream; {SUPPORTED}")
    problem: UnsupportedAudio | InvalidArgument | None = None
    usable = []
    for stream in sorted(streams, key=lambda stream: not stream.disposition & Disposition.default):
        try:
            _check_usable(stream)
        except (UnsupportedAudio, InvalidArgument) as error:
            problem = problem or error
        else:
            usable.append(stream)
    if not usable and problem is not None:
        raise problem
    return usable[:_MOST_STREAMS]


def audible_stream(
    container: av.container.InputContainer, streams: Sequence[av.AudioStream], *, budget: int, max_seconds: float
) -> int:
    """Index within the file of the first of `streams`, or of another if the first one is silent in comparison.

    Decodes until the first one is heard, in the worst case the whole file, or `max_seconds` of it.
    """
    peaks = dict.fromkeys((stream.index for stream in streams), 0.0)
    seconds = dict.fromkeys(peaks, 0.0)
    first = streams[0].index

    def measure(samples: npt.NDArray[Any], rate: int) -> None:
        peaks[index] = max(peaks[index], float(np.abs(to_float(samples)).max()))
        seconds[index] += samples.shape[1] / rate

    for packet in packets(container, streams, budget=budget):
        index = packet.stream.index
        if index == first or peaks[index] < _AUDIBLE * _MUCH_LOUDER:
            decode_packet(packet, measure)
        if peaks[first] >= _AUDIBLE or seconds[index] > max_seconds:
            break
    loudest = max(peaks, key=lambda index: peaks[index])
    silent = peaks[first] < _AUDIBLE and peaks[loudest] > _MUCH_LOUDER * peaks[first]
    return loudest if silent else first


def _check_usable(stream: av.AudioStream) -> None:
    codec = stream.codec_context
    if codec is None or codec.name not in DECODERS:
        raise UnsupportedAudio(f"unsupported audio codec; {SUPPORTED}")
    if not (codec.sample_rate and codec.layout.nb_channels):
        raise UnsupportedAudio(f"the file ends before its audio format is known; {SUPPORTED}")
    check_stated(codec.sample_rate, codec.layout.nb_channels)
    codec.thread_count = 1  # the caller controls parallelism
