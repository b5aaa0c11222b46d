"""Vocabularies and tokenizers of the shapes, from those of the starter models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildscripts.lib.models.pins import FetchError
from buildscripts.lib.models.shape_table import Vocabulary

_BEFORE_CANTONESE, _CANTONESE = "<|su|>", "<|yue|>"


@dataclass(frozen=True)
class ShapeTokens:
    """Tokens of a model, and what CTranslate2's configuration says about them."""

    tokens: list[str]
    tokenizer: dict[str, Any]
    """Content of tokenizer.json."""
    suppress_ids: list[int]
    suppress_ids_begin: list[int]
    lang_ids: list[int]

    @property
    def end(self) -> int:
        """Id of the token that ends a text."""
        return self.tokens.index("<|endoftext|>")


def read_tokens(vocabulary: Vocabulary, models_dir: Path) -> ShapeTokens:
    """The tokens of a vocabulary.

    Args:
        models_dir: folder with the starter models.

    Raises:
        FetchError: the starter model with these tokens is missing.
    """
    folder = models_dir / ("whisper-tiny.en-ct2" if vocabulary == "english" else "whisper-base-ct2")
    if not (folder / "tokenizer.json").is_file():
        raise FetchError(f"the vocabulary of {folder} is missing; run buildscripts/models starter")
    if vocabulary == "english":
        tokens = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    else:
        tokens = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = (config[key] for key in ("suppress_ids", "suppress_ids_begin", "lang_ids"))
    found = ShapeTokens(tokens, tokenizer, *ids)
    return _with_cantonese(found) if vocabulary == "multilingual-v3" else found


def _with_cantonese(known: ShapeTokens) -> ShapeTokens:
    """Insert the token that large-v3 has in addition, after the other languages."""
    place = known.tokens.index(_BEFORE_CANTONESE) + 1

    def moved(ids: list[int]) -> list[int]:
        return [number + (number >= place) for number in ids]

    tokenizer = dict(known.tokenizer)
    added = [{**token, "id": moved([token["id"]])[0]} for token in tokenizer["added_tokens"]]
    model = next(token for token in added if token["content"] == _BEFORE_CANTONESE)
    added.append({**model, "id": place, "content": _CANTONESE})
    tokenizer["added_tokens"] = sorted(added, key=lambda token: int(token["id"]))
    processor = json.loads(json.dumps(tokenizer["post_processor"]))
    for token in processor["special_tokens"].values():
        token["ids"] = moved(token["ids"])
    tokenizer["post_processor"] = processor
    return ShapeTokens(
        tokens=[*known.tokens[:place], _CANTONESE, *known.tokens[place:]],
        tokenizer=tokenizer,
        suppress_ids=moved(known.suppress_ids),
        suppress_ids_begin=moved(known.suppress_ids_begin),
        lang_ids=[*known.lang_ids, place],
    )
