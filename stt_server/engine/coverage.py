"""Finds certain speech in the middle of a chunk that no word of its text covers.

Whisper sometimes leaves out a sentence between two others: a quiet one, or one in another language. Mostly there is a
gap between its segments then. Sometimes the segment before or behind extends over what was left out, and has too little
text for so much speech; the times of its words show the gap.

Measured with Whisper base on 120 chunks of correct texts in 19 languages: no gap between segments, one by words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from stt_server.engine.chunk_parts import Span, speech_within
from stt_server.engine.text_checks import usual_seconds, words_of
from stt_server.engine.types import Chunk, Hypothesis, Segment, Word

LEAST_UNCOVERED_S = 1.0
"""Seconds of speech that are worth decoding again."""
EDGE_S = 0.5
"""Speech that goes on this long beyond the time of a segment still belongs to it, in seconds."""
SLOW_S = 2.0
"""Seconds of speech that a segment may have beyond what its text usually takes: 5 % of correct chunks have more."""
LONGEST_WORD_S, KEPT_OF_WORD_S = 1.0, 0.5
"""A longer first word was stretched over what was left out in front of it; its end is right. Seconds."""


def uncovered(chunk: Chunk, covered: Sequence[Span]) -> dict[int, Span]:
    """Parts of a chunk with at least `LEAST_UNCOVERED_S` of speech between the spans that its segments cover.

    Each by the index of the segment behind it. What the last span doesn't reach is not included.

    Args:
        covered: by each segment, in order; in seconds from the start of the chunk, as the result.
    """
    gaps = {}
    for index, ((_, start), (end, _)) in enumerate(pairwise([(0.0, 0.0), *covered])):
        speech = speech_within(chunk, (start, end))
        # Remnants of the words before and behind: the times of segments are off by some tenths of a second.
        if speech and speech[0][0] == start and speech[0][1] - start < EDGE_S:
            start = speech.pop(0)[1]
        if speech and speech[-1][1] == end and end - speech[-1][0] < EDGE_S:
            end = speech.pop()[0]
        if sum(last - first for first, last in speech) >= LEAST_UNCOVERED_S:
            gaps[index] = start, end
    return gaps


def is_slow(text: str, chunk: Chunk, span: Span) -> bool:
    """Whether a text is so short for the speech within its span that some of it may have been left out."""
    speech = sum(end - start for start, end in speech_within(chunk, span))
    return speech - usual_seconds(text) > SLOW_S


def extent_of(span: Span, words: Sequence[Word]) -> Span:
    """The part of a segment's span that its words cover; all of it without words.

    Args:
        words: with times in seconds from the start of the chunk, as `span`.
    """
    if not words:
        return span
    start, end = span[0], max(span[0], min(span[1], words[-1].end))
    if words[0].end - start > LONGEST_WORD_S:
        start = min(end, words[0].end - KEPT_OF_WORD_S)
    return start, end


def is_apart(chunk: Chunk, gap: Span) -> bool:
    """Whether there are pauses at both ends of a gap, so that it can hold no remnant of what is beside it."""
    return not any(start <= edge <= end for edge in gap for start, end in speech_within(chunk, gap))


def adds_text(added: Hypothesis, found: Hypothesis, index: int, *, apart: bool) -> bool:
    """Whether the hypothesis of a gap holds anything, and not just words of the segments beside it.

    Args:
        index: of the segment behind the gap.
        apart: there are pauses at both ends of the gap: a sentence may have been said twice.
    """
    words = words_of(added.text)
    before = words_of("".join(segment.text for segment in found.segments[:index]))[-len(words) :]
    behind = words_of("".join(segment.text for segment in found.segments[index:]))[: len(words)]
    return bool(words) and not added.looped and (apart or words not in (before, behind))


def inserted(added: Hypothesis, found: Hypothesis, index: int) -> Hypothesis:
    """A hypothesis with that of a gap in front of the segment at `index`; no times overlap."""
    before, behind = list(found.segments[:index]), list(found.segments[index:])
    inside = list(added.segments)
    if before:
        before[-1] = _clipped(before[-1], (before[-1].start, max(before[-1].start, inside[0].start)))
    if behind:
        behind[0] = _clipped(behind[0], (min(behind[0].end, inside[-1].end), behind[0].end))
    if added.language != found.language:
        before, inside, behind = (
            [replace(segment, language=segment.language or code) for segment in segments]
            for segments, code in ((before, found.language), (inside, added.language), (behind, found.language))
        )
    return replace(
        found,
        segments=(*before, *inside, *behind),
        token_logprobs=(*found.token_logprobs, *added.token_logprobs),
    )


def _clipped(segment: Segment, span: Span) -> Segment:
    """A segment without what is outside of `span`, in seconds from the start of the recording."""

    def clip(time: float) -> float:
        return min(max(time, span[0]), span[1])

    words = tuple(replace(word, start=clip(word.start), end=clip(word.end)) for word in segment.words)
    return replace(segment, start=clip(segment.start), end=clip(segment.end), words=words)
