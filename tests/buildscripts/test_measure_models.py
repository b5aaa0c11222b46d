"""buildscripts/models measure: the table, and a measurement of a miniature."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildscripts.lib.models.measure import Costs, folder_of, main, table
from buildscripts.lib.models.pins import ROOT, FetchError
from buildscripts.lib.models.shape import write_shape
from buildscripts.lib.models.shape_table import Shape

BASE = ROOT / "models" / "whisper-base-ct2"


def test_table_marks_random_weights() -> None:
    encode = {"10": 0.17, "15": 0.3, "20": 0.5, "30": 0.98}
    lines = table(
        [Costs("base", 1, False, 0.7, 130.4, 20.0, encode, 6.04), Costs("big", 2, True, 9.0, 1e3, 50.0, encode, 30.0)]
    ).splitlines()
    assert lines[2] == "| base | 1 | 0.7 | 130 | 20 | 0.17 | 0.30 | 0.50 | 0.98 | 6.0 |"
    assert lines[3].startswith("| big (random weights) | 2 |")
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.skipif(not BASE.is_dir(), reason="needs buildscripts/models starter")
def test_model_is_measured_in_its_own_process(tmp_path: Path) -> None:
    write_shape(Shape("miniature", 64, 2, 2, ((0, 0),)), BASE.parent, tmp_path / "shape-miniature-ct2")
    messages: list[str] = []
    main(["shape-miniature", "--models-dir", str(tmp_path), "--threads", "1", "--rounds", "1"], messages.append)
    (line,) = messages[0].splitlines()[2:]
    name, threads, *figures = (cell.strip() for cell in line.strip("|").split("|"))
    assert (name, threads) == ("shape-miniature (random weights)", "1")
    assert len(figures) == 8
    assert float(figures[1]) > 30, "MiB of any Python process with a model"
    assert all(float(figure) >= 0 for figure in figures)


def test_missing_model_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no model small"):
        folder_of("small", tmp_path)
