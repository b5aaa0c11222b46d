"""buildscripts/bench decoder: bytes of a step, and a small run."""

from __future__ import annotations

import pytest

from buildscripts.lib.bench import decoder as bench_decoder
from stt_server.engine.model_file import ModelShape
from stt_server.testing.paths import TINY


def test_bytes_of_a_decoder_step_are_those_of_base() -> None:
    base = ModelShape(width=512, encoder_layers=6, decoder_layers=6, heads=8, tokens=51865, mels=80)
    assert bench_decoder.weight_bytes(base) == 14 * 512 * 512 * 6 + 51865 * 512
    assert bench_decoder.key_bytes(base, 30) == 2 * 6 * 1500 * 512 * 4
    step = bench_decoder.Step(8, 4, 1, 10.0, 50_000_000, 40_000_000)
    assert step.rate == pytest.approx(9.0)
    assert "| 8 | 4 | 1 | 10.0 | 2.5 | 50.0 | 40.0 | 9.0 |" in bench_decoder.table([step])


@pytest.mark.model
def test_bench_decoder_measures_each_combination(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", str(TINY), "--windows", "8", "--batches", "1,2", "--beams", "1,2", "--rounds", "1"]
    assert bench_decoder.main(argv) == 0
    printed = capsys.readouterr().out
    assert all(f"| 8 | {batch} | {beams} |" in printed for batch in (1, 2) for beams in (1, 2))
    assert "GB/s read and written by one core" in printed
