"""The fallback behind its circuit breaker: calls while it is closed, health checks that open and close it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from stt_server.cascade.breaker import MISSES_TO_OPEN, Breaker, CircuitState, Health, Outcome
from stt_server.cascade.fallback import ClosableFallback, FallbackError
from stt_server.request import Answer, Request

log = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 1.0
"""Timeout of a health check. An overloaded service still answers in time: health doesn't depend on load."""

CHECK_OPEN_S = 0.5
"""Seconds between health checks while the circuit is open: the longest delay in noticing a recovery."""

CHECK_BUSY_S = 1.0
"""Seconds from the start of the oldest call in progress, or from the latest check, to the next health check."""

CHECK_AGAIN_S = 0.2
"""Seconds from a first failure to the next health check: time for one reconnection."""

CHECK_IDLE_S = 5.0
"""Seconds between health checks while no call is in progress, so that no caller has to discover an outage."""

_UNAVAILABLE = frozenset({"unavailable", "not_ready", "cancelled"})
"""The fallback can't be reached or takes no work. `cancelled` is the fallback's own, as it stops; a caller's
cancellation raises no FallbackError."""

_WRONG = frozenset({"internal", "unimplemented", "invalid_answer"})
"""Answers that no working fallback gives. Its other errors are no reason to stop calling it:

- `rate_limited`, `overloaded`, `out_of_memory`: it works and answers quickly, and may admit the next call.
- `invalid_argument`, `payload_too_large`, ...: the fault of the one request.
- `unauthenticated`: as quick as a refusal here, and it must stay visible: `circuit_open` would hide that the key is
  wrong, which no waiting repairs.
"""


class Remote(ClosableFallback, Protocol):
    """A fallback with health checks."""

    async def health(self, timeout_s: float) -> Health: ...

    async def reconnect(self) -> None: ...


class Circuit:
    """A fallback that is called only while it works. Create and close it in the event loop."""

    def __init__(
        self,
        remote: Remote,
        min_timeout_s: float,
        on_change: Callable[[CircuitState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            min_timeout_s: a call with a shorter timeout that runs into it is not counted as a failure.
            on_change: called with the state, now and at each change.
        """
        self._remote = remote
        self._min_timeout_s = min_timeout_s
        self._on_change = on_change
        self._clock = clock
        self._breaker = Breaker(clock, self._state_changed)
        self._calls: dict[object, float] = {}
        """Calls in progress, with their start times."""
        self._connection_lost = self._new_future()
        """Done once no call in progress will be answered."""
        self._wake = asyncio.Event()
        """Set when the time of the next health check may have changed."""
        self._checked_at = clock()
        """Start of the latest health check."""
        on_change("closed")
        self._watching = asyncio.ensure_future(self._watch())

    @property
    def state(self) -> CircuitState:
        return self._breaker.state

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        """Call the fallback, unless the circuit is open.

        Raises:
            FallbackError: the fallback's own; `circuit_open`, at once, while the circuit is open; `unavailable` as soon
                as health checks show that the connection is dead.
        """
        admission = self._breaker.admit()
        if admission is None:
            raise FallbackError("circuit_open")
        outcome: Outcome = "nothing"
        code = ""
        try:
            answer = await self._call(request, timeout_s)
            outcome = "answered"
            return answer
        except FallbackError as error:
            code = error.code
            outcome = self._outcome_of(code, timeout_s)
            raise
        finally:
            self._breaker.record_call(admission, outcome, code)
            self._wake.set()

    async def _call(self, request: Request, timeout_s: float) -> Answer:
        call = asyncio.ensure_future(self._remote.transcribe(request, timeout_s))
        self._calls[call] = self._clock()
        self._wake.set()
        try:
            either: set[asyncio.Future[Any]] = {call, self._connection_lost}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if call.done() and not call.cancelled():
                return call.result()
            raise FallbackError("unavailable")
        finally:
            del self._calls[call]
            call.cancel()
            call.add_done_callback(_retrieve_exception)

    def _outcome_of(self, code: str, timeout_s: float) -> Outcome:
        if code in _UNAVAILABLE:
            return "unavailable"
        late = code == "deadline_exceeded" and timeout_s >= self._min_timeout_s
        return "wrong" if late or code in _WRONG else "nothing"

    async def _watch(self) -> None:
        """Check the fallback's health until cancelled."""
        timeouts = 0
        while True:
            await self._until_check_is_due()
            self._checked_at = self._clock()
            health = await self._remote.health(CHECK_TIMEOUT_S)
            self._breaker.record_check(health)
            timeouts = timeouts + 1 if health == "silent" else 0
            if timeouts == MISSES_TO_OPEN:
                timeouts = 0
                self._connection_lost.set_result(None)
                self._connection_lost = self._new_future()
                await self._remote.reconnect()

    async def _until_check_is_due(self) -> None:
        while (wait := self._next_check() - self._clock()) > 0:
            # Not wait_for, which before Python 3.12 can swallow a cancellation that comes with the event.
            alarm = asyncio.get_running_loop().call_later(wait, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                alarm.cancel()
            self._wake.clear()

    def _next_check(self) -> float:
        """Time of the next health check, on the clock."""
        if self._breaker.needs_check:
            return self._checked_at + CHECK_AGAIN_S
        if self._breaker.state != "closed":
            return self._checked_at + CHECK_OPEN_S
        if self._calls:
            return max(min(self._calls.values()), self._checked_at) + CHECK_BUSY_S
        return self._checked_at + CHECK_IDLE_S

    def _state_changed(self, state: CircuitState, reason: str) -> None:
        level = logging.WARNING if state == "open" else logging.INFO
        log.log(level, "circuit to the fallback is %s: %s", state, reason, extra={"circuit": state})
        self._on_change(state)

    @staticmethod
    def _new_future() -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Close the fallback; calls in progress are not answered."""
        self._watching.cancel()
        await asyncio.wait({self._watching})
        await self._remote.close()


def _retrieve_exception(call: asyncio.Future[Answer]) -> None:
    """Keep asyncio from logging the failure of a call that is not awaited any more."""
    if not call.cancelled():
        call.exception()
