"""Recordings for tests: synthetic ones in any encoding, and the clips of `samples/`."""

from __future__ import annotations

import io
import struct
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from stt_server.audio import SAMPLE_RATE, AudioFormat, decode
from stt_server.testing.paths import SAMPLES

FloatArray = npt.NDArray[np.float32]

CONTAINER = AudioFormat()


def chirp(seconds: float = 1.0, rate: int = SAMPLE_RATE, *, low: float = 200.0, high: float = 1500.0) -> FloatArray:
    """Tone that rises from `low` to `high` Hz: correlates with itself at one offset only."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (low * t + (high - low) / (2 * seconds) * t**2)
    return (0.5 * np.sin(phase)).astype(np.float32)


def encode(
    samples: npt.NDArray[Any],
    rate: int,
    container: str,
    codec: str,
    *,
    layout: str = "mono",
    title: str | None = None,
    bit_rate: int | None = None,
    muxer: dict[str, str] | None = None,
) -> bytes:
    """Encode `samples`, of shape (n,) or (channels, n), as a file.

    Args:
        bit_rate: bits per second; None: the encoder's default.
        muxer: FFmpeg's options for `container`.
    """
    planar = np.atleast_2d(samples).astype(np.float32)
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=muxer or {}) as target:
        if title:
            target.metadata["title"] = title
        # FFmpeg's own Vorbis encoder calls itself experimental.
        stream = target.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        assert isinstance(stream, av.AudioStream)  # noqa: S101
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        # Packed: PyAV miscounts the planes of 8 channels.
        frame = av.AudioFrame.from_ndarray(planar.T.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(
            stream.format.name, layout, stream.rate, frame_size=stream.codec_context.frame_size or 1024
        )
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            target.mux(stream.encode(resampled))
        target.mux(stream.encode(None))
    return out.getvalue()


def wav(samples: npt.NDArray[Any], rate: int, *, codec: str = "pcm_s16le", layout: str = "mono") -> bytes:
    return encode(samples, rate, "wav", codec, layout=layout)


def wav_header(rate: int, channels: int, data_bytes: int, *, bits: int = 16, tag: int = 1) -> bytes:
    """The 44 bytes before the samples of a WAV file; `data_bytes` may be false."""
    frame_bytes = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes & 0xFFFFFFFF, frame_bytes, bits)
    return (
        b"RIFF" + struct.pack("<I", min(36 + data_bytes, 0xFFFFFFFF)) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
        + b"data" + struct.pack("<I", data_bytes)
    )  # fmt: skip


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """RIFF chunk; `size` is announced instead of the true one."""
    return kind + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def form(tag: int = 1, channels: int = 1, bits: int = 16, rate: int = SAMPLE_RATE, block: int | None = None) -> bytes:
    """Content of a `fmt ` chunk."""
    frame = channels * bits // 8 if block is None else block
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame & 0xFFFFFFFF, frame, bits)


def riff(*chunks: bytes) -> bytes:
    """WAV file made of chunks."""
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extensible(tag: int, bits: int, valid: int) -> bytes:
    """Content of a `fmt ` chunk of WAVE_FORMAT_EXTENSIBLE, mono."""
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return form(0xFFFE, 1, bits) + struct.pack("<HHI", 22, valid, 4) + guid


def likeness(recording: FloatArray, source: FloatArray, *, most_lag: int = 1600) -> tuple[float, int]:
    """Highest correlation of two recordings (-1 to 1), and the lag of `recording` there, in samples."""
    size = 1 << (len(recording) + len(source)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(recording, size) * np.conj(np.fft.rfft(source, size)), size)
    near = np.concatenate([correlation[-most_lag:], correlation[:most_lag]])
    best = int(np.argmax(near))
    norm = float(np.linalg.norm(recording)) * float(np.linalg.norm(source))
    return float(near[best]) / max(norm, 1e-9), best - most_lag


def clip(name: str) -> FloatArray:
    """A clip of `samples/`, such as `"en/counting"`, at 16 kHz."""
    return decode((SAMPLES / f"{name}.wav").read_bytes(), CONTAINER, max_seconds=60)


def silence(seconds: float) -> FloatArray:
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def joined(*parts: FloatArray) -> FloatArray:
    return np.concatenate(parts).astype(np.float32)
