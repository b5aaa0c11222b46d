"""buildscripts/models check: the recommendation, and a run on real speech."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildscripts.lib.bench.report import Accuracy
from buildscripts.lib.models.check import FULL, Outcome, configuration, main, recommended, table
from buildscripts.lib.models.pins import FetchError
from buildscripts.lib.models.shape import write_shape
from buildscripts.lib.models.shape_table import Shape
from stt_server.testing.paths import MODELS, SAMPLES


def outcome(errors: int, seconds: float, looped: int = 0, cut: int = 0) -> Outcome:
    return Outcome(Accuracy(errors, 1000, looped, cut), 0, seconds)


@pytest.mark.parametrize(
    ("shortened", "expected"),
    [
        ({2.0: outcome(100, 4.0), 4.0: outcome(100, 5.0)}, 2.0),
        ({2.0: outcome(103, 4.0), 4.0: outcome(100, 5.0)}, 2.0),
        ({2.0: outcome(104, 4.0), 4.0: outcome(100, 5.0)}, 4.0),
        ({2.0: outcome(100, 4.0, looped=1), 4.0: outcome(100, 5.0)}, 4.0),
        ({2.0: outcome(100, 4.0, cut=1), 4.0: outcome(110, 5.0)}, FULL),
        ({2.0: outcome(90, 9.8), 4.0: outcome(90, 9.9)}, FULL),
    ],
    ids=["both right", "few more errors", "too many errors", "a loop", "none right", "no faster"],
)
def test_shortest_silence_that_is_no_worse_is_recommended(
    shortened: dict[float | None, Outcome], expected: float | None
) -> None:
    assert recommended({FULL: outcome(100, 10.0), **shortened}) == expected


def test_configuration_names_the_keys() -> None:
    assert configuration(FULL, 768) == "ENCODER_WINDOW=full"
    assert configuration(3.0, 768) == "ENCODER_WINDOW=adaptive\nENCODER_TAIL_S=3"
    assert "may be left empty" in configuration(2.0, 512)
    assert "may be left empty" in configuration(4.0, 768)


def test_table_has_a_line_per_setting() -> None:
    lines = table({FULL: outcome(100, 10.0), 2.0: outcome(95, 2.5, looped=1)}, 50.0).splitlines()
    assert lines[2] == "| full | 10.0% | 0 | 0 | 0 | 0.200 | 1.00 |"
    assert lines[3] == "| adaptive, 2 s of silence | 9.5% | 1 | 0 | 0 | 0.050 | 0.25 |"


@pytest.mark.model
def test_check_of_a_real_model_recommends_keys(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(MODELS / "whisper-tiny.en-ct2"), "--clips", "2", "--compute-type", "int8", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert printed.startswith("whisper-tiny.en-ct2: width 384, 4 + 4 layers, 80 mel bands, 1 languages; int8")
    assert "adaptive, 6 s of silence" in printed
    assert "ENCODER_WINDOW=" in printed.splitlines()[-1] + printed.splitlines()[-2]


@pytest.mark.model
def test_random_weights_get_no_recommendation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shape(Shape("miniature", 16, 1, 2, ()), MODELS, tmp_path / "model")
    main([str(tmp_path / "model"), "--clips", "1", "--compute-type", "int8", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "The weights are random" in printed
    assert "ENCODER_WINDOW" not in printed


def test_missing_model_and_corpus_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no model"):
        main([str(tmp_path), "--models-dir", str(tmp_path)])
    if (MODELS / "whisper-tiny.en-ct2").is_dir():
        with pytest.raises(FetchError, match="is no corpus"):
            main(["tiny.en", "--models-dir", str(MODELS), "--corpus", str(tmp_path)])
    assert SAMPLES.name == "samples"
