"""buildscripts/bench outage with one short outage."""

from __future__ import annotations

from buildscripts.lib.bench import outage as bench_outage

STOPPED = "stopped (SIGSTOP), continued"


async def test_stopped_fallback_is_noticed_and_used_again() -> None:
    (found,) = await bench_outage.measure(5, [STOPPED])
    assert found.name == STOPPED
    # Far below FALLBACK_TIMEOUT_S, 60 s.
    assert 1 < found.noticed < 20
    assert found.slowest < 20
    assert 0 < found.used_again < 20
    assert bench_outage.table([found]).row_count == 1
