"""buildscripts/models shape: models with random weights load and run."""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
from faster_whisper import WhisperModel

from buildscripts.lib.models.pins import ROOT, FetchError
from buildscripts.lib.models.shape import NOTICE, STOP_AFTER, Weights, write_shape
from buildscripts.lib.models.shape_table import HEAD_WIDTH, SHAPES, Shape

BASE = ROOT / "models" / "whisper-base-ct2"
MINIATURE = Shape("miniature", 64, 2, 2, ((0, 0), (1, 1)))

needs_base = pytest.mark.skipif(not BASE.is_dir(), reason="needs buildscripts/models starter")


@needs_base
@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_miniature_encodes_and_writes_short_texts(tmp_path: Path, weights: Weights) -> None:
    folder = tmp_path / MINIATURE.folder
    write_shape(MINIATURE, BASE.parent, folder, weights)

    model = WhisperModel(str(folder), device="cpu", compute_type="int8").model

    assert model.is_multilingual
    mel = np.zeros((1, 80, 1000), dtype=np.float32)
    encoded = model.encode(ctranslate2.StorageView.from_array(mel))
    assert encoded.shape == [1, 500, MINIATURE.width]
    (text,) = model.generate(encoded, [["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]], beam_size=1)
    assert 1 <= len(text.sequences_ids[0]) <= STOP_AFTER


@needs_base
def test_folder_has_a_notice_and_the_token_ids_of_base(tmp_path: Path) -> None:
    folder = tmp_path / MINIATURE.folder
    write_shape(MINIATURE, BASE.parent, folder)
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (folder, BASE))
    assert ours.pop("alignment_heads") == [[0, 0], [1, 1]]
    del theirs["alignment_heads"]
    assert ours == theirs
    assert "random numbers" in (folder / NOTICE).read_text()
    assert {path.name for path in folder.iterdir()} == {
        "model.bin",
        "config.json",
        "tokenizer.json",
        "vocabulary.json",
        NOTICE,
    }


def test_missing_starter_model_is_reported_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="buildscripts/models starter"):
        write_shape(MINIATURE, tmp_path / "nowhere", tmp_path / "shape")
    assert not (tmp_path / "shape").exists()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_alignment_heads_exist(shape: Shape) -> None:
    assert shape.width == HEAD_WIDTH * shape.heads
    assert all(0 <= layer < shape.decoder and 0 <= head < shape.heads for layer, head in shape.alignment_heads)
