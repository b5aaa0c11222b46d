"""The fallback behind its circuit breaker: calls while it is closed, health checks that open and close it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from stt_server.cascade.breaker import MISSES_TO_OPEN, Breaker, CircuitState, Health, Outcome
from stt_server.request import Answer, FallbackError, Job

log = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 1.0
"""A health check without an answer for so long has none. An overloaded service answers them: load is not in them."""

CHECK_OPEN_S = 0.5
"""From one health check to the next while the circuit is open: how late a recovery is noticed."""

CHECK_BUSY_S = 1.0
"""A call may be outstanding for so long before the fallback is asked how it is; and from one check to the next."""

CHECK_AGAIN_S = 0.2
"""After a first sign that nobody is there: time for one reconnection."""

CHECK_IDLE_S = 5.0
"""From one health check to the next while nothing is asked of it: nobody has to find out by a call of their own."""

_UNAVAILABLE = frozenset({"unavailable", "not_ready", "cancelled"})
"""Nobody there, or nobody who would take work now. `cancelled`: by the fallback, which ended; the caller's own going
is no answer."""

_WRONG = frozenset({"internal", "unimplemented", "invalid_answer"})
"""Nothing that a fallback in its senses says. What is left of its errors is no reason to stop asking:

- `rate_limited`, `overloaded`, `out_of_memory`: it is alive, says so quickly, and the next call may be let in.
- `invalid_argument`, `payload_too_large`, ...: of that one request.
- `unauthenticated`: as quick as a refusal here would be, and it must stay in sight: behind `circuit_open` nobody would
  see that it is the key that must be mended, which no waiting does.
"""


class Remote(Protocol):
    """What is behind the breaker."""

    async def transcribe(self, job: Job, timeout_s: float) -> Answer: ...

    async def health(self, timeout_s: float) -> Health: ...

    async def reconnect(self) -> None: ...

    async def close(self) -> None: ...


class Circuit:
    """A fallback that is asked only while it is there. Made in the event loop; close it there."""

    def __init__(
        self,
        remote: Remote,
        fair_s: float,
        moved: Callable[[CircuitState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            fair_s: a call that was given fewer seconds and was late says nothing of the fallback.
            moved: told the state, now and each time that it changes.
        """
        self._remote = remote
        self._fair_s = fair_s
        self._told = moved
        self._clock = clock
        self._breaker = Breaker(clock, self._moved)
        self._calls: dict[object, float] = {}
        """Those that are outstanding, and when each began."""
        self._gone = self._loop_future()
        """Done as soon as nothing that is outstanding will be answered."""
        self._news = asyncio.Event()
        """When to check next may have changed."""
        self._checked = clock()
        """When the last health check began."""
        moved("closed")
        self._watching = asyncio.ensure_future(self._watch())

    @property
    def state(self) -> CircuitState:
        return self._breaker.state

    async def transcribe(self, job: Job, timeout_s: float) -> Answer:
        """As the fallback's own.

        Raises:
            FallbackError: as the fallback's own; `circuit_open` at once while it is away; `unavailable` as soon as it
                answers nothing any more.
        """
        admission = self._breaker.admit()
        if admission is None:
            raise FallbackError("circuit_open")
        outcome: Outcome = "nothing"
        code = ""
        try:
            answer = await self._call(job, timeout_s)
            outcome = "answered"
            return answer
        except FallbackError as error:
            code = error.code
            outcome = self._outcome_of(code, timeout_s)
            raise
        finally:
            self._breaker.ended(admission, outcome, code)
            self._news.set()

    async def _call(self, job: Job, timeout_s: float) -> Answer:
        call = asyncio.ensure_future(self._remote.transcribe(job, timeout_s))
        self._calls[call] = self._clock()
        self._news.set()
        try:
            either: set[asyncio.Future[Any]] = {call, self._gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if call.done() and not call.cancelled():
                return call.result()
            raise FallbackError("unavailable")
        finally:
            del self._calls[call]
            call.cancel()
            call.add_done_callback(_forget)

    def _outcome_of(self, code: str, timeout_s: float) -> Outcome:
        if code in _UNAVAILABLE:
            return "unavailable"
        late = code == "deadline_exceeded" and timeout_s >= self._fair_s
        return "wrong" if late or code in _WRONG else "nothing"

    async def _watch(self) -> None:
        """Asks the fallback how it is, for ever."""
        silences = 0
        while True:
            await self._due()
            self._checked = self._clock()
            health = await self._remote.health(CHECK_TIMEOUT_S)
            self._breaker.checked(health)
            silences = silences + 1 if health == "silent" else 0
            if silences == MISSES_TO_OPEN:
                silences = 0
                self._gone.set_result(None)
                self._gone = self._loop_future()
                await self._remote.reconnect()

    async def _due(self) -> None:
        """Returns when it is time for a health check."""
        while (wait := self._next_check() - self._clock()) > 0:
            # Not wait_for, which before Python 3.12 can take a cancellation for its event.
            alarm = asyncio.get_running_loop().call_later(wait, self._news.set)
            try:
                await self._news.wait()
            finally:
                alarm.cancel()
            self._news.clear()

    def _next_check(self) -> float:
        """On the clock."""
        if self._breaker.doubtful:
            return self._checked + CHECK_AGAIN_S
        if self._breaker.state != "closed":
            return self._checked + CHECK_OPEN_S
        if self._calls:
            return max(min(self._calls.values()), self._checked) + CHECK_BUSY_S
        return self._checked + CHECK_IDLE_S

    def _moved(self, state: CircuitState, why: str) -> None:
        level = logging.WARNING if state == "open" else logging.INFO
        log.log(level, "circuit to the fallback is %s: %s", state, why, extra={"circuit": state})
        self._told(state)

    @staticmethod
    def _loop_future() -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Lets go of the fallback; calls that are outstanding are not answered."""
        self._watching.cancel()
        await asyncio.wait({self._watching})
        await self._remote.close()


def _forget(call: asyncio.Future[Answer]) -> None:
    """Takes note of a failure that nobody waits for any more."""
    if not call.cancelled():
        call.exception()
