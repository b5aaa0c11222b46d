"""buildscripts/bench grid: combinations of faster-whisper's settings, and which of them lose no words."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from buildscripts.lib.bench import grid
from buildscripts.lib.bench.report import Accuracy
from buildscripts.lib.load.closed_loop import Measurement, Recording
from stt_server.testing.paths import MODELS, SAMPLES


def rates(english: int, others: int) -> grid.Groups:
    """Word errors in 1000 words each."""
    return Accuracy(english, 1000, 0, 0), Accuracy(others, 1000, 0, 0)


def test_axis_takes_python_values_and_default() -> None:
    assert grid.axis("temperature=0,0.2,default") == ("temperature", (0, 0.2, None))
    assert grid.axis("vad_filter=True") == ("vad_filter", (True,))


@pytest.mark.parametrize("wrong", ["beam_size", "beam_size=", "=1", "beam_size=few"])
def test_invalid_axis_is_rejected(wrong: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"^(a value of )?{wrong}"):
        grid.axis(wrong)


def test_arguments_go_to_the_model_or_the_call_and_defaults_to_neither() -> None:
    axes = [("num_workers", (2,)), ("beam_size", (1, None)), ("vad_filter", (True,))]
    first, second = grid.combinations(axes)
    assert (first.model, first.call) == ({"num_workers": 2}, {"beam_size": 1, "vad_filter": True})
    assert second.call == {"vad_filter": True}
    assert first.forced
    assert not first.batched


def test_batch_size_is_varied_for_batches_alone() -> None:
    axes = [("batched", (True, False)), ("batch_size", (4, 8))]
    found = [(each.what, each.batched, dict(each.call)) for each in grid.combinations(axes)]
    assert found == [
        ("batched batch_size=4", True, {"batch_size": 4}),
        ("batched batch_size=8", True, {"batch_size": 8}),
        ("nothing varied", False, {}),
    ]


def test_a_complete_combination_is_at_most_a_point_worse_in_both_groups() -> None:
    ours = rates(80, 200)
    assert grid.is_complete(rates(90, 100), ours)
    assert not grid.is_complete(rates(91, 100), ours)
    assert not grid.is_complete(rates(10, 211), ours)
    assert grid.is_complete((Accuracy(0, 0, 0, 0), ours[1]), ours), "no recording is in English"


def test_table_begins_with_ours_and_goes_on_with_the_least_processor_time() -> None:
    recording = Recording("a", "en", "the red fox runs", True, bytes(2 * 16000))

    def measured(name: str, cpu: float, text: str) -> Measurement:
        return Measurement(name, 8, 1, 1.0, cpu, (cpu,), (text,), cpu)

    found = {
        "slow": measured("slow", 2.0, recording.text),
        "quick": measured("quick", 1.0, "the red fox"),
        grid.OURS: measured(grid.OURS, 3.0, recording.text),
    }
    table = grid.table(found, [recording])
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == [grid.OURS, "quick", "slow"]
    assert cells[2] == ["0.3", "1.0", "0.5"]
    assert cells[5] == ["0.0%", "25.0%", "0.0%"], "words lost in English"
    assert cells[-1] == ["yes", "no", "yes"]


@pytest.mark.model
def test_bench_grid_measures_each_combination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    argv = ["--model", str(MODELS / "whisper-tiny.en-ct2"), "--corpus", str(SAMPLES), "--mix", "short", "--clips", "1"]
    axes = ["--axis", "num_workers=1", "--axis", "beam_size=1", "--axis", "batched=True,False"]
    assert grid.main([*argv, *axes, "--json", str(out)]) == 0
    assert capsys.readouterr().out.startswith("$ buildscripts/bench grid --model")
    found = json.loads(out.read_text())["measurements"]
    names = ["ours-forced", "batched", "nothing varied"]
    assert [m["contender"] for m in found] == names
    assert all(all(m["texts"]) for m in found)
