"""Dimensions of the Whisper models, by name.

Numbers of layers, widths and alignment heads are those of openai/whisper and of the published distil models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Vocabulary = Literal["english", "multilingual", "multilingual-v3"]
"""51,864, 51,865 and 51,866 tokens; the last one has Cantonese (`yue`)."""
Heads = tuple[tuple[int, int], ...]

HEAD_WIDTH = 64
"""Width of an attention head in every Whisper model."""
_MINIATURE_HEAD_WIDTH = 8


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model."""

    name: str
    width: int
    layers: int
    """Layers of the encoder."""
    heads: int
    """Attention heads of each layer."""
    alignment_heads: Heads
    """(layer, head) pairs for word times, as published with the real model; empty: it states none."""
    decoder_layers: int = 0
    """0: as many as the encoder has."""
    mels: int = 80
    """Mel bands of the features."""
    vocabulary: Vocabulary = "multilingual"

    @property
    def folder(self) -> str:
        return f"shape-{self.name}-ct2"

    @property
    def decoder(self) -> int:
        """Layers of the decoder."""
        return self.decoder_layers or self.layers

    def miniature(self) -> Shape:
        """The same counts of layers, heads, mel bands and tokens in a fraction of the width, for tests."""
        return replace(self, name=f"{self.name}-miniature", width=_MINIATURE_HEAD_WIDTH * self.heads)


_SMALL_HEADS = ((5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5))
_MEDIUM_HEADS = ((13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4))
# fmt: off
_LARGE_V2_HEADS = (
    (10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11), (18, 19), (19, 11),
    (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7), (23, 13), (25, 5), (26, 1), (26, 12), (27, 15),
)
_SMALL_EN_HEADS = (
    (6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8), (9, 10), (10, 0), (10, 1), (10, 2),
    (10, 3), (10, 6), (10, 11), (11, 2), (11, 4),
)
_MEDIUM_EN_HEADS = (
    (11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12), (17, 14), (18, 7), (18, 10),
    (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12),
)
# fmt: on
_LARGE_V3_HEADS = ((7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6))


def _all_heads(layers: range, heads: int) -> Heads:
    """What CTranslate2's converter writes for a model without published alignment heads."""
    return tuple((layer, head) for layer in layers for head in range(heads))


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 384, 4, 6, ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5))),
        Shape(
            "tiny.en",
            384,
            4,
            6,
            ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)),
            vocabulary="english",
        ),
        Shape("base", 512, 6, 8, ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6))),
        Shape("base.en", 512, 6, 8, ((3, 3), (4, 7), (5, 1), (5, 5), (5, 7)), vocabulary="english"),
        Shape("small", 768, 12, 12, _SMALL_HEADS),
        Shape("small.en", 768, 12, 12, _SMALL_EN_HEADS, vocabulary="english"),
        Shape("medium", 1024, 24, 16, _MEDIUM_HEADS),
        Shape("medium.en", 1024, 24, 16, _MEDIUM_EN_HEADS, vocabulary="english"),
        Shape("large-v2", 1280, 32, 20, _LARGE_V2_HEADS),
        Shape("large-v3", 1280, 32, 20, _LARGE_V3_HEADS, mels=128, vocabulary="multilingual-v3"),
        Shape(
            "turbo",
            1280,
            32,
            20,
            ((2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)),
            decoder_layers=4,
            mels=128,
            vocabulary="multilingual-v3",
        ),
        Shape("distil-small.en", 768, 12, 12, _all_heads(range(2, 4), 12), decoder_layers=4, vocabulary="english"),
        Shape("distil-medium.en", 1024, 24, 16, _all_heads(range(1, 2), 16), decoder_layers=2, vocabulary="english"),
        Shape("distil-large-v2", 1280, 32, 20, _all_heads(range(1, 2), 20), decoder_layers=2),
        Shape(
            "distil-large-v3",
            1280,
            32,
            20,
            _all_heads(range(1, 2), 20),
            decoder_layers=2,
            mels=128,
            vocabulary="multilingual-v3",
        ),
    )
}
