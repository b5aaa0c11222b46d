"""Judge what this service's own model has recognized: which doubts there are, and what they concern.

Confidence and repetition are judged chunk by chunk. Language and number of words concern a whole recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stt_server.audio import Chunk
from stt_server.engine.text_checks import words_of
from stt_server.engine.types import Hypothesis, confidence_of
from stt_server.request import Recognition
from stt_server.routing import Decision, Policy, Reason, Signals, Thresholds, decide

OPENING_CHUNKS = 4
"""Recognized chunks after which a recording is not escalated whole any more because all of them are weak: the rest may
take an hour."""

CHUNK_REASONS = (Reason.LOW_LOGPROB, Reason.REPETITION)
"""Reasons judged per chunk. Language and number of words are judged over the whole recording."""


def in_one_language(hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Hypotheses with those of chunks in several languages replaced by those of their parts."""
    return [part for each in hypotheses for part in ([own for _, own in each.parts] or [each])]


def signals_of(hypotheses: Sequence[Hypothesis]) -> Signals:
    """Routing signals of a recording's hypotheses, or of one chunk's. A suppressed text counts as silence."""
    hypotheses = [hypothesis for hypothesis in in_one_language(hypotheses) if hypothesis.suppressed is None]
    return Signals(
        speech=bool(hypotheses),
        words=sum(len(words_of(hypothesis.text)) for hypothesis in hypotheses),
        confidence=confidence_of(p for hypothesis in hypotheses for p in hypothesis.token_logprobs),
        language_probability=min((h.language_probability for h in hypotheses if h.language_probability), default=None),
        looped=any(hypothesis.looped for hypothesis in hypotheses),
        chunks=len(hypotheses),
    )


def judge(
    recognition: Recognition | None, thresholds: Thresholds, policy: Policy, *, fallback_configured: bool
) -> Decision:
    """Decide whether to escalate a recording.

    Confidence and repetition are judged per chunk, language and number of words over the whole recording.

    Args:
        recognition: None if the model was not run, as `policy` is `fallback`.
    """
    succeeded = recognition is not None and recognition.failure is None
    hypotheses = in_one_language(recognition.hypotheses if recognition is not None else ())
    signals = signals_of(hypotheses) if succeeded else None
    whole = decide(signals, thresholds, policy=policy, fallback_configured=fallback_configured)
    if len(hypotheses) < 2:
        return whole
    # A low mean over chunks none of which is low by itself names no chunk that is worth escalating.
    reasons = set(whole.reasons).difference(CHUNK_REASONS)
    for hypothesis in hypotheses:
        reasons.update(chunk_doubts(hypothesis, thresholds))
    ordered = tuple(reason for reason in Reason if reason in reasons)
    return Decision(bool(ordered) and policy == "auto" and fallback_configured, ordered)


def whole_doubts(hypotheses: Sequence[Hypothesis], thresholds: Thresholds) -> list[Reason]:
    """Doubts about a recording as a whole: its language, and its number of words."""
    reasons = decide(signals_of(hypotheses), thresholds).reasons
    return [reason for reason in reasons if reason not in CHUNK_REASONS]


def chunk_doubts(hypothesis: Hypothesis, thresholds: Thresholds) -> list[Reason]:
    """Doubts about one chunk of several, or about any of its parts in different languages."""
    found = [decide(signals_of([part]), thresholds).reasons for part in in_one_language([hypothesis])]
    return [reason for reason in CHUNK_REASONS if any(reason in reasons for reasons in found)]


class Judgement:
    """The hypotheses of a request's chunks as they become known, and the doubts about them."""

    def __init__(self, thresholds: Thresholds, *, fallback_configured: bool) -> None:
        self._thresholds = thresholds
        self._fallback_configured = fallback_configured
        self._channels: dict[int, list[int]] = {}
        """Indices of each channel's chunks."""
        self.hypotheses: dict[int, Hypothesis] = {}
        """By the index of their chunk."""

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Name the chunks that are going to be recognized."""
        for index, chunk in enumerate(chunks):
            self._channels.setdefault(chunk.channel, []).append(index)

    @property
    def channels(self) -> Iterable[int]:
        return self._channels

    def known(self, channel: int) -> list[int]:
        """Indices of a channel's recognized chunks."""
        return [index for index in self._channels[channel] if index in self.hypotheses]

    def doubts_left(self, channel: int) -> bool | None:
        """Whether there are doubts about a whole channel; None while some may still arise or be dispelled."""
        known = [self.hypotheses[index] for index in self.known(channel)]
        if len(known) == len(self._channels[channel]):
            doubts = self._judge(known, "auto").escalate and (
                len(in_one_language(known)) == 1 or bool(whole_doubts(known, self._thresholds)) or self._all_weak(known)
            )
            # Mixed channels are escalated as one upload, by `finish`; one of several channels chunk by chunk.
            return None if doubts and not channel else doubts
        if whole_doubts(known, self._thresholds):
            return None
        return False if len(known) >= OPENING_CHUNKS or not self._all_weak(known) else None

    def is_weak(self, hypothesis: Hypothesis) -> bool:
        """Whether a chunk, or a part of one, is to be escalated by itself."""
        return bool(chunk_doubts(hypothesis, self._thresholds))

    def _all_weak(self, hypotheses: Sequence[Hypothesis]) -> bool:
        """Whether all chunks are weak, maybe as their language is a wrong one; never where several were sure."""
        return all(self.is_weak(hypothesis) and not hypothesis.parts for hypothesis in hypotheses)

    def _judge(self, hypotheses: Sequence[Hypothesis], policy: Policy) -> Decision:
        recognition = Recognition((), tuple(hypotheses))
        return judge(recognition, self._thresholds, policy, fallback_configured=self._fallback_configured)

    def decision(self, policy: Policy, *, failed: bool) -> Decision:
        """The routing decision about the whole request, by the chunks that are recognized.

        Args:
            failed: the model failed on the other chunks.
        """
        reasons = {Reason.PRIMARY_ERROR} if failed else set()
        for channel in self._channels:
            known = [self.hypotheses[index] for index in self.known(channel)]
            reasons.update(self._judge(known, policy).reasons)
        ordered = tuple(reason for reason in Reason if reason in reasons)
        return Decision(bool(ordered) and policy == "auto" and self._fallback_configured, ordered)

    def confidence(self) -> float | None:
        """exp(mean token log-probability) of all chunks, 0 to 1; None for an empty text."""
        return confidence_of(p for _, each in sorted(self.hypotheses.items(), key=_index) for p in each.token_logprobs)

    def language_probability(self) -> float | None:
        """Of the first chunk where it was detected, 0 to 1; None if there is none."""
        found = (each.language_probability for _, each in sorted(self.hypotheses.items(), key=_index))
        return next(filter(None, found), None)


def _index(item: tuple[int, Hypothesis]) -> int:
    return item[0]
