"""buildscripts/bench scaling: a short run, and what it concludes from figures."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from buildscripts.lib.bench import scaling
from buildscripts.lib.bench.scaling_deployment import UNSURE, requests_of
from buildscripts.lib.bench.scaling_report import Report, Row, Sample, Setup, pool_slots_for
from stt_client.bench.analysis import Figures
from stt_client.bench.load import Level, Outcome
from stt_server.testing.envoy import envoy_command
from stt_server.testing.network import namespaces_unavailable
from tests.support.needs import lacking

SETUP = Setup(slots=1, inference=1.0, share=0.25, fallback_inference=3.0, fallbacks=2, fallback_slots=10, callers=3)


def row(primaries: int, rate: float, machine: float = 0.2, error: str = "") -> Row:
    """A row of 100 s in which the primaries' slots are busy for nine tenths, the pool's for a half."""
    level = Level(
        3 * primaries, 100.0, [Outcome(3 * primaries / rate, error)] * round(100 * rate), 3.0 * primaries, [], 0.1
    )
    first = Sample(0.0, 5.0, 1.0, 500.0, 1000.0, 10.0, 20.0)
    last = Sample(50.0, 15.0, 2.0, 500 + 1000 * machine, 2000.0, 10 + 45.0 * primaries, 20 + 500.0)
    return Row(primaries, SETUP, Figures(level), first, last, 2)


def test_two_primaries_answer_more_than_one_and_the_pool_is_used_as_predicted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if envoy_command() is None:
        lacking("envoy is not installed; its wheel is for Linux on x86-64 only")
    arguments = ["--primaries", "1,2", "--seconds", "2", "--inference", "0.2", "--fallback-inference", "0.2"]
    plot = tmp_path / "scaling.png"
    assert scaling.main([*arguments, "--share", "0.5", "--fallbacks", "1", "--json", "--plot", str(plot)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["network"].startswith("all on the loopback" if namespaces_unavailable() else "a network namespace")
    one, two = report["levels"]
    assert [one["primaries"], two["primaries"]] == [1, 2]
    assert two["requests_per_s"] > 1.3 * one["requests_per_s"]
    for each in (one, two):
        assert each["errors"] == {}
        assert each["fallback_share"] == pytest.approx(0.5, abs=0.15)
        assert 0.5 < each["slots_busy"] <= 1.1
        pool = report["setup"]["fallback_slots"]
        # On a busy machine an inference takes longer than its script says, never less.
        assert each["pool_busy"] > 0.7 * each["requests_per_s"] * 0.5 * 0.2 / pool
        assert 0 < each["cpu"]["services"] <= each["cpu"]["machine"] + 0.1
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_throughput_is_compared_with_as_many_of_the_first_row() -> None:
    report = Report([row(2, 2.0), row(4, 3.6)], "", 0.0)
    assert [report.efficiency(each) for each in report.rows] == [1.0, pytest.approx(0.9)]
    assert [each.slots_busy for each in report.rows] == [pytest.approx(0.9), pytest.approx(0.9)]


def test_pool_is_predicted_from_the_first_row() -> None:
    report = Report([row(1, 1.0), row(16, 12.0)], "", 0.0)
    # 16 per second, a quarter of them for 3 s, on 20 slots.
    assert report.predicted(report.rows[1]) == pytest.approx(0.6)
    assert report.rows[1].pool_busy == pytest.approx(0.5)


def test_pool_for_16_requests_per_second_has_19_slots() -> None:
    assert pool_slots_for(16, 0.25, 3.0) == 19


def test_busy_machine_and_failed_requests_are_noted() -> None:
    report = Report([row(1, 1.0), row(2, 2.0, machine=0.9), row(4, 4.0, error="internal")], "", 0.0)
    assert list(report.notes()) == [
        "at --primaries 2 the machine was 90% busy, 16% by this run: it may be the limit",
        "at --primaries 4: 400 internal",
    ]
    assert not report.ok


def test_share_of_the_requests_is_evenly_spread() -> None:
    unsure = [request.options.prompt == UNSURE for request in islice(requests_of(0.25), 8)]
    assert unsure == [False, False, False, True] * 2
