"""Tracks whether the model still works, by the outcomes of its inferences."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stt_server.engine.health.failures import FailureKind, kind_of
from stt_server.errors import DeviceFailed, EngineError, EngineLost

log = logging.getLogger(__name__)

FAILURES_BEFORE_PROBE = 5
"""Consecutive failures after which the model is probed with silence: recordings can be at fault, silence can't."""


class ModelHealth:
    """Counts consecutive failures and decides when to probe the model and when it is lost."""

    def __init__(
        self,
        on_failure: Callable[[FailureKind], None] = lambda kind: None,
        on_lost: Callable[[EngineLost], None] = lambda error: None,
    ) -> None:
        """
        Args:
            on_failure: called for each failure.
            on_lost: called once, when the model is lost.
        """
        self.error: EngineLost | None = None
        """Why the model is lost; None while it works."""
        self._on_failure = on_failure
        self._on_lost = on_lost
        self._consecutive = 0

    def record_success(self) -> None:
        self._consecutive = 0

    def record_failure(self, failure: EngineError) -> bool:
        """Log and count a failure; True if the model should now be probed with silence."""
        kind = kind_of(failure)
        cause = failure.__cause__
        log.warning(
            "an inference failed: %s",
            kind,
            exc_info=cause if kind == "unexpected" else None,
            extra={"cause": str(cause or failure)},
        )
        self._on_failure(kind)
        if isinstance(failure, EngineLost):
            self.mark_lost(failure)
            return False
        self._consecutive += 1
        if self.error is None and (self._consecutive >= FAILURES_BEFORE_PROBE or isinstance(failure, DeviceFailed)):
            self._consecutive = 0
            return True
        return False

    def mark_lost(self, error: EngineLost) -> None:
        """Record that the model doesn't work any more."""
        if self.error is None:
            self.error = error
            self._on_lost(error)
