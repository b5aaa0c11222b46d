"""buildscripts/soak: evaluation of measurements, and short runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from buildscripts.lib.load.process_usage import Usage
from buildscripts.lib.load.recordings import EncodedClip, matches
from buildscripts.lib.soak import realtime as realtime_soak
from buildscripts.lib.soak import service as soak_service
from buildscripts.lib.soak.deployment import Deployment
from buildscripts.lib.soak.growth import Sample, growth_problems, growth_table, least_of_halves, memory_slope
from buildscripts.lib.soak.live import Part, main, table, verdict
from buildscripts.lib.soak.local_pair import pair
from stt_server.testing.paths import MODELS, ROOT
from tests.support.contract_script import Script
from tests.support.contract_service import serving

TINY = MODELS / "whisper-tiny.en-ct2"
CALM = Sample(0.0, Usage(500.0, 400.0, 18, 20, 2, 60.0), 480.0, 3)


def parts(memory: float = 0.0, lag: float = 0.0) -> list[Part]:
    """Six parts, the last with more memory and lag."""
    return [*(Part(60.0, 300.0, 100, 0.5) for _ in range(5)), Part(60.0, 300.0 + memory, 100, 0.5 + lag)]


def test_verdict_fails_on_growth_and_early_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(parts()) == 0
    assert verdict(parts(memory=20)) == 0
    assert verdict(parts(memory=50)) == 1
    assert verdict(parts(lag=2)) == 1
    assert verdict(parts()[:4]) == 1
    assert "early" in capsys.readouterr().out


def test_table_has_a_line_per_part() -> None:
    lines = table(parts(), 600.0).splitlines()
    assert len(lines) == 8
    assert lines[2] == "| 1 | 10.0 | 300 | 100 | 0.50 |"


def test_unknown_soak_is_refused_with_the_list() -> None:
    run = subprocess.run([str(ROOT / "buildscripts/soak"), "brine"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "live" in run.stderr


def test_realtime_soak_reports_what_grew() -> None:
    calm = realtime_soak.Part(400.0, 120, 10)
    assert realtime_soak.growth([calm] * 6, 30.0) == []
    grown = replace(calm, resident_mib=440.0, descriptors=140)
    assert realtime_soak.growth([calm] * 5 + [grown], 30.0) == ["memory grew by 40.0 MiB", "descriptors grew by 20"]
    assert realtime_soak.growth([calm] * 5 + [grown], 5.0) == ["descriptors grew by 20"]


@pytest.mark.model
def test_short_realtime_soak_keeps_idle_sessions(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--minutes", "0.3", "--idle", "5", "--talking", "2", "--model", str(TINY)]
    assert realtime_soak.main(arguments) == 0
    assert "every session lived" in capsys.readouterr().out


@pytest.mark.model
def test_short_live_soak_prints_measurements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--hours", "0.04", "--model", str(TINY)])
    output = capsys.readouterr().out
    assert output.count("\n| ") >= 6
    assert "memory grew by" in output


def samples_of(hours: float = 1.0, count: int = 60, **more: float) -> list[Sample]:
    """Samples of a run in which resources of a process grow linearly."""
    samples = []
    for number in range(count):
        grown = {name: getattr(CALM.usage, name) + by * number / count for name, by in more.items() if name != "files"}
        files = CALM.files + round(more.get("files", 0) * number / count)
        floor = CALM.floor_mib + more.get("resident_mib", 0) * number / count
        samples.append(Sample(hours * number / (count - 1), replace(CALM.usage, **grown), floor, files))
    return samples


def test_constant_resources_pass() -> None:
    assert growth_problems("primary", samples_of()) == []
    assert growth_problems("primary", samples_of(resident_mib=8, threads=2, descriptors=4, children=1, files=2)) == []


@pytest.mark.parametrize("what", ["threads", "descriptors", "children", "files"])
def test_growing_resource_is_reported(what: str) -> None:
    (found,) = growth_problems("primary", samples_of(**{what: 40}))
    assert found.startswith(f"primary: {what} grew from")


def test_growing_memory_is_reported_by_amount_and_slope() -> None:
    by_amount, by_slope = growth_problems("primary", samples_of(resident_mib=60))
    assert "primary: memory grew by" in by_amount
    assert "MiB per hour over the last two thirds" in by_slope


def test_memory_of_a_few_minutes_is_not_judged() -> None:
    assert growth_problems("primary", samples_of(hours=0.05, resident_mib=60)) == []


def test_slope_is_robust_against_an_outlier() -> None:
    samples = samples_of(resident_mib=6)
    samples[-1] = replace(samples[-1], floor_mib=900.0)
    assert abs(memory_slope(samples).per_hour - 6) < 1


def test_slope_within_chance_is_not_reported() -> None:
    samples = [
        replace(sample, floor_mib=480.0 + 20 * (n * 7919 % 13)) for n, sample in enumerate(samples_of(resident_mib=17))
    ]
    assert memory_slope(samples).at_least < 0
    assert growth_problems("primary", samples) == []


def test_least_memory_of_halves_leaves_out_the_first_sixth() -> None:
    first, second = least_of_halves(samples_of(resident_mib=60))
    assert abs(first - (CALM.floor_mib + 10)) <= 1 and abs(second - (CALM.floor_mib + 30)) <= 1


def test_growth_table_has_a_line_per_sixth() -> None:
    lines = growth_table("primary", samples_of()).splitlines()
    assert lines[2:] == [f"| {number} | 500 | 480 | 400 | 60 | 18 | 20 | 2 | 3 |" for number in range(1, 7)]


def test_text_matches_only_its_own_recording() -> None:
    fox, counting, both = (
        EncodedClip(text, "en", text, b"", {})
        for text in (
            "The quick brown fox jumps over the lazy dog.",
            "One two three four five six seven eight nine ten.",
            "The quick brown fox jumps over the lazy dog. One two three four five six seven eight nine ten.",
        )
    )
    others = [fox, counting, both]
    assert matches("the quick brown fox jumped over a lazy dog", fox, others)
    assert matches("1-2-3, 45678910.", counting, others)
    assert not matches(fox.text, counting, others)
    assert not matches(fox.text, both, others)
    assert not matches(both.text, fox, others)
    assert not matches("", fox, others)


@pytest.mark.model
def test_short_soak_of_the_pair_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "soak.png"
    argv = ["--minutes", "0.1", "--share", "1", "--plot", str(picture), "--fallback", str(MODELS / "whisper-base-ct2")]
    status = soak_service.main(argv)
    output = capsys.readouterr().out
    assert status == 0, output
    assert "| its own text | yes |" in output
    assert "too short to judge memory" in output
    assert picture.read_bytes().startswith(b"\x89PNG")


def exposition(resident_mib: int, started: int) -> str:
    values = {"resident_memory_bytes": resident_mib << 20, "open_fds": 20, "start_time_seconds": started}
    return "".join(f"# TYPE process_{name} gauge\nprocess_{name} {value}\n" for name, value in values.items())


async def test_deployment_is_sampled_from_its_metrics_and_a_restart_is_a_problem() -> None:
    async with serving(Script(exposition=exposition(300, 1))) as served, AsyncExitStack() as stack:
        monitor = await Deployment.connect(stack, [served.target], {})
        served.script.exposition = exposition(280, 1)
        await monitor.sample_memory()
        served.script.exposition = exposition(310, 1)
        line = await monitor.sample([0.5])
        assert f"{served.target}: 310 MiB (280 at least), 20 descriptors | median 0.500 s of 1" in line
        assert monitor.problems == []
        served.script.exposition = exposition(300, 2)
        await monitor.sample([])
        (problem,) = monitor.problems
        assert problem.startswith(f"{served.target} has restarted")
        await served.stop()
        await monitor.sample([])
        assert "metrics can't be read" in monitor.problems[1]
    assert [sample.usage.resident_mib for sample in monitor.samples[served.target]] == [310, 300]


@pytest.mark.model
async def test_short_soak_of_a_deployment_passes(tmp_path: Path) -> None:
    async with pair(tmp_path, TINY, MODELS / "whisper-base-ct2") as (monitor, key):
        primary, fallback = monitor.addresses["primary"], monitor.addresses["fallback"]
        command = [str(ROOT / "buildscripts/soak"), "service", "--minutes", "0.1", "--share", "1"]
        command += ["--server", str(primary.grpc), "--http", f"http://{primary.http}", "--watch", str(fallback.grpc)]
        run = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "STT_API_KEY": key}, stdout=asyncio.subprocess.PIPE
        )
        output = (await run.communicate())[0].decode()
    assert run.returncode == 0, output
    assert "| REST | its own text | yes |" in output
    assert f"| {fallback.grpc} | resident MiB | floor MiB | descriptors |" in output
    assert "nothing grew" in output
