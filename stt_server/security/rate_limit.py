"""Rate limit: a token bucket per API key or client address."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from stt_server.errors import RateLimited

_TOLERANCE_S = 1e-6
"""Seconds by which a call may be early: a caller that waits exactly `retry_after_s` passes despite rounding."""

_EVICTION_SAMPLE = 8
"""Number of least recently used buckets examined when a bucket is added."""


class RateLimiter:
    """Token buckets that hold `burst` requests and refill at `rps` requests per second.

    Stores one number per bucket, the time at which it is full again: the generic cell rate algorithm (ITU-T I.371),
    equivalent to a token bucket, without timers. Full buckets carry no information and are dropped.

    At most `max_buckets` are kept; adding another evicts the fullest of the least recently used ones. To gain from
    this, a caller must get its own bucket evicted before it refills, which takes calls from `max_buckets` addresses,
    and as many buckets are its own anyway. Refused calls count as use, so that a caller that keeps calling stays in
    place. Refusing new callers instead would let the owner of many addresses lock everyone else out.

    Not thread-safe: for the event loop's thread only.
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
            rps: sustained requests per second; 0: no limit.
            burst: requests that may arrive at once; 0: no limit.
            clock: monotonic seconds.
            max_buckets: at least 1.

        Raises:
            ValueError: a value is out of range.
        """
        if rps < 0 or burst < 0 or max_buckets < 1:
            raise ValueError("rps and burst must be 0 or more, max_buckets 1 or more")
        self._rps = rps
        self._burst = burst
        self._clock = clock
        self._max_buckets = max_buckets
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """Time at which each bucket is full, least recently used first."""

    def __len__(self) -> int:
        """Number of stored buckets."""
        return len(self._full_at)

    def change(self, rps: float, burst: int) -> None:
        """Change rate and size of all buckets. Tokens taken and not yet refilled stay taken."""
        now = self._clock()
        if not (rps and burst and self._rps and self._burst):
            self._full_at.clear()
        for bucket, full_at in self._full_at.items():
            taken = max(0.0, full_at - now) * self._rps
            self._full_at[bucket] = now + min(taken, burst) / rps
        self._rps, self._burst = rps, burst

    def take(self, bucket: str) -> None:
        """Take one token out of `bucket`.

        Raises:
            RateLimited: the bucket is empty; it holds a token again after `retry_after_s`. No token is taken.
        """
        if not self._rps or not self._burst:
            return
        now = self._clock()
        full_at = self._use(bucket, now)
        self._refuse_if_empty(full_at, now)
        self._full_at[bucket] = full_at + 1 / self._rps

    def check(self, bucket: str) -> None:
        """Raise RateLimited where `take` would, without changing any bucket."""
        if not self._rps or not self._burst:
            return
        now = self._clock()
        self._refuse_if_empty(max(now, self._full_at.get(bucket, now)), now)

    def _refuse_if_empty(self, full_at: float, now: float) -> None:
        wait = full_at - (self._burst - 1) / self._rps - now
        if wait > _TOLERANCE_S:
            raise RateLimited(
                f"rate limit exceeded ({self._rps:g} requests per second); retry in {wait:.2f} s", retry_after_s=wait
            )

    def _use(self, bucket: str, now: float) -> float:
        """Mark `bucket` as most recently used; the time at which it is full, at least `now`."""
        if bucket in self._full_at:
            self._full_at.move_to_end(bucket)
            return max(now, self._full_at[bucket])
        self._evict(now)
        return now

    def _evict(self, now: float) -> None:
        """Drop full buckets among the oldest, more than one per added bucket so that memory shrinks again.

        If there are none and `max_buckets` is reached, drop the fullest of them.
        """
        oldest = list(islice(self._full_at, _EVICTION_SAMPLE))
        for name in oldest:
            if self._full_at[name] <= now:
                del self._full_at[name]
        if len(self._full_at) >= self._max_buckets:
            del self._full_at[min(oldest, key=lambda name: self._full_at[name])]
