"""Build answers from hypotheses, and join the answers of two models. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from stt_server.audio import Chunk
from stt_server.cascade.segment_order import ModelSegment
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine import types as engine
from stt_server.engine.text_checks import is_looped
from stt_server.engine.types import Hypothesis, confidence_of, join_text, speech_seconds
from stt_server.request import Answer
from stt_server.routing import Reason, better_founded


def part_from(model: str, hypothesis: Hypothesis) -> Answer:
    """The answer of one chunk's hypothesis."""
    return Answer(
        model=model,
        segments=hypothesis.segments,
        text=hypothesis.text,
        language=hypothesis.language,
        language_probability=hypothesis.language_probability,
        confidence=confidence_of(hypothesis.token_logprobs),
        segment_models=(model,) * len(hypothesis.segments),
    )


def in_recording(part: Answer, channel: int, *, names_language: bool) -> Answer:
    """The answer of a chunk as a part of its recording's.

    Args:
        channel: to name in the segments: 1 for the first; 0 where the channels were mixed.
        names_language: name the chunk's language in its segments, since other chunks may be in another one.
    """
    if not channel and not names_language:
        return part
    language = part.language if names_language else ""
    segments = (replace(s, channel=channel, language=s.language or language) for s in part.segments)
    return replace(part, segments=tuple(segments))


def joined_parts(parts: Sequence[tuple[engine.Chunk, Answer]]) -> Answer:
    """The answer of a chunk from those of its parts in different languages; each segment names its language."""
    answers = [answer for _, answer in parts]
    segments = [replace(s, language=s.language or answer.language) for answer in answers for s in answer.segments]
    probabilities = [each.language_probability for each in answers if each.language_probability is not None]
    return Answer(
        model=heaviest((answer.model, speech_seconds(part)) for part, answer in parts),
        segments=tuple(segments),
        text=join_text(answer.text for answer in answers),
        language=heaviest((answer.language, speech_seconds(part)) for part, answer in parts),
        language_probability=min(probabilities, default=None),
        confidence=None,
        segment_models=tuple(model for answer in answers for model in answer.segment_models),
    )


def chosen_part(own: Answer, hypothesis: Hypothesis, fallback: Answer, settings: CascadeSettings) -> Answer:
    """Which of both models' answers to a chunk is returned."""
    reasons = [Reason.REPETITION] if hypothesis.looped else []
    return own if keeps_primary(own.confidence, fallback, reasons, settings) else fallback


def keeps_primary(
    confidence: float | None, fallback: Answer, reasons: Sequence[Reason], settings: CascadeSettings
) -> bool:
    """Whether the primary's text stands although the fallback has answered.

    A text that the primary is confident of, such as a single word, is not replaced by an empty one.

    Args:
        confidence: the primary's, 0 to 1; None for an empty text.
        reasons: why the fallback was called.
    """
    if Reason.REPETITION in reasons:
        return False
    if not fallback.text and confidence is not None and confidence >= settings.thresholds.conf_logprob:
        return True
    if settings.final_choice != "best":
        return False
    return better_founded(confidence, fallback.confidence, fallback_looped=is_looped(fallback.text)) == "primary"


def join(
    parts: Mapping[int, Answer],
    chunks: Sequence[Chunk],
    segments: Sequence[ModelSegment],
    model: str,
    language: str | None,
) -> Answer:
    """Join the answers of a recording's chunks into one, without probabilities.

    Args:
        parts: by the index of their chunk.
        segments: of all parts, in order.
        model: this service's own.
        language: the requested one, used where there are no parts.
    """
    answers = [parts[index] for index in sorted(parts)]
    if any(chunk.channel for chunk in chunks):
        text = join_text(segment.text for segment, _ in segments)
    else:
        text = join_text(part.text for part in answers)
    found = [(parts[index].language, chunks[index]) for index in sorted(parts)]
    seconds = [(parts[index].model, chunks[index].duration) for index in sorted(parts)]
    return Answer(
        model=heaviest([(model, 0.0), *seconds]),
        segments=tuple(segment for segment, _ in segments),
        text=text,
        language=heaviest([(name, speech_seconds(chunk)) for name, chunk in found]) or language or "",
        language_probability=None,
        confidence=None,
        segment_models=tuple(name for _, name in segments),
    )


def heaviest(values: Iterable[tuple[str, float]]) -> str:
    """The name of the largest total weight, the first of equal ones; empty if there is none."""
    totals: dict[str, float] = {}
    for name, weight in values:
        totals[name] = totals.get(name, 0.0) + weight
    return max(totals, key=lambda name: totals[name], default="")


def weighted_mean(values: Sequence[tuple[float, float]]) -> float | None:
    """Mean of (value, weight) pairs; None if empty."""
    total = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / total if total else None
