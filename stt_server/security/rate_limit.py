"""How much one caller may ask: a token bucket for each key or client address."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from stt_server.errors import RateLimited

_TOLERANCE_S = 1e-6
"""A caller who waits exactly as long as he was told passes, whatever floating point makes of it."""
_LOOKED_AT = 8
"""How many of the oldest buckets are looked at to make room for a new one."""


class RateLimiter:
    """Token buckets that hold `burst` requests and fill at `rps` requests a second.

    Each bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371:
    equal to a token bucket, and without a timer). A bucket that is full says nothing, so it is forgotten.

    At most `max_buckets` are kept. For one more, of the buckets used least recently the one that is fullest makes room.
    A caller gains by that only if he can have his own bucket dropped before it fills, which takes `max_buckets`
    addresses that all call; with as many he has as many buckets anyway. Refused calls count as use, so hammering keeps
    a bucket in place. Refusing newcomers instead would let the owner of many addresses lock everyone else out.

    For one thread (the event loop's).
    """

    def __init__(
        self,
        rps: float,
        burst: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_buckets: int = 10_000,
    ) -> None:
        """
        Args:
            rps: requests a second in the long run; 0: no limit.
            burst: requests that may come at once; 0: no limit.
            clock: seconds, never going back.
            max_buckets: how many are remembered, at least 1.
        """
        if rps < 0 or burst < 0 or max_buckets < 1:
            raise ValueError("rps and burst are 0 or more, max_buckets 1 or more")
        self._rps = rps
        self._burst = burst
        self._clock = clock
        self._max_buckets = max_buckets
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """Bucket to the time at which it is full; the least recently used first."""

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._full_at)

    def change(self, rps: float, burst: int) -> None:
        """Another rate and size for all buckets. What a caller has taken and not got back yet stays taken."""
        now = self._clock()
        if not (rps and burst and self._rps and self._burst):
            self._full_at.clear()
        for bucket, full_at in self._full_at.items():
            taken = max(0.0, full_at - now) * self._rps
            self._full_at[bucket] = now + min(taken, burst) / rps
        self._rps, self._burst = rps, burst

    def take(self, bucket: str) -> None:
        """Takes one token out of `bucket`. A refused call takes none.

        Raises:
            RateLimited: it is empty; `retry_after_s` is when it holds a token again, if nobody else takes that one.
        """
        if not self._rps or not self._burst:
            return
        now = self._clock()
        full_at = self._remembered(bucket, now)
        self._refuse_if_empty(full_at, now)
        self._full_at[bucket] = full_at + 1 / self._rps

    def check(self, bucket: str) -> None:
        """Raises RateLimited, as `take` would; takes no token and remembers nothing."""
        if not self._rps or not self._burst:
            return
        now = self._clock()
        self._refuse_if_empty(max(now, self._full_at.get(bucket, now)), now)

    def _refuse_if_empty(self, full_at: float, now: float) -> None:
        wait = full_at - (self._burst - 1) / self._rps - now
        if wait > _TOLERANCE_S:
            raise RateLimited(f"over {self._rps:g} requests a second: try again in {wait:.2f} s", retry_after_s=wait)

    def _remembered(self, bucket: str, now: float) -> float:
        """When `bucket` is full, now at the earliest; it is the most recently used afterwards."""
        if bucket in self._full_at:
            self._full_at.move_to_end(bucket)
            return max(now, self._full_at[bucket])
        self._make_room(now)
        return now

    def _make_room(self, now: float) -> None:
        """Forgets full buckets among the oldest: more than the one that is coming, so that memory shrinks again."""
        oldest = list(islice(self._full_at, _LOOKED_AT))
        for name in oldest:
            if self._full_at[name] <= now:
                del self._full_at[name]
        if len(self._full_at) >= self._max_buckets:
            del self._full_at[min(oldest, key=lambda name: self._full_at[name])]
