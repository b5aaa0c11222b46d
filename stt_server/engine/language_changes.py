"""Finds where the language changes within a chunk, on slices of the encoder's output.

A slice is the output for some seconds of speech, followed by the output for silence as in `windows.lengthened`. It
costs a small part of a detection on the whole chunk, and nothing is encoded for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from stt_server.engine import windows
from stt_server.engine.chunk_parts import ChunkPart, Span, part_of
from stt_server.engine.encoding import Encoded
from stt_server.engine.types import Chunk, Hypothesis, speech_seconds

CHANGE_PAUSE_S = 0.2
"""Least pause between speech in different languages, in seconds.

`buildscripts/bench languages` prints how many chunks of one language are cut: of 88 one, with 0.2 s as with 0.5 s.
"""
LEAST_SPEECH_S = 1.0
"""Shorter speech is too often detected as another language, in seconds."""
SURE_CHANGE, LIKELY_CHANGE = 0.8, 0.5
"""Probabilities of the two likeliest languages from which a chunk is cut between them. Each part's own language is then
detected again on the whole part, and decided by its text if that is doubtful.

`buildscripts/bench languages` prints how many pairs of sentences are cut with these and other values: of 40 in
different languages 35 (25 if both must be sure), of 88 in the same language one. docs/engine.md has the commands.
A long region in a third language always becomes a part of its own.
"""
SLICE_S, TAIL_S = 4.5, 1.5
"""Most seconds of speech in a slice, and of silence after it."""
SHORT_SLICE_S, SHORT_TAIL_S = 2.5, 1.0
"""The same for a slice that only shows whether a chunk is in the expected language: most are."""
_EDGE_S = 0.1
"""Kept around the speech in a slice, in seconds."""


def speech_regions(chunk: Chunk) -> list[Span]:
    """Speech of a chunk between pauses of `CHANGE_PAUSE_S`: (start, end) in seconds from the start of the chunk."""
    regions: list[Span] = []
    for start, end in chunk.speech:
        if regions and start - regions[-1][1] < CHANGE_PAUSE_S:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((start, end))
    return regions


def long_regions(chunk: Chunk) -> list[Span]:
    """The regions that are long enough for their language to be detected."""
    return [(start, end) for start, end in speech_regions(chunk) if end - start >= LEAST_SPEECH_S]


def can_slice(encoded: Encoded) -> bool:
    """Whether the output ends with enough silence for slices."""
    return len(encoded.output) / windows.POSITIONS_PER_SECOND - encoded.seconds >= TAIL_S


def slice_of(encoded: Encoded, region: Span, seconds: float = SLICE_S, tail_s: float = TAIL_S) -> Encoded:
    """The output for a region, at most `seconds` of it, followed by at least `tail_s` of silence."""
    rate = windows.POSITIONS_PER_SECOND
    first = round(max(0.0, region[0] - _EDGE_S) * rate)
    last = min(round((region[1] + _EDGE_S) * rate), first + round(seconds * rate))
    part = Encoded(encoded.output[first:last], 0.0)
    silence = encoded.output[-round(TAIL_S * rate) :]
    missing = round((seconds + tail_s) * rate) - len(part.output)
    tail = silence[np.arange(missing) % (len(silence) - 2)]
    return Encoded(np.concatenate([part.output, tail]), (last - first) / rate)


def parts_of(chunk: Chunk, regions: Sequence[Span], found: Sequence[tuple[str, float]]) -> list[ChunkPart]:
    """Cut a chunk where its language changes; empty if it doesn't, or not surely.

    Args:
        regions: of speech, in order.
        found: language and probability of each.
    """
    likely = {language for language, probability in found if probability >= LIKELY_CHANGE}
    if len(likely) < 2 or all(probability < SURE_CHANGE for _, probability in found):
        return []
    languages = _without_guesses(regions, found, likely)
    groups = [[region for region, _ in group] for _, group in groupby(zip(regions, languages), lambda item: item[1])]
    starts = [group[0][0] for group in groups]
    ends = [group[-1][1] for group in groups]
    edges = [(0.0, starts[0]), *zip(ends, starts[1:]), (ends[-1], len(chunk.samples) / windows.SAMPLE_RATE)]
    pauses = [_last_pause(chunk, edge) for edge in edges]
    cuts = [0.0, *((a + b) / 2 for a, b in pauses[1:-1]), edges[-1][1]]
    return [part_of(chunk, span) for span in pairwise(cuts)]


def _without_guesses(regions: Sequence[Span], found: Sequence[tuple[str, float]], likely: Collection[str]) -> list[str]:
    """The language of each region: of a short one that is a mere guess, that of the region before it, or behind it."""
    known = [
        code if code in likely or end - start >= SHORT_SLICE_S else ""
        for (start, end), (code, _) in zip(regions, found)
    ]
    for index, code in enumerate(known):
        known[index] = code or (known[index - 1] if index else next(filter(None, known)))
    return known


def _last_pause(chunk: Chunk, edge: Span) -> Span:
    """The last pause between two regions, which shorter speech may divide."""
    inside = [end for start, end in chunk.speech if edge[0] < end < edge[1]]
    return max(inside, default=edge[0]), edge[1]


def joined(parts: Sequence[tuple[Chunk, Hypothesis]]) -> Hypothesis:
    """The hypothesis of a chunk from those of its parts; each segment names its language."""
    hypotheses = [hypothesis for _, hypothesis in parts]
    seconds: dict[str, float] = {}
    for part, hypothesis in parts:
        seconds[hypothesis.language] = seconds.get(hypothesis.language, 0.0) + speech_seconds(part)
    several = len({hypothesis.language for hypothesis in hypotheses}) > 1
    probabilities = [h.language_probability for h in hypotheses if h.language_probability is not None]
    texts = [hypothesis for hypothesis in hypotheses if hypothesis.suppressed is None]
    return Hypothesis(
        segments=tuple(
            replace(segment, language=hypothesis.language if several else "")
            for hypothesis in hypotheses
            for segment in hypothesis.segments
        ),
        language=max(seconds, key=lambda code: seconds[code]),
        language_probability=min(probabilities, default=None),
        token_logprobs=tuple(logprob for hypothesis in hypotheses for logprob in hypothesis.token_logprobs),
        looped=any(hypothesis.looped for hypothesis in hypotheses),
        redecoded_seconds=sum(hypothesis.redecoded_seconds for hypothesis in hypotheses),
        suppressed=None if texts else hypotheses[0].suppressed,
        parts=tuple(parts) if several else (),
    )
