"""What `stt bench` concludes from measured levels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stt_client.bench.analysis import Figures, advise, knee_of
from stt_client.bench.load import Level, Outcome, Reading
from stt_client.results import Limits, Status

SECONDS = 100.0
STATUS = Status("primary", "small", "cuda", "int8", "abc", 1.0, Limits(1 << 24, 3600.0, 2, 64), {})


def level(callers: int, infer: float, wait: float = 0.0) -> Level:
    """A level in which each caller is answered in `wait + infer` seconds, again and again."""
    outcome = Outcome(wait + infer, audio=3.0, queue_wait=wait, primary=infer)
    count = round(callers * SECONDS / outcome.seconds)
    return Level(callers, SECONDS, [outcome] * count, float(callers), [], 0.1)


def figures(*levels: Level) -> list[Figures]:
    return [Figures(each) for each in levels]


TWO_SLOTS = figures(level(1, 0.1), level(2, 0.1), level(4, 0.1, 0.1), level(8, 0.1, 0.3))
"""Two slots without batching: throughput stays at 20 per second from two callers on."""


def test_knee_is_where_waiting_begins() -> None:
    knee = knee_of(TWO_SLOTS)
    assert knee is not None
    assert (knee.callers, round(knee.throughput), knee.quantiles("total")["p95"]) == (2, 20, 0.1)


def test_advice_without_batching_is_a_slot_per_request_at_the_knee() -> None:
    advice = advise(TWO_SLOTS, [STATUS])
    assert advice is not None
    assert (advice.knee.callers, advice.max_concurrency, advice.max_batch_size, advice.notes) == (2, 2, 1, [])


def test_advice_puts_more_requests_than_slots_into_batches() -> None:
    batched = figures(level(1, 0.1), level(4, 0.12), level(8, 0.15), level(16, 0.3), level(32, 0.3, 0.3))
    advice = advise(batched, [STATUS])
    assert advice is not None
    assert (advice.knee.callers, advice.max_concurrency, advice.max_batch_size) == (8, 2, 4)


def test_advice_lowers_slots_that_only_slow_each_other_down() -> None:
    advice = advise(figures(level(1, 0.1), level(2, 0.25), level(4, 0.25, 0.25)), [STATUS])
    assert advice is not None
    assert (advice.knee.callers, advice.max_concurrency, advice.max_batch_size) == (1, 1, 1)


def test_slots_of_a_cpu_stay_as_many_as_they_are() -> None:
    advice = advise(figures(level(1, 0.1), level(2, 0.25), level(4, 0.25, 0.25)), [replace(STATUS, device="cpu")])
    assert advice is not None
    assert (advice.knee.callers, advice.max_concurrency, advice.max_batch_size) == (1, 2, 1)


def test_advice_is_for_each_of_several_services() -> None:
    advice = advise(figures(level(1, 0.1), level(4, 0.1), level(16, 0.1, 0.3)), [STATUS, STATUS])
    assert advice is not None
    assert (advice.knee.callers, advice.max_concurrency, advice.max_batch_size) == (4, 2, 1)


def test_time_at_the_fallback_needs_no_slot() -> None:
    outcome = Outcome(1.0, queue_wait=0.0, primary=0.1, fallback=0.8, fallback_used=True)
    measured = Figures(Level(4, SECONDS, [outcome] * 400, 4.0, [], 0.1))
    assert measured.at_model == pytest.approx(0.4)
    assert measured.fallback_share == 1.0
    assert measured.quantiles("fallback") == {"p50": 0.8, "p95": 0.8, "p99": 0.8}


def test_quantiles_leave_out_requests_without_the_step() -> None:
    outcomes = [Outcome(0.1, primary=0.1)] * 9 + [Outcome(0.5, primary=0.1, fallback=0.4, fallback_used=True)]
    measured = Figures(Level(1, SECONDS, outcomes, 1.0, [], 0.1))
    assert measured.quantiles("fallback")["p50"] == 0.4
    assert measured.quantiles("queue_wait") == {"p50": None, "p95": None, "p99": None}
    assert measured.fallback_share == 0.1


def test_little_s_law_holds_on_consistent_figures_and_a_deviation_is_noted() -> None:
    assert all(each.little.deviation < 0.01 for each in TWO_SLOTS)
    short = figures(level(1, 0.1), replace(TWO_SLOTS[1].level, in_flight=1.0))
    advice = advise(short, [STATUS])
    assert advice is not None
    assert any("Little's law is off by 100%" in note for note in advice.notes)


def test_curve_that_still_rises_is_noted() -> None:
    advice = advise(TWO_SLOTS[:2], [STATUS])
    assert advice is not None
    assert any("no knee up to --callers 2" in note for note in advice.notes)


def test_gpu_with_room_is_worth_another_slot() -> None:
    gpus = [{"utilization_pct": used, "mem_used_mb": memory} for used, memory in ((40.0, 900), (60.0, 1100))]
    readings = [Reading(2, 0, [gpu]) for gpu in gpus] + [Reading(2, 0, [{"utilization_pct": None}])]
    levels = [TWO_SLOTS[0], Figures(replace(TWO_SLOTS[1].level, readings=readings)), *TWO_SLOTS[2:]]
    advice = advise(levels, [STATUS])
    assert advice is not None
    assert levels[1].gpu("utilization_pct") == 50.0
    assert levels[1].gpu("mem_used_mb") == 1100
    assert "the GPU was used 50 % at the knee: try MAX_CONCURRENCY=3 and measure again" in advice.notes


def test_refusals_and_errors_are_counted_by_type_and_noted() -> None:
    outcomes = [Outcome(0.1, primary=0.1)] * 8 + [Outcome(0.01, "overloaded"), Outcome(0.2, "fallback_failed")]
    limited = [*outcomes, Outcome(0.01, "rate_limited")]
    measured = figures(Level(1, 1.0, outcomes, 1.0, [], 0.1), Level(2, 1.0, limited, 2.0, [], 0.1))
    assert (measured[1].level.refused, measured[1].throughput) == (2, 8.0)
    advice = advise(measured, [STATUS])
    assert advice is not None
    assert "at --callers 2: 1 fallback_failed, 1 overloaded, 1 rate_limited" in advice.notes
    assert any(note.startswith("rate_limited: raise RATE_LIMIT_RPS") for note in advice.notes)


def test_nothing_answered_gives_no_advice() -> None:
    assert advise(figures(Level(1, 1.0, [Outcome(0.1, "overloaded")], 1.0, [], 0.1)), [STATUS]) is None
