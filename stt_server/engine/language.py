"""Which language a chunk is in."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def choose_language(ranking: Sequence[tuple[str, float]], candidates: Collection[str]) -> tuple[str, float]:
    """The likeliest language and its probability.

    Args:
        ranking: CTranslate2's `(token, probability)` pairs, likeliest first; tokens such as `<|en|>`.
        candidates: codes to choose among; the probabilities are then of these alone and sum to 1. Empty: all.

    Returns:
        An ISO 639-1 code and 0 to 1.
    """
    known = [(token[2:-2], probability) for token, probability in ranking]
    if candidates:
        known = [(code, probability) for code, probability in known if code in candidates]
        total = sum(probability for _, probability in known)
        if total > 0:
            known = [(code, probability / total) for code, probability in known]
    return known[0]
