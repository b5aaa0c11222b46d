"""Token buckets on a manual clock."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_server.errors import RateLimited
from stt_server.security.rate_limit import RateLimiter
from tests.support.clock import ManualClock


def passes(limiter: RateLimiter, bucket: str = "a") -> bool:
    try:
        limiter.take(bucket)
    except RateLimited:
        return False
    return True


def test_a_call_beyond_the_burst_is_told_when_to_retry() -> None:
    clock = ManualClock(1000.0)
    limiter = RateLimiter(2.0, 3, clock=clock)
    assert [passes(limiter) for _ in range(3)] == [True] * 3
    with pytest.raises(RateLimited) as caught:
        limiter.take("a")
    assert caught.value.retry_after_s == pytest.approx(0.5)
    assert caught.value.message == "rate limit exceeded (2 requests per second); retry in 0.50 s"


def test_a_call_passes_after_retry_after_and_not_before() -> None:
    clock = ManualClock(1000.0)
    limiter = RateLimiter(3.0, 2, clock=clock)
    for _ in range(200):
        while passes(limiter):
            pass
        with pytest.raises(RateLimited) as caught:
            limiter.take("a")
        wait = caught.value.retry_after_s
        assert wait is not None
        refused_at = clock.now
        clock.now = refused_at + wait - 0.001
        assert not passes(limiter)
        clock.now = refused_at + wait
        assert passes(limiter)


def test_a_refused_call_takes_no_token() -> None:
    clock = ManualClock(1000.0)
    limiter = RateLimiter(1.0, 1, clock=clock)
    limiter.take("a")
    assert not any(passes(limiter) for _ in range(50))
    clock.now += 1.0
    assert passes(limiter)


def test_a_bucket_refills_to_the_burst_at_most() -> None:
    clock = ManualClock(1000.0)
    limiter = RateLimiter(10.0, 4, clock=clock)
    clock.now += 3600
    assert sum(passes(limiter) for _ in range(20)) == 4
    clock.now += 3600
    assert sum(passes(limiter) for _ in range(20)) == 4


def test_buckets_are_independent() -> None:
    limiter = RateLimiter(1.0, 1, clock=ManualClock(1000.0))
    assert passes(limiter, "key:a")
    assert not passes(limiter, "key:a")
    assert passes(limiter, "address:a")


@pytest.mark.parametrize(("rps", "burst"), [(0.0, 30), (15.0, 0), (0.0, 0)])
def test_zero_means_no_limit_and_no_buckets(rps: float, burst: int) -> None:
    limiter = RateLimiter(rps, burst, clock=ManualClock(1000.0))
    assert all(passes(limiter) for _ in range(1000))
    assert len(limiter) == 0


@pytest.mark.parametrize(("rps", "burst", "buckets"), [(-1.0, 1, 1), (1.0, -1, 1), (1.0, 1, 0)])
def test_limits_out_of_range_are_refused(rps: float, burst: int, buckets: int) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        RateLimiter(rps, burst, max_buckets=buckets)


def test_the_number_of_buckets_is_limited() -> None:
    limiter = RateLimiter(1.0, 5, clock=ManualClock(1000.0), max_buckets=50)
    for n in range(500):
        assert passes(limiter, f"address:{n}")
        assert len(limiter) <= 50


def test_full_buckets_are_dropped_as_others_are_added() -> None:
    clock = ManualClock(1000.0)
    limiter = RateLimiter(1.0, 5, clock=clock, max_buckets=1000)
    for n in range(400):
        limiter.take(f"before:{n}")
    clock.now += 10
    for n in range(60):
        limiter.take(f"after:{n}")
    assert len(limiter) == 60


@pytest.mark.parametrize("burst", [1, 2])
def test_a_bucket_in_use_is_not_evicted_by_new_ones(burst: int) -> None:
    limiter = RateLimiter(1.0, burst, clock=ManualClock(1000.0), max_buckets=20)
    while passes(limiter, "hammer"):
        pass
    for n in range(1000):
        assert passes(limiter, f"address:{n}")
        if n % 10 == 0:
            assert not passes(limiter, "hammer")


def test_the_fullest_of_the_oldest_buckets_is_evicted() -> None:
    limiter = RateLimiter(1.0, 3, clock=ManualClock(1000.0), max_buckets=3)
    while passes(limiter, "busy"):
        pass
    limiter.take("light")
    limiter.take("other")
    limiter.take("newcomer")
    assert not passes(limiter, "busy")


def test_cycling_through_addresses_gains_nothing() -> None:
    """Cycling through more addresses than buckets passes at most each address's own burst."""
    limiter = RateLimiter(1.0, 4, clock=ManualClock(1000.0), max_buckets=10)
    passed = sum(passes(limiter, f"address:{n}") for _ in range(4) for n in range(11))
    assert passed <= 11 * 4


gaps = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 0.3), st.floats(0.0, 20.0)), min_size=1, max_size=120)
rates = st.sampled_from([0.1, 0.5, 1.0, 3.0, 7.0, 15.0, 60.0, 1000.0])


@given(gaps, rates, st.integers(1, 40), st.floats(0.0, 1e7))
def test_no_window_exceeds_burst_and_rate(gaps: list[float], rps: float, burst: int, start: float) -> None:
    clock = ManualClock(start)
    limiter = RateLimiter(rps, burst, clock=clock)
    times = []
    for gap in gaps:
        clock.now += gap
        if passes(limiter):
            times.append(clock.now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            # 1 us of tolerance, and the float clock's resolution of some nanoseconds far from 0.
            allowed = burst + rps * (times[last] - times[first] + 2e-6)
            assert last - first + 1 <= allowed + 1e-9


@given(gaps, rates, st.integers(1, 40))
def test_decisions_match_a_bucket_of_exact_fractions(gaps: list[float], rps: float, burst: int) -> None:
    clock = ManualClock(0.0)
    limiter = RateLimiter(rps, burst, clock=clock)
    tokens, at, rate = Fraction(burst), Fraction(0), Fraction(rps)
    slack = rate * Fraction(3, 1_000_000)
    for gap in gaps:
        clock.now += gap
        tokens = min(Fraction(burst), tokens + (Fraction(clock.now) - at) * rate)
        at = Fraction(clock.now)
        passed = passes(limiter)
        if abs(tokens - 1) > slack:
            assert passed == (tokens > 1)
        if passed:
            tokens -= 1


def test_changing_the_rate_returns_no_tokens() -> None:
    clock = ManualClock(1000.0)
    limiter = RateLimiter(1.0, 4, clock=clock)
    assert [passes(limiter) for _ in range(3)] == [True] * 3
    limiter.change(10.0, 4)
    assert [passes(limiter) for _ in range(2)] == [True, False]
    clock.now += 0.1
    assert passes(limiter)


def test_shrinking_a_bucket_leaves_it_empty_at_most() -> None:
    clock = ManualClock(1000.0)
    limiter = RateLimiter(1.0, 100, clock=clock)
    assert all(passes(limiter) for _ in range(50))
    limiter.change(1.0, 5)
    assert not passes(limiter)
    clock.now += 1
    assert [passes(limiter), passes(limiter)] == [True, False]
    assert [passes(limiter, "another") for _ in range(6)] == [True] * 5 + [False]


def test_a_limit_can_be_turned_off_and_on() -> None:
    limiter = RateLimiter(1.0, 1, clock=ManualClock(1000.0))
    assert [passes(limiter), passes(limiter)] == [True, False]
    limiter.change(0, 1)
    assert [passes(limiter), passes(limiter)] == [True, True]
    limiter.change(1.0, 1)
    assert [passes(limiter), passes(limiter)] == [True, False]
