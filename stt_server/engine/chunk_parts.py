"""Parts of a chunk that are recognized by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from stt_server.engine.types import Chunk, Samples
from stt_server.engine.windows import SAMPLE_RATE

PAD_S = 0.4
"""Kept around the speech of a part, as `stt_server.audio.split` does, in seconds."""

Span = tuple[float, float]
"""Start and end in seconds from the start of the chunk."""


@dataclass(frozen=True, eq=False)
class ChunkPart:
    """A part of a chunk; implements `Chunk`."""

    samples: Samples
    start: float
    speech: tuple[Span, ...]
    speech_certain: bool


def speech_within(chunk: Chunk, span: Span) -> list[Span]:
    """The detected speech of a chunk within `span`."""
    return [(max(a, span[0]), min(b, span[1])) for a, b in chunk.speech if b > span[0] and a < span[1]]


def part_of(chunk: Chunk, span: Span) -> ChunkPart:
    """The speech of a chunk within `span`, of which there must be some, with little silence around it."""
    speech = speech_within(chunk, span)
    first = round(max(span[0], speech[0][0] - PAD_S) * SAMPLE_RATE)
    last = round(min(span[1], speech[-1][1] + PAD_S) * SAMPLE_RATE)
    start = first / SAMPLE_RATE
    return ChunkPart(
        chunk.samples[first:last],
        chunk.start + start,
        tuple((a - start, b - start) for a, b in speech),
        chunk.speech_certain,
    )
