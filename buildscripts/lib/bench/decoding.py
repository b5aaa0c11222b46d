"""Cost of decoding a file in a sandboxed child process, relative to decoding it in this process.

`python -m buildscripts.lib.bench.decoding`: 10 s of audio in each of the usual formats; minimum of many runs, in this
process and in a child alternately.
"""

from __future__ import annotations

import asyncio
import io
import time

import av
import numpy as np

from stt_server.audio import AudioFormat, decode
from stt_server.audio.sandbox.pool import DecoderPool
from stt_server.audio.sandbox.worker import DecodeLimits

SECONDS = 10
TIMES = 41
FORMATS = (
    ("WAV", "wav", "pcm_s16le", 16_000),
    ("MP3", "mp3", "libmp3lame", 44_100),
    ("FLAC", "flac", "flac", 44_100),
    ("Ogg/Opus", "ogg", "libopus", 48_000),
    ("M4A/AAC", "ipod", "aac", 44_100),
)


def encoded(container: str, codec: str, rate: int) -> bytes:
    """Encode `SECONDS` of tones and noise."""
    clock = np.arange(SECONDS * rate) / rate
    noise = np.random.default_rng(0).normal(0, 0.05, len(clock))
    samples = (0.3 * np.sin(2 * np.pi * 300 * clock * (1 + 0.1 * np.sin(clock))) + noise).astype(np.float32)
    out = io.BytesIO()
    with av.open(out, "w", format=container) as target:
        stream = target.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)  # noqa: S101  for the type checker
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.format.name, "mono", rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            target.mux(stream.encode(part))
        target.mux(stream.encode(None))
    return out.getvalue()


async def main() -> None:
    began = time.perf_counter()
    children = DecoderPool(1, DecodeLimits(max_seconds=3600, max_bytes=16 << 20), lambda death: None)
    await children.start()
    print(f"child process ready after {time.perf_counter() - began:.2f} s")
    try:
        for name, container, codec, rate in FORMATS:
            data = encoded(container, codec, rate)
            here, there = [], []
            for _ in range(TIMES):
                began = time.perf_counter()
                decode(data, AudioFormat(), max_seconds=60)
                between = time.perf_counter()
                await children.decode(data)
                here.append((between - began) * 1000)
                there.append((time.perf_counter() - between) * 1000)
            own, childs = min(here), min(there)
            print(
                f"{name}: {own:.1f} ms in process, {childs:.1f} ms in a child: "
                f"{childs - own:+.1f} ms, x {childs / own:.2f}"
            )
    finally:
        await children.close()


if __name__ == "__main__":
    asyncio.run(main())
