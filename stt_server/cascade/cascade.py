"""Settle whose answer a request gets: the primary's, the fallback's, or a merge of both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from stt_server.cascade.escalation import Escalation, judge, weak_chunks
from stt_server.cascade.fallback import Fallback, FallbackError
from stt_server.cascade.merging import answer_from, keeps_primary, merge
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.types import ModelInfo
from stt_server.errors import FallbackFailed, InvalidArgument
from stt_server.request import Answer, Recognition, Request, Trace, Transcript
from stt_server.routing import Decision, Policy

Recognize = Callable[[], Awaitable[Recognition]]
"""Runs this service's own model on a request."""


class Cascade(Protocol):
    """Turns the recognition of this service's own model into the transcript that the caller gets."""

    def validate_policy(self, policy: Policy) -> None:
        """Raise InvalidArgument for a routing policy that this service can't follow."""
        ...

    def skips_own_model(self, policy: Policy) -> bool:
        """Whether the fallback is to answer without the own model being run first."""
        ...

    def record_inference(self, trace: Trace, seconds: float | None) -> None:
        """Enter the own model's inference time into a trace."""
        ...

    async def settle(self, request: Request, own: Recognition | None, recognize: Recognize) -> Transcript:
        """Decide which answer is returned, calling the fallback if needed.

        Args:
            own: the own model's recognition; None if `skips_own_model` held for the request's policy.
            recognize: runs the own model after all, where it was skipped and the fallback failed.

        Raises:
            EngineError: the own model failed, and no fallback made up for it.
            FallbackFailed: the fallback failed, and FALLBACK_ON_ERROR is `fail`.
            DeadlineExceeded: the caller's deadline passed.
            SttError: whatever `recognize` raises.
        """
        ...


class SingleModelCascade:
    """The cascade of a fallback service: its own model's answer always stands."""

    def __init__(self, model: ModelInfo) -> None:
        self._model = model

    def validate_policy(self, policy: Policy) -> None:
        """Accept every policy: they all lead to the same model."""

    def skips_own_model(self, policy: Policy) -> bool:
        return False

    def record_inference(self, trace: Trace, seconds: float | None) -> None:
        trace.fallback_infer = seconds

    async def settle(self, request: Request, own: Recognition | None, recognize: Recognize) -> Transcript:
        own = own or await recognize()
        if own.failure is not None:
            raise own.failure
        transcript = _transcript(self._model, request, own, Decision(escalate=False, reasons=()))
        return replace(transcript, fallback_confidence=transcript.answer.confidence)


class TwoModelCascade:
    """The cascade of a primary: escalates answers of low confidence to the fallback, if one is configured."""

    def __init__(self, model: ModelInfo, settings: CascadeSettings, fallback: Fallback | None) -> None:
        self._model = model
        self._settings = settings
        self._escalation = Escalation(fallback, settings) if fallback is not None else None

    def validate_policy(self, policy: Policy) -> None:
        if policy == "fallback" and self._escalation is None:
            raise InvalidArgument("routing: this service has no fallback; use auto or primary")

    def skips_own_model(self, policy: Policy) -> bool:
        return policy == "fallback"

    def record_inference(self, trace: Trace, seconds: float | None) -> None:
        trace.primary_infer = seconds

    async def settle(self, request: Request, own: Recognition | None, recognize: Recognize) -> Transcript:
        decision = judge(
            own, self._settings.thresholds, request.policy, fallback_configured=self._escalation is not None
        )
        request.trace.reasons = decision.reasons
        request.trace.fallback_result = "failed" if decision.escalate else "skipped"
        transcript = self._own_transcript(request, own, decision)
        if decision.escalate and self._escalation is not None:
            return await self._escalate(self._escalation, request, own, transcript, recognize)
        if own is not None and own.failure is not None:
            raise own.failure
        return transcript

    def _own_transcript(self, request: Request, own: Recognition | None, decision: Decision) -> Transcript:
        transcript = _transcript(self._model, request, own, decision)
        return replace(transcript, primary_confidence=transcript.answer.confidence)

    async def _escalate(
        self,
        escalation: Escalation,
        request: Request,
        own: Recognition | None,
        transcript: Transcript,
        recognize: Recognize,
    ) -> Transcript:
        """Escalate the weak chunks, or the whole request if there are none to single out."""
        weak = weak_chunks(own, transcript.decision, self._settings.thresholds)
        if own is not None and weak:
            answers = await escalation.chunks(request, weak, transcript.answer.language)
            return self._merge(request, own, transcript, answers)
        try:
            answer = await escalation.whole(request, unrecognized=own is None)
        except FallbackError as error:
            return await self._degrade(error, request, own, transcript.decision, recognize)
        request.trace.fallback_result = "used"
        transcript = replace(transcript, fallback_used=True, fallback_confidence=answer.confidence)
        if keeps_primary(transcript.primary_confidence, answer, transcript.decision.reasons, self._settings):
            return transcript
        return replace(transcript, answer=answer)

    def _merge(
        self,
        request: Request,
        own: Recognition,
        transcript: Transcript,
        answers: dict[int, Answer | FallbackError],
    ) -> Transcript:
        errors = [answer for answer in answers.values() if isinstance(answer, FallbackError)]
        if errors:
            self._fail_unless_degrading(errors[0], request.trace)
        else:
            request.trace.fallback_result = "used"
        answered = {index: answer for index, answer in answers.items() if isinstance(answer, Answer)}
        merged = merge(transcript, own, answered, self._settings)
        return replace(merged, fallback_error=errors[0].code) if errors else merged

    async def _degrade(
        self, error: FallbackError, request: Request, own: Recognition | None, decision: Decision, recognize: Recognize
    ) -> Transcript:
        """Return the primary's answer in place of the fallback's, running its model if it was skipped."""
        self._fail_unless_degrading(error, request.trace)
        own = own or await recognize()
        if own.failure is not None:
            raise own.failure
        return replace(self._own_transcript(request, own, decision), fallback_error=error.code)

    def _fail_unless_degrading(self, error: FallbackError, trace: Trace) -> None:
        trace.fallback_error = error.code
        if self._settings.fallback_on_error == "fail":
            raise FallbackFailed(f"the fallback was needed and failed: {error.code}") from error


def _transcript(model: ModelInfo, request: Request, own: Recognition | None, decision: Decision) -> Transcript:
    """The transcript of the own model's answer."""
    options = request.options
    return Transcript(
        answer=answer_from(model.name, own.hypotheses if own is not None else (), options.language),
        audio_seconds=request.trace.audio_seconds or 0.0,
        decision=decision,
        language_check_applicable=options.language is None and model.multilingual,
    )
