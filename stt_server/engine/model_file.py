"""Reads the dimensions of a model from its file: CTranslate2's Python interface doesn't expose them.

The format is that of `ctranslate2.specs.model_spec.ModelSpec._serialize`, version 4 and later: a header, then each
variable with its name, shape and data. Only headers are read; the data is skipped.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_OLDEST = 4
"""First version of the format with the number of bytes of each variable."""
_DECODER_LAYER = re.compile(r"decoder/layer_(\d+)/")
_ENCODER_LAYER = re.compile(r"encoder/layer_(\d+)/")
_HEADS = re.compile(r"decoder(/layer_0/self_attention)?/num_heads")


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a Whisper model."""

    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    """Attention heads of each layer of the decoder."""
    tokens: int
    mels: int


def read_shape(model_bin: Path) -> ModelShape:
    """Read the dimensions of a Whisper model in CTranslate2's format.

    Raises:
        ValueError: the file is of another format, or not a Whisper model.
        OSError: it can't be read.
    """
    with model_bin.open("rb") as file:
        try:
            variables = dict(_variables(file))
        except struct.error as error:
            raise ValueError(f"{model_bin} ends too early") from error
    embeddings, convolution = (variables.get(name) for name in ("decoder/embeddings/weight", "encoder/conv1/weight"))
    heads = next((variable.number for name, variable in variables.items() if _HEADS.fullmatch(name)), 0)
    if embeddings is None or convolution is None or not heads:
        raise ValueError(f"{model_bin} is no Whisper model")
    tokens, width = embeddings.shape
    return ModelShape(
        width,
        _layers(variables, _ENCODER_LAYER),
        _layers(variables, _DECODER_LAYER),
        heads,
        tokens,
        convolution.shape[1],
    )


@dataclass(frozen=True)
class _Variable:
    shape: tuple[int, ...]
    number: int
    """The value of a small scalar; 0 for other variables."""


def _variables(file: BinaryIO) -> list[tuple[str, _Variable]]:
    (version,) = _read(file, "I")
    if version < _OLDEST:
        raise ValueError(f"CTranslate2's format {version} is too old; convert the model again")
    _name(file)
    _, count = _read(file, "II")
    return [(_name(file), _variable(file)) for _ in range(count)]


def _variable(file: BinaryIO) -> _Variable:
    (rank,) = _read(file, "B")
    shape = _read(file, f"{rank}I")
    _, size = _read(file, "=BI")
    if rank or size > 8:
        file.seek(size, 1)
        return _Variable(shape, 0)
    return _Variable(shape, int.from_bytes(file.read(size), "little"))


def _name(file: BinaryIO) -> str:
    (length,) = _read(file, "H")
    return file.read(length)[:-1].decode()


def _read(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _layers(variables: Mapping[str, _Variable], pattern: re.Pattern[str]) -> int:
    return 1 + max((int(found[1]) for name in variables if (found := pattern.match(name))), default=-1)
