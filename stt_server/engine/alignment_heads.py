"""Attention heads for word times and token probabilities, for models whose configuration has no usable ones.

CTranslate2's aligner needs `alignment_heads` in config.json and fails without. Converted distil models may lack them,
or have those of the model that they were distilled from, whose layers they don't have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from stt_server.engine.model_file import ModelShape, read_shape

_COPIED = ("tokenizer.json", "preprocessor_config.json", "vocabulary.json", "vocabulary.txt")
"""Files besides model.bin and config.json that a model may have."""


def usable_heads(stated: object, shape: ModelShape) -> list[list[int]]:
    """The stated (layer, head) pairs that the model has; if there are none, all heads of the later half of its layers.

    That is what CTranslate2's converter and openai/whisper use for models without published heads.
    """
    pairs = stated if isinstance(stated, list) else []
    usable = [list(pair) for pair in pairs if _exists(pair, shape)]
    layers = range(shape.decoder_layers // 2, shape.decoder_layers)
    return usable or [[layer, head] for layer in layers for head in range(shape.heads)]


def amended_files(folder: Path) -> dict[str, bytes | BinaryIO] | None:
    """A model's files with alignment heads that it has, to load it from; None if its own configuration is usable.

    `model.bin` is an open file, which the caller closes.

    Raises:
        ValueError: config.json is not JSON, or model.bin not a model.
        OSError: a file can't be read.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = usable_heads(config.get("alignment_heads"), read_shape(folder / "model.bin"))
    if heads == config.get("alignment_heads"):
        return None
    files: dict[str, bytes | BinaryIO] = {
        name: (folder / name).read_bytes() for name in _COPIED if (folder / name).is_file()
    }
    files["config.json"] = json.dumps(config | {"alignment_heads": heads}).encode()
    files["model.bin"] = (folder / "model.bin").open("rb")
    return files


def _exists(pair: object, shape: ModelShape) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(number, int) for number in pair):
        return False
    layer, head = pair
    return bool(0 <= layer < shape.decoder_layers and 0 <= head < shape.heads)
