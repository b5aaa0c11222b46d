"""Merges the transcripts of a recording's parts."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stt_client.results import Routing, Segment, Timings, Transcript, Word


@dataclass(frozen=True)
class PartTranscript:
    """Transcript of one part of a recording."""

    start: float
    """Of the part, in seconds from the start of the recording."""
    seconds: float
    """Duration of the part."""
    transcript: Transcript

    def segments(self) -> tuple[Segment, ...]:
        """The segments with times of the recording, each with its language if that was detected."""
        transcript, end = self.transcript, self.start + self.seconds
        detected = transcript.routing.language_check_applicable

        def at(seconds: float) -> float:
            return round(min(self.start + seconds, end), 6)

        return tuple(
            replace(
                segment,
                start=at(segment.start),
                end=at(segment.end),
                words=tuple(Word(at(w.start), at(w.end), w.text, w.probability) for w in segment.words),
                language=segment.language or (transcript.language if detected else ""),
            )
            for segment in transcript.segments
        )


def merge(parts: Sequence[PartTranscript], *, request_id: str, total_s: float) -> Transcript:
    """Merge the transcripts of all parts, which are at least one, in order.

    The language is that of most of the speech. The queue and inference times are sums over the parts, which may have
    run at the same time.

    Args:
        total_s: seconds that the whole took.
    """
    segments = tuple(segment for part in parts for segment in part.segments())
    language = _most_spoken(parts, segments)
    return Transcript(
        request_id=request_id,
        text=join_text(part.transcript.text for part in parts),
        language=language,
        language_probability=_mean(
            (part.transcript.language_probability, part.seconds)
            for part in parts
            if part.transcript.language == language and _is_spoken(part, parts)
        ),
        audio_duration=round(sum(part.seconds for part in parts), 6),
        segments=segments,
        routing=_routing(parts),
        timings=_timings(parts, total_s),
        metadata=parts[-1].transcript.metadata,
    )


def _is_spoken(part: PartTranscript, parts: Sequence[PartTranscript]) -> bool:
    """Whether the part has text; if no part has, each counts."""
    return bool(part.transcript.text) or not any(other.transcript.text for other in parts)


def _most_spoken(parts: Sequence[PartTranscript], segments: Iterable[Segment]) -> str:
    seconds: dict[str, float] = {}
    for segment in segments:
        if segment.language:
            seconds[segment.language] = seconds.get(segment.language, 0.0) + max(segment.end - segment.start, 0.01)
    return max(seconds, key=lambda name: seconds[name], default=parts[0].transcript.language)


def join_text(parts: Iterable[str]) -> str:
    """Join texts with spaces, except between characters of scripts written without spaces."""
    joined = ""
    for part in filter(None, (part.strip() for part in parts)):
        spaced = joined and not (_stands_alone(joined[-1]) or _stands_alone(part[0]))
        joined += f" {part}" if spaced else part
    return joined


def _stands_alone(character: str) -> bool:
    """Whether a character takes no space beside it: Chinese, Japanese, their punctuation, Thai, Lao, Myanmar, Khmer."""
    return (unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3") or (
        "\u0e00" <= character <= "\u0eff" or "\u1000" <= character <= "\u109f" or "\u1780" <= character <= "\u17ff"
    )


def _routing(parts: Sequence[PartTranscript]) -> Routing:
    routings = [part.transcript.routing for part in parts]
    models: Counter[str] = Counter()
    for part in parts:
        models[part.transcript.routing.final_model] += len(part.transcript.text)
    return Routing(
        fallback_used=any(routing.fallback_used for routing in routings),
        final_model=max(models, key=lambda name: models[name]),
        confidence_below=any(routing.confidence_below for routing in routings),
        language_check_applicable=any(routing.language_check_applicable for routing in routings),
        reasons=tuple(dict.fromkeys(reason for routing in routings for reason in routing.reasons)),
        primary_confidence=_confidence((part.transcript.routing.primary_confidence, part) for part in parts),
        fallback_confidence=_confidence((part.transcript.routing.fallback_confidence, part) for part in parts),
        fallback_error=next((routing.fallback_error for routing in routings if routing.fallback_error), ""),
    )


def _confidence(values: Iterable[tuple[float | None, PartTranscript]]) -> float | None:
    """Geometric mean, weighted by the length of the text, which stands for the number of its tokens."""
    logs = ((value and math.log(value), len(part.transcript.text)) for value, part in values if value)
    mean = _mean(logs)
    return None if mean is None else math.exp(mean)


def _mean(values: Iterable[tuple[float | None, float]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None and weight]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _timings(parts: Sequence[PartTranscript], total_s: float) -> Timings:
    each = [part.transcript.timings for part in parts]
    return Timings(
        queue_wait=sum(timings.queue_wait for timings in each),
        primary_infer=sum(timings.primary_infer for timings in each),
        fallback_infer=sum(timings.fallback_infer for timings in each),
        total=total_s,
    )
