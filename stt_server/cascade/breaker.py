"""Whether the fallback is asked at all: a circuit breaker. Pure: what happened goes in, whether to ask comes out.

Two things open it, and each closes it in its own way:

- It is away: health checks get no answer, or the answer "not now". The first check that says it serves closes it.
- It answers, but wrongly, several times in a row, while its health checks are fine. They say nothing of whether it is
  mended, so after a pause one call tries it; the others are refused until that one has its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

CircuitState = Literal["closed", "half_open", "open"]

Health = Literal["serving", "away", "silent"]
"""What a health check came to: it serves; it can't be reached or says "not now"; nothing came back in time."""

Outcome = Literal["answered", "unavailable", "wrong", "nothing"]
"""What a call says of the fallback: it works; it was not there; its answer was none; nothing either way."""

FAILURES_TO_OPEN = 5
"""Calls in a row without an answer."""

MISSES_TO_OPEN = 2
"""Health checks in a row that say it doesn't serve; a call that found nobody there counts as the first."""

COOL_DOWN_S = 2.0
"""Between wrong answers and the call that tries again, at least."""


@dataclass(frozen=True, eq=False)
class Admission:
    """One call that was let through."""

    era: int
    """What a call says is of the state in which it began; after a change of state it is old news."""


class Breaker:
    """The state of one fallback's circuit."""

    def __init__(self, clock: Callable[[], float], moved: Callable[[CircuitState, str], None]) -> None:
        """
        Args:
            clock: monotonic seconds.
            moved: told each new state, and why.
        """
        self.state: CircuitState = "closed"
        self._clock = clock
        self._moved = moved
        self._era = 0
        self._failures = 0
        self._misses = 0
        self._away = False
        """Why it is open: else for wrong answers."""
        self._opened = 0.0
        self._trial: Admission | None = None

    @property
    def doubtful(self) -> bool:
        """Whether a health check is wanted at once."""
        return self.state == "closed" and self._misses > 0

    def admit(self) -> Admission | None:
        """Lets a call through, or doesn't (None). Each that is let through must be told to `ended`."""
        if self.state == "open" or self._trial is not None:
            return None
        admission = Admission(self._era)
        if self.state == "half_open":
            self._trial = admission
        return admission

    def ended(self, admission: Admission, outcome: Outcome, code: str = "") -> None:
        """What came of a call that was let through.

        Args:
            code: of its failure, for `moved`.
        """
        if admission.era != self._era:
            return
        if admission is self._trial:
            self._trial = None
            if outcome == "answered":
                self._move("closed", "a call was answered")
            elif outcome != "nothing":
                self._open(f"it still fails: {code}", away=False)
        elif outcome == "answered":
            self._failures = self._misses = 0
        elif outcome != "nothing":
            self._failed(outcome, code)

    def _failed(self, outcome: Outcome, code: str) -> None:
        self._failures += 1
        if outcome == "unavailable":
            self._misses = max(1, self._misses)
        if self._failures >= FAILURES_TO_OPEN:
            self._open(f"{self._failures} calls in a row failed, the last one with {code}", away=False)

    def checked(self, health: Health) -> None:
        """What a health check came to."""
        if health != "serving":
            self._misses += 1
            if self._misses >= MISSES_TO_OPEN and not self._away:
                self._open(_MISSED[health], away=True)
            return
        self._misses = 0
        if self.state == "open" and self._away:
            self._move("closed", "it says that it serves")
        elif self.state == "open" and self._clock() - self._opened >= COOL_DOWN_S:
            self._move("half_open", "time to try it again")

    def _open(self, why: str, *, away: bool) -> None:
        self._away, self._opened = away, self._clock()
        self._move("open", why)

    def _move(self, state: CircuitState, why: str) -> None:
        self._away = self._away and state == "open"
        self._failures, self._trial = 0, None
        self._era += 1
        self.state = state
        self._moved(state, why)


_MISSED = {"away": "it can't be reached, or says that it does not serve", "silent": "it answers no health check"}
