"""Build an answer from hypotheses, and merge the answers of two models. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.text_checks import is_looped
from stt_server.engine.types import Hypothesis, confidence_of, join_text
from stt_server.request import Answer, Recognition, Transcript
from stt_server.routing import Reason, better_founded


def answer_from(model: str, hypotheses: Sequence[Hypothesis], language: str | None) -> Answer:
    """Join the hypotheses of a recording's chunks into one answer.

    Args:
        hypotheses: in the order of the chunks.
        language: the requested language, used where there are no hypotheses.
    """
    segments = tuple(segment for hypothesis in hypotheses for segment in hypothesis.segments)
    return Answer(
        model=model,
        segments=segments,
        text=join_text(hypothesis.text for hypothesis in hypotheses),
        language=hypotheses[0].language if hypotheses else language or "",
        language_probability=next((h.language_probability for h in hypotheses if h.language_probability), None),
        confidence=confidence_of(p for hypothesis in hypotheses for p in hypothesis.token_logprobs),
        segment_models=(model,) * len(segments),
    )


def keeps_primary(
    confidence: float | None, fallback: Answer, reasons: Sequence[Reason], settings: CascadeSettings
) -> bool:
    """Whether the primary's text stands although the fallback has answered.

    Args:
        confidence: the primary's, 0 to 1; None for an empty text.
        reasons: why the fallback was called.
    """
    if settings.final_choice != "best" or Reason.REPETITION in reasons:
        return False
    return better_founded(confidence, fallback.confidence, fallback_looped=is_looped(fallback.text)) == "primary"


def merge(
    primary: Transcript, recognition: Recognition, fallback: Mapping[int, Answer], settings: CascadeSettings
) -> Transcript:
    """Replace the text of a long recording's weak chunks with the fallback's.

    Args:
        primary: the transcript of the primary's own answer.
        fallback: the fallback's answers by chunk index.
    """
    chunks, own_model = recognition.chunks, primary.answer.model
    parts = [
        _merge_chunk(own_model, hypothesis, fallback.get(index), settings)
        for index, hypothesis in enumerate(recognition.hypotheses)
    ]
    replaced_seconds = sum(chunks[i].duration for i, part in enumerate(parts) if part is fallback.get(i))
    mostly_fallback = 2 * replaced_seconds > sum(chunk.duration for chunk in chunks)
    answer = replace(
        primary.answer,
        model=next(iter(fallback.values())).model if mostly_fallback else own_model,
        segments=tuple(segment for part in parts for segment in part.segments),
        text=join_text(part.text for part in parts),
        segment_models=tuple(model for part in parts for model in part.segment_models),
    )
    confidences = [(a.confidence, chunks[i].duration) for i, a in fallback.items() if a.confidence is not None]
    return replace(
        primary, answer=answer, fallback_used=bool(fallback), fallback_confidence=_weighted_mean(confidences)
    )


def _merge_chunk(model: str, hypothesis: Hypothesis, fallback: Answer | None, settings: CascadeSettings) -> Answer:
    primary = answer_from(model, (hypothesis,), hypothesis.language)
    if fallback is None:
        return primary
    reasons = [Reason.REPETITION] if hypothesis.looped else []
    return primary if keeps_primary(primary.confidence, fallback, reasons, settings) else fallback


def _weighted_mean(values: Sequence[tuple[float, float]]) -> float | None:
    """Mean of (value, weight) pairs; None if empty."""
    total = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / total if total else None
