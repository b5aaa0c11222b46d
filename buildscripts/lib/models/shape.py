"""`models shape NAME...`: models with the dimensions of Whisper and random weights.

They take the time and memory of the real models and write nonsense: use them where the real ones are not available, and
never to measure accuracy. Vocabulary, tokenizer and token ids are those of the starter models, base for multilingual
and tiny.en for English-only models.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import common_spec, whisper_spec

from buildscripts.lib.models.pins import ROOT, megabytes, staged
from buildscripts.lib.models.shape_table import SHAPES, Shape
from buildscripts.lib.models.shape_tokens import read_tokens

Weights = Literal["float16", "int8"]

ENCODER_POSITIONS, DECODER_POSITIONS = 1500, 448
STOP_AFTER = 32
"""Approximate length of a text in tokens, including the prompt; otherwise each would have the decoder's maximum."""

NOTICE = "RANDOM-WEIGHTS.txt"
_NOTICE = """The weights in this folder are random numbers.

The model has the dimensions of Whisper {name}: it takes as long to load and to run, and as much memory, but its text
means nothing. Made by: buildscripts/models shape {name}
"""


def write_shape(shape: Shape, models_dir: Path, folder: Path, weights: Weights = "float16") -> None:
    """Write a model folder.

    Args:
        models_dir: folder with the starter models, for their tokenizers, vocabularies and token ids.
        weights: type of the weights in `model.bin`; the real models have float16.

    Raises:
        FetchError: the starter model is missing.
    """
    tokens = read_tokens(shape.vocabulary, models_dir)
    spec = whisper_spec.WhisperSpec(shape.layers, shape.heads, shape.decoder, shape.heads)
    _Filler(shape, weights).fill(spec, len(tokens.tokens), tokens.end)
    spec.register_vocabulary(tokens.tokens)
    spec.config.suppress_ids = tokens.suppress_ids
    spec.config.suppress_ids_begin = tokens.suppress_ids_begin
    spec.config.lang_ids = tokens.lang_ids
    spec.config.alignment_heads = [list(pair) for pair in shape.alignment_heads]
    spec.validate()
    # The output projection is the embedding. Aliases are set after validation, which rejects strings.
    for name in ("weight", "weight_scale") if weights == "int8" else ("weight",):
        setattr(spec.decoder.projection, name, f"decoder/embeddings/{name}")
    with staged(folder) as stage:
        spec.save(str(stage))
        (stage / "tokenizer.json").write_text(json.dumps(tokens.tokenizer, ensure_ascii=False), encoding="utf-8")
        if shape.mels != 80:  # as the real folders: without this file faster-whisper takes 80
            (stage / "preprocessor_config.json").write_text(json.dumps({"feature_size": shape.mels}), encoding="utf-8")
        (stage / NOTICE).write_text(_NOTICE.format(name=shape.name), encoding="utf-8")


class _Filler:
    """Sets every weight of a specification to random numbers."""

    def __init__(self, shape: Shape, weights: Weights) -> None:
        self._width = shape.width
        self._mels = shape.mels
        self._int8 = weights == "int8"
        self._random = np.random.default_rng(0)

    def fill(self, spec: Any, tokens: int, end_token: int) -> None:
        encoder, decoder, width = spec.encoder, spec.decoder, self._width
        self._weight(encoder.conv1, width, self._mels, 3)
        self._weight(encoder.conv2, width, width, 3)
        encoder.position_encodings.encodings = self._numbers(ENCODER_POSITIONS, width)
        embeddings = self._numbers(tokens, width)
        decoder.position_encodings.encodings = self._positions(embeddings[end_token])
        self._set(decoder.embeddings, embeddings)
        self._set(decoder.projection, np.zeros((tokens, width), np.float16))
        for half in (encoder, decoder):
            self._norm(half.layer_norm)
            for layer in half.layer:
                self._attention(layer.self_attention, 3 * width)
                if half is decoder:
                    self._attention(layer.attention, width, 2 * width)
                self._norm(layer.ffn.layer_norm)
                self._weight(layer.ffn.linear_0, 4 * width, width)
                self._weight(layer.ffn.linear_1, width, 4 * width)

    def _positions(self, end: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        """Position encodings that beyond `STOP_AFTER` are dominated by the embedding of the end token."""
        positions = self._numbers(DECODER_POSITIONS, self._width)
        positions[STOP_AFTER:] += 1000 * end
        return positions

    def _attention(self, spec: Any, *inputs: int) -> None:
        self._norm(spec.layer_norm)
        for linear, rows in zip(spec.linear, (*inputs, self._width), strict=True):
            self._weight(linear, rows, self._width)

    def _norm(self, spec: common_spec.LayerNormSpec) -> None:
        spec.gamma = np.ones(self._width, np.float16)
        spec.beta = np.zeros(self._width, np.float16)

    def _weight(self, spec: Any, *shape: int) -> None:
        self._set(spec, self._numbers(*shape))
        spec.bias = np.zeros(shape[0], np.float16)

    def _set(self, spec: Any, numbers: npt.NDArray[np.float16]) -> None:
        """Set a weight, quantized as by CTranslate2's converter with a scale per row."""
        if not self._int8:
            spec.weight = numbers
            return
        rows = numbers.astype(np.float32).reshape(len(numbers), -1)
        scale = 127 / np.maximum(np.abs(rows).max(axis=1), 1e-3)
        spec.weight = np.rint(rows * scale[:, None]).astype(np.int8).reshape(numbers.shape)
        spec.weight_scale = scale.astype(np.float32)

    def _numbers(self, *shape: int) -> npt.NDArray[np.float16]:
        return (0.02 * self._random.standard_normal(shape, dtype=np.float32)).astype(np.float16)


def main(argv: Sequence[str], say: Callable[[str], None] = print) -> None:
    """Write `models/shape-NAME-ct2`.

    Raises:
        FetchError: a starter model is missing.
        SystemExit: invalid arguments.
    """
    parser = argparse.ArgumentParser(
        prog="buildscripts/models shape", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=tuple(SHAPES), metavar="NAME", help=", ".join(SHAPES))
    parser.add_argument(
        "--weights",
        choices=("float16", "int8"),
        default="float16",
        help="type of the weights in model.bin; default: float16, as in the real models",
    )
    parser.add_argument("--models-dir", type=Path, default=ROOT / "models", help="default: models/ of the repository")
    args = parser.parse_args(argv)
    for name in dict.fromkeys(args.names):
        folder = args.models_dir / SHAPES[name].folder
        write_shape(SHAPES[name], args.models_dir, folder, args.weights)
        say(f"{folder}: {megabytes((folder / 'model.bin').stat().st_size)}, random {args.weights} weights")


if __name__ == "__main__":
    main(sys.argv[1:])
