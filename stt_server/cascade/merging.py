"""From hypotheses to an answer, and from two models' answers to one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stt_server.engine.text_checks import is_looped
from stt_server.engine.types import Hypothesis, confidence_of, join_text
from stt_server.request import Answer, Heard, Rules, Transcript
from stt_server.routing import Reason, better_founded


def answer_of(model: str, hypotheses: Sequence[Hypothesis], language: str | None) -> Answer:
    """What a model made of a recording.

    Args:
        hypotheses: of its chunks, in order.
        language: that was asked for: of a recording without speech.
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


def keeps_own(own: float | None, other: Answer, reasons: Sequence[Reason], rules: Rules) -> bool:
    """Whether the primary's text stands although the fallback has answered.

    Args:
        own: the primary's confidence, 0 to 1; None of an empty text.
    """
    if rules.final_choice != "best" or Reason.REPETITION in reasons:
        return False
    return better_founded(own, other.confidence, fallback_looped=is_looped(other.text)) == "primary"


def combined(model: str, heard: Heard, transcript: Transcript, given: Mapping[int, Answer], rules: Rules) -> Transcript:
    """A long recording's transcript, with the fallback's text in the place of chunks.

    Args:
        model: the primary's.
        given: the fallback's answers, by the index of their chunk.
    """
    parts = [_part(model, hypothesis, given.get(index), rules) for index, hypothesis in enumerate(heard.hypotheses)]
    sure = [(a.confidence, heard.chunks[i].duration) for i, a in given.items() if a.confidence is not None]
    theirs = sum(heard.chunks[i].duration for i, part in enumerate(parts) if part is given.get(i))
    everything = sum(chunk.duration for chunk in heard.chunks)
    answer = replace(
        transcript.answer,
        model=next(iter(given.values())).model if 2 * theirs > everything else model,
        segments=tuple(segment for part in parts for segment in part.segments),
        text=join_text(part.text for part in parts),
        segment_models=tuple(model for part in parts for model in part.segment_models),
    )
    return replace(transcript, answer=answer, fallback_used=bool(given), fallback_confidence=_weighted(sure))


def _part(model: str, hypothesis: Hypothesis, given: Answer | None, rules: Rules) -> Answer:
    """Whose text a chunk gets."""
    own = answer_of(model, (hypothesis,), hypothesis.language)
    reasons = [Reason.REPETITION] if hypothesis.looped else []
    return own if given is None or keeps_own(own.confidence, given, reasons, rules) else given


def _weighted(values: Sequence[tuple[float, float]]) -> float | None:
    """The mean of values, each with its weight; None of none."""
    weight = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / weight if weight else None
