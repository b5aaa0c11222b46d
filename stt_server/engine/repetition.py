"""Repeated speech: words, phrases and sentences that a speaker says again and again.

Whisper writes a repeated sentence once, or loops over short words. A single repetition by itself can do neither, so
the speech is cut at its pauses into stretches of about one repetition each, which are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stt_server.engine.chunk_parts import Span
from stt_server.engine.generation import Decoded
from stt_server.engine.text_checks import is_looped, is_sparse, repeated_words
from stt_server.engine.types import Chunk, speech_seconds
from stt_server.engine.windows import SAMPLE_RATE

LEAST_SECONDS_PER_WORD = 0.15
"""Fast speech has 6 to 7 words per second."""
REPETITION_SHARE = 0.75
"""Share of a repetition's length that the next one has at least."""
_PAD_S = 0.3
"""Most silence kept on each side of a stretch, in seconds."""


def may_miss_repetitions(text: str, chunk: Chunk) -> bool:
    """Whether a text may have fewer repetitions than its speech: it is sparse for it, or repeats itself already."""
    if len(chunk.speech) < 2 or not chunk.speech_certain or not text.strip():
        return False
    return is_looped(text) or is_sparse(text, speech_seconds(chunk))


def stretches_of_loop(text: str, chunk: Chunk) -> list[Span]:
    """The stretches of speech to decode one by one instead of `text`, which is a loop; empty if there are no pauses."""
    found = stretches(chunk, LEAST_SECONDS_PER_WORD * repeated_words(text))
    return found if len(found) > 1 else []


def stretches_after(end: float, chunk: Chunk) -> list[Span]:
    """The stretches of speech after a text that ends at `end` and is taken to be one repetition of what follows."""
    covered = sum(min(b, end) - a for a, b in chunk.speech if a < end)
    return stretches(chunk, REPETITION_SHARE * covered, end)


def ended(decoded: Decoded, end: float) -> Decoded:
    """A decoding whose segments end at `end`, the end of its last word, at the latest."""
    segments = [replace(segment, end=max(segment.start, min(segment.end, end))) for segment in decoded.segments]
    return replace(decoded, segments=segments)


def stretches(chunk: Chunk, least: float, after: float = 0.0) -> list[Span]:
    """Cut the speech of a chunk at its pauses into stretches with little silence around them.

    Args:
        least: seconds of speech in a stretch, except for the last one.
        after: seconds; speech that begins more than `_PAD_S` before is left out.
    """
    groups: list[list[Span]] = []
    for span in chunk.speech:
        if span[0] < after - _PAD_S:
            continue
        if groups and _seconds(groups[-1]) < least:
            groups[-1].append(span)
        else:
            groups.append([span])
    starts = [group[0][0] for group in groups]
    ends = [group[-1][1] for group in groups]
    before = [max((end for _, end in chunk.speech if end <= start), default=0.0) for start in starts]
    behind = [*starts[1:], len(chunk.samples) / SAMPLE_RATE]
    return [
        (max(start - _PAD_S, (start + previous) / 2), min(end + _PAD_S, max(end, (end + following) / 2)))
        for previous, start, end, following in zip(before, starts, ends, behind)
    ]


def _seconds(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)
