"""A decoder pool for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from stt_server.audio import decode
from stt_server.audio.mono import FloatArray
from stt_server.audio.sandbox.pool import DecoderPool
from stt_server.audio.sandbox.worker import DecodeLimits, ExitReason
from stt_server.testing.audio_samples import CONTAINER, chirp, encode

LIMITS = DecodeLimits(max_seconds=60, max_bytes=16 << 20)
GOOD = encode(chirp(2.0, 44_100), 44_100, "flac", "flac")


@asynccontextmanager
async def pool(
    workers: int = 1, limits: DecodeLimits = LIMITS, on_death: Callable[[ExitReason], None] = lambda reason: None
) -> AsyncIterator[DecoderPool]:
    decoders = DecoderPool(workers, limits, on_death)
    try:
        await decoders.start()
        yield decoders
    finally:
        await decoders.close()


def good(channels: list[FloatArray]) -> bool:
    """Whether the samples are those of `GOOD`."""
    return len(channels) == 1 and np.array_equal(channels[0], decode(GOOD, CONTAINER, max_seconds=60))
