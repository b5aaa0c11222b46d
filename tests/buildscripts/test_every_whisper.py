"""The engine with models of every shape of Whisper: mel bands, vocabularies, numbers of layers, alignment heads."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from buildscripts.lib.models.pins import ROOT
from buildscripts.lib.models.shape import write_shape
from buildscripts.lib.models.shape_table import SHAPES, Shape
from stt_server.engine.loading import ModelLoadError, ModelOptions
from stt_server.engine.model_file import read_shape
from stt_server.engine.types import ChunkJob, DecodeOptions, Samples
from stt_server.engine.whisper import WhisperRecognizer

MODELS = ROOT / "models"
NOISE = np.random.default_rng(0).normal(0, 0.05, 3 * 16000).astype(np.float32)

pytestmark = pytest.mark.skipif(
    not all((MODELS / f"whisper-{name}-ct2").is_dir() for name in ("base", "tiny.en")),
    reason="needs buildscripts/models starter",
)


@dataclass
class Clip:
    samples: Samples
    start: float = 0.0
    speech: tuple[tuple[float, float], ...] = ((0.0, 3.0),)
    speech_certain: bool = True


def make(shape: Shape, folder: Path) -> Path:
    write_shape(shape, MODELS, folder / "model")
    return folder / "model"


def load(folder: Path, **options: int) -> WhisperRecognizer:
    return WhisperRecognizer(ModelOptions(folder, "it", device="cpu", compute_type="int8", **options))  # type: ignore[arg-type]


def draft(model: WhisperRecognizer, *languages: str | None) -> list[str]:
    """Decode noise once for each language, with word times; return the languages of the texts."""
    jobs = [ChunkJob(Clip(NOISE), DecodeOptions(language, word_timestamps=True), draft=True) for language in languages]
    found = model.recognize_batch(jobs)
    segments = [segment for hypothesis in found for segment in hypothesis.segments]
    words = [word for segment in segments for word in segment.words]
    assert words
    assert all(0 <= word.start <= word.end <= 8 for word in words)
    assert all(word.probability >= 0 for word in words)
    assert all(logprob <= 0 for hypothesis in found for logprob in hypothesis.token_logprobs)
    return [hypothesis.language for hypothesis in found]


@pytest.mark.parametrize("name", ["large-v3", "turbo", "distil-large-v3", "large-v2", "small.en", "distil-small.en"])
def test_every_shape_loads_and_gives_words_with_times(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name].miniature()
    folder = make(shape, tmp_path)
    model = load(folder)

    multilingual = shape.vocabulary != "english"
    assert len(model.info.languages) == {"english": 1, "multilingual": 99, "multilingual-v3": 100}[shape.vocabulary]
    assert ("yue" in model.info.languages) == (shape.vocabulary == "multilingual-v3")
    given = ("de", "yue") if shape.vocabulary == "multilingual-v3" else ("de",) if multilingual else ("en",)
    assert draft(model, *given) == list(given)
    (detected,) = draft(model, None)
    assert detected in model.info.languages

    found = read_shape(folder / "model.bin")
    assert (found.encoder_layers, found.decoder_layers, found.heads) == (shape.layers, shape.decoder, shape.heads)
    assert (found.width, found.mels) == (shape.width, shape.mels)


@pytest.mark.parametrize(
    "heads",
    [((1, 3),), (), ((7, 0), (10, 17))],
    ids=["one head", "no heads", "heads of the model that it was distilled from"],
)
@pytest.mark.parametrize("beams", [1, 2])
def test_distilled_model_times_words_whatever_its_alignment_heads(
    heads: tuple[tuple[int, int], ...], beams: int, tmp_path: Path
) -> None:
    shape = replace(SHAPES["distil-large-v3"].miniature(), layers=2, alignment_heads=heads)
    assert draft(load(make(shape, tmp_path), beam_size=beams), "en") == ["en"]


def test_configuration_without_alignment_heads_and_preprocessor_is_completed(tmp_path: Path) -> None:
    folder = make(replace(SHAPES["turbo"].miniature(), layers=2), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["alignment_heads"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").unlink()
    assert draft(load(folder), "en") == ["en"]


def test_windows_of_an_unmeasured_model_are_cautious(tmp_path: Path) -> None:
    model = load(make(replace(SHAPES["turbo"].miniature(), layers=2), tmp_path))
    assert [model.group_of(ChunkJob(Clip(NOISE[: int(16000 * s)]), DecodeOptions("en")))[0] for s in (1, 3)] == [8, 8]  # type: ignore[index]
    long = np.tile(NOISE, 2)[: int(16000 * 4.5)]
    assert model.group_of(ChunkJob(Clip(long), DecodeOptions("en"))) == (12, 0)


def test_model_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    folder = make(replace(SHAPES["tiny"].miniature(), layers=2, alignment_heads=()), tmp_path)
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:10_000])
    with pytest.raises(ModelLoadError, match="ends too early"):
        load(folder)
