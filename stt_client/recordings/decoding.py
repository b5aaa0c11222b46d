"""Decodes recordings of any format in blocks, with PyAV where it is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from stt_client.recordings.wav import Int16

INSTALL = "pip install 'stt-pair[files]'"
"""Command that installs PyAV."""

SAMPLE_RATE = 16_000
"""Sample rate of decoded audio, in hertz: that of the service's models."""

_OPTIONS = {
    # No playlists: these would open the files and addresses in them.
    "format_whitelist": "wav,w64,flac,mp3,ogg,mov,matroska,aac,aiff,au,caf,amr,asf,gsm,ac3,eac3,mpegts,flv,avi,"
    "g722,g726,g726le,g723_1",
    "protocol_whitelist": "none",
}

LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
"""FFmpeg's names of FLAC's channel layouts, by the number of channels."""


class NotDecodable(Exception):
    """The file isn't a recording, or its codec isn't known."""


def pyav() -> Any:
    """The module `av`; None if it is not installed."""
    try:
        import av
        import av.error
        import av.stream
    except ImportError:
        return None
    return av


def stated_seconds(file: BinaryIO) -> float | None:
    """Duration of a recording that its header states; None if it doesn't, or PyAV is missing."""
    av = pyav()
    if av is None:
        return None
    with contextlib.suppress(Exception), av.open(file, options=_OPTIONS, metadata_errors="ignore") as container:
        return None if container.duration is None else float(container.duration / av.time_base)
    return None


def decoded(file: BinaryIO) -> tuple[int, Iterator[Int16]]:
    """Open a recording with PyAV, which is installed. Skips damaged packets, as the services do.

    Returns:
        The number of channels, and blocks of shape (frames, channels) at `SAMPLE_RATE`.

    Raises:
        NotDecodable: also while the blocks are read, if there is not a single one.
        OSError: the file can't be read.
    """
    av = pyav()
    try:
        container = av.open(file, options=_OPTIONS, metadata_errors="ignore")
    except MemoryError:
        raise
    # Damaged files make PyAV raise IndexError, ValueError and any of FFmpeg's errors.
    except Exception as error:
        raise NotDecodable(_reason(error)) from None
    stream = _audio_stream(av, container)
    if stream is None:
        container.close()
        raise NotDecodable("it has no audio of a known codec")
    frames = _frames(av, container, stream)
    first = next(frames, None)
    if first is None:
        raise NotDecodable("nothing in it can be decoded")
    layout = first.layout if first.layout.nb_channels <= len(LAYOUTS) else av.AudioLayout("stereo")
    return layout.nb_channels, _as_os_errors(_resample_frames(av, first, frames, layout))


def resampled(blocks: Iterator[Int16], sample_rate: int, channels: int) -> Iterator[Int16]:
    """Resample blocks to `SAMPLE_RATE` with PyAV, which is installed."""
    av = pyav()
    resampler = None
    for block in blocks:
        packed = np.ascontiguousarray(block).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=LAYOUTS[channels - 1])
        frame.sample_rate = sample_rate
        resampler = resampler or av.AudioResampler("s16", frame.layout, SAMPLE_RATE)
        yield from _blocks(resampler.resample(frame))
    if resampler is not None:
        yield from _blocks(resampler.resample(None))


def _audio_stream(av: Any, container: Any) -> Any:
    """The default audio stream, or else the first, of a known codec; None if there is none."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    marked = [stream for stream in known if stream.disposition & av.stream.Disposition.default]
    return next(iter(marked or known), None)


def _frames(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames until the file ends or is broken."""
    with container:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            yield from (frame for frame in frames if frame.samples)


def _resample_frames(av: Any, first: Any, rest: Iterator[Any], layout: Any) -> Iterator[Int16]:
    """Convert frames to one layout and rate, although both may change midway."""
    kind = _kind(first)
    resampler = av.AudioResampler("s16", layout, SAMPLE_RATE)
    frame = first
    while frame is not None:
        if _kind(frame) != kind:
            yield from _blocks(resampler.resample(None))
            kind, resampler = _kind(frame), av.AudioResampler("s16", layout, SAMPLE_RATE)
        frame.pts = None  # Gaps in the times of a damaged recording are no reason to stop.
        yield from _blocks(resampler.resample(frame))
        frame = next(rest, None)
    yield from _blocks(resampler.resample(None))


def _kind(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _as_os_errors(blocks: Iterator[Int16]) -> Iterator[Int16]:
    """Pass on the blocks. Whatever a damaged file makes PyAV raise becomes an OSError, as of a file on a bad disk."""
    try:
        yield from blocks
    except (MemoryError, GeneratorExit):
        raise
    except Exception as error:
        raise OSError(f"decoding failed: {_reason(error)}") from None


def _blocks(frames: list[Any]) -> Iterator[Int16]:
    for frame in frames:
        if frame.samples:
            yield frame.to_ndarray().reshape(-1, frame.layout.nb_channels)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
