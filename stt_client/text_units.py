"""Parts of a text between which a subtitle may break, and their widths in columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u9fff"
    "\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
"""Characters of scripts without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese."""

_NO_START = frozenset("ะาำๅๆຯະາຳーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ々〜～")
"""Characters beside closing punctuation and marks that never begin a line."""
_NO_END = frozenset("เแโใไເແໂໃໄ")
"""Thai and Lao vowels that are written before their consonant."""
_CLOSING = frozenset(("Pe", "Pf", "Po", "Mn", "Mc", "Me"))
_OPENING = frozenset(("Ps", "Pi"))

_SENTENCE_END = re.compile(r"[.!?…。！？؟।॥።。！？]['\"’”»)\]」』）】]*$")
_CLAUSE_END = re.compile(r"[,;:،؛、，；：—–-]['\"’”»)\]」』）】]*$")
_ABBREVIATION = re.compile(r"^['\"‘“«(\[]*(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|Sra?|Mme|Hr|Fr)\.$")


def width(text: str) -> int:
    """Columns of a text: 2 per East Asian wide character (Unicode annex 11), 1 per other character."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def units(word: str, widest: int) -> Iterator[str]:
    """Split a word without spaces into parts that may be on different lines, each at most `widest` columns.

    Scripts without spaces may break anywhere, but not before closing punctuation or after opening punctuation; other
    words break only if they are too wide.
    """
    unit = ""
    for char in word:
        if unit and (_may_break(unit[-1], char) or width(unit + char) > widest):
            yield unit
            unit = ""
        unit += char
    if unit:
        yield unit


def _may_break(before: str, after: str) -> bool:
    if not (UNSPACED.match(before) or UNSPACED.match(after)):
        return False
    if before in _NO_END or unicodedata.category(before) in _OPENING:
        return False
    return after not in _NO_START and unicodedata.category(after) not in _CLOSING


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with this unit."""
    return bool(_SENTENCE_END.search(text)) and not _ABBREVIATION.match(text)


def ends_clause(text: str) -> bool:
    """Whether a clause ends with this unit, at a comma for example."""
    return bool(_CLAUSE_END.search(text))
