"""The two cascades: whose answer a request gets, the primary's, the fallback's, or a merge of both."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from stt_server.cascade.escalation import Escalation
from stt_server.cascade.fallback import Fallback
from stt_server.cascade.settings import CascadeSettings
from stt_server.cascade.settlement import Recognize, Settlement
from stt_server.engine.types import ModelInfo
from stt_server.errors import InvalidArgument
from stt_server.request import Recognition, Request, Trace, Transcript
from stt_server.routing import Decision, Policy


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

    def begin(self, request: Request) -> Settlement:
        """Begin to settle a request: give it the chunks as they are recognized, finish it and close it."""
        ...


async def settle(cascade: Cascade, request: Request, own: Recognition | None, recognize: Recognize) -> Transcript:
    """Decide which answer is returned to a request that is recognized already, calling the fallback if needed.

    Args:
        own: the own model's recognition; None if `skips_own_model` held for the request's policy.
        recognize: runs the own model after all, where it was skipped and the fallback failed.

    Raises:
        SttError: as `Settlement.finish`.
    """
    settlement = cascade.begin(request)
    try:
        return await settlement.finish(own, recognize)
    finally:
        settlement.close()


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

    def begin(self, request: Request) -> Settlement:
        return _FinalSettlement(self._model, request, CascadeSettings(), None)


class _FinalSettlement(Settlement):
    """Settles every chunk with its own hypothesis, and judges nothing."""

    async def finish(self, own: Recognition | None, recognize: Recognize) -> Transcript:
        transcript = await super().finish(own or await recognize(), recognize)
        return replace(transcript, fallback_confidence=transcript.primary_confidence, primary_confidence=None)

    def _decide(self, own: Recognition | None) -> Decision:
        return Decision(escalate=False, reasons=())

    def _record(self, decision: Decision) -> None:
        """A fallback service makes no routing decisions."""


class TwoModelCascade:
    """The cascade of a primary: escalates answers of low confidence to the fallback, if one is configured."""

    def __init__(self, model: ModelInfo, settings: CascadeSettings, fallback: Fallback | None) -> None:
        self._model = model
        self._settings = settings
        self._escalation = Escalation(fallback, settings) if fallback is not None else None

    def validate_policy(self, policy: Policy) -> None:
        if policy == "fallback" and self._escalation is None:
            message = "routing: this service has no fallback; use auto or primary"
            raise InvalidArgument(message, field="options.routing")

    def skips_own_model(self, policy: Policy) -> bool:
        return policy == "fallback"

    def record_inference(self, trace: Trace, seconds: float | None) -> None:
        trace.primary_infer = seconds

    def begin(self, request: Request) -> Settlement:
        return Settlement(self._model, request, self._settings, self._escalation)
