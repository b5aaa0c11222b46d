"""Whether a model still works, by what its inferences come to."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stt_server.engine.health.failures import FailureKind, kind_of
from stt_server.errors import DeviceFailed, EngineError, EngineLost

log = logging.getLogger(__name__)

FAILURES_BEFORE_PROBE = 5
"""Failures in a row that make an inference of silence worth its time: recordings differ, and silence harms no model."""


class ModelHealth:
    """Counts failures, and says when the model must prove that it works, and when it is lost."""

    def __init__(
        self,
        failed: Callable[[FailureKind], None] = lambda kind: None,
        lost: Callable[[EngineLost], None] = lambda error: None,
    ) -> None:
        """
        Args:
            failed: told of each failure.
            lost: told once that nothing works any more.
        """
        self.error: EngineLost | None = None
        """Why nothing works any more."""
        self._failed = failed
        self._lost = lost
        self._in_a_row = 0

    def answered(self) -> None:
        """An inference went well."""
        self._in_a_row = 0

    def failed(self, failure: EngineError) -> bool:
        """Takes note of a failure; whether the model must prove itself with an inference of silence."""
        kind = kind_of(failure)
        cause = failure.__cause__
        log.warning(
            "an inference failed: %s",
            kind,
            exc_info=cause if kind == "unexpected" else None,
            extra={"cause": str(cause or failure)},
        )
        self._failed(kind)
        if isinstance(failure, EngineLost):
            self.give_up(failure)
            return False
        self._in_a_row += 1
        if self.error is None and (self._in_a_row >= FAILURES_BEFORE_PROBE or isinstance(failure, DeviceFailed)):
            self._in_a_row = 0
            return True
        return False

    def give_up(self, error: EngineLost) -> None:
        """Nothing works any more."""
        if self.error is None:
            self.error = error
            self._lost(error)
