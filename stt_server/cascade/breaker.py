"""State machine of the circuit breaker: takes the results of calls and health checks. Pure, but for its callback.

Two conditions open the circuit, and each closes it differently:

- The fallback is away: health checks fail, or answer that it does not serve. The first check that succeeds closes it.
- Calls fail several times in a row while health checks succeed. Since the checks say nothing about the fault, the
  circuit turns half-open after a pause: one call is let through as a trial, and the others are refused until it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

CircuitState = Literal["closed", "half_open", "open"]

Health = Literal["serving", "away", "silent"]
"""Result of a health check: serving; unreachable or not serving; no answer within the timeout."""

Outcome = Literal["answered", "unavailable", "wrong", "nothing"]
"""What a call shows of the fallback: it works; it can't be reached; it is faulty; nothing either way."""

FAILURES_TO_OPEN = 5
"""Failed calls in a row."""

MISSES_TO_OPEN = 2
"""Failed health checks in a row; a call that could not reach the fallback counts as the first."""

COOL_DOWN_S = 2.0
"""Seconds from opening after failed calls to the trial call, at least."""


@dataclass(frozen=True, eq=False)
class Admission:
    """One call that was let through."""

    era: int
    """Number of the state in which the call began; a result from an earlier state is ignored."""


class Breaker:
    """The state of one fallback's circuit."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[CircuitState, str], None]) -> None:
        """
        Args:
            clock: monotonic seconds.
            on_change: called with each new state and the reason for it.
        """
        self.state: CircuitState = "closed"
        self._clock = clock
        self._on_change = on_change
        self._era = 0
        self._failures = 0
        self._misses = 0
        self._away = False
        """Whether failed health checks opened the circuit, rather than failed calls."""
        self._opened_at = 0.0
        self._trial: Admission | None = None

    @property
    def needs_check(self) -> bool:
        """Whether a health check is due at once."""
        return self.state == "closed" and self._misses > 0

    def admit(self) -> Admission | None:
        """Let a call through, or refuse it (None). The result must be passed to `record_call`."""
        if self.state == "open" or self._trial is not None:
            return None
        admission = Admission(self._era)
        if self.state == "half_open":
            self._trial = admission
        return admission

    def record_call(self, admission: Admission, outcome: Outcome, code: str = "") -> None:
        """Record the result of a call that was let through.

        Args:
            code: the call's error code, for `on_change`.
        """
        if admission.era != self._era:
            return
        if admission is self._trial:
            self._trial = None
            if outcome == "answered":
                self._change("closed", "a call was answered")
            elif outcome != "nothing":
                self._open(f"the trial call failed: {code}", away=False)
        elif outcome == "answered":
            self._failures = self._misses = 0
        elif outcome != "nothing":
            self._record_failure(outcome, code)

    def _record_failure(self, outcome: Outcome, code: str) -> None:
        self._failures += 1
        if outcome == "unavailable":
            self._misses = max(1, self._misses)
        if self._failures >= FAILURES_TO_OPEN:
            self._open(f"{self._failures} calls in a row failed, the last one with {code}", away=False)

    def record_check(self, health: Health) -> None:
        """Record the result of a health check."""
        if health != "serving":
            self._misses += 1
            if self._misses >= MISSES_TO_OPEN and not self._away:
                self._open(_REASONS[health], away=True)
            return
        self._misses = 0
        if self.state == "open" and self._away:
            self._change("closed", "a health check succeeded")
        elif self.state == "open" and self._clock() - self._opened_at >= COOL_DOWN_S:
            self._change("half_open", "the next call is a trial")

    def _open(self, reason: str, *, away: bool) -> None:
        self._away, self._opened_at = away, self._clock()
        self._change("open", reason)

    def _change(self, state: CircuitState, reason: str) -> None:
        self._away = self._away and state == "open"
        self._failures, self._trial = 0, None
        self._era += 1
        self.state = state
        self._on_change(state, reason)


_REASONS = {"away": "the fallback is unreachable or not serving", "silent": "health checks time out"}
