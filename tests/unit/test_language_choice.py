"""The language in doubt, decided by the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from stt_server.engine.acceptance import RedecodingBudget
from stt_server.engine.generation import Decoded
from stt_server.engine.language import Language
from stt_server.engine.language_choice import MARGIN, LanguageChoice, Reading, best_reading
from stt_server.engine.tokens import TimedTokens
from stt_server.engine.types import ChunkJob, DecodeOptions
from tests.unit.test_acceptance import Clip

ENGLISH = " the girl walks in and looks around"
CHINESE = "女孩走进来看了看"
LOOP = "桌上," * 20


def decoded(text: str, logprob: float) -> Decoded:
    return Decoded([TimedTokens(0.0, 5.0, (1, 2))], [[logprob] * 2], [[]], 0.1, text)


class Decoder:
    """Decodes by the language of the input."""

    def __init__(self, **texts: Decoded) -> None:
        self.texts = texts
        self.batches: list[list[str]] = []

    def input(self, encoded: Any, options: DecodeOptions) -> Any:
        return SimpleNamespace(encoded=encoded, language=options.language)

    def decode(self, batch: Sequence[Any], *, beams: int | None = None) -> list[Decoded]:
        assert beams == 1
        languages = [item.language for item in batch]
        self.batches.append(languages)
        return [self.texts[language] for language in languages]


def reading(language: str, text: str, logprob: float, probability: float | None, **job: Any) -> Reading:
    own = ChunkJob(Clip(), DecodeOptions(language), **job)
    return Reading(own, Decoder().input(None, own.options), decoded(text, logprob), probability)


def settled(decoder: Any, own: Reading, language: Language, budget: RedecodingBudget) -> Reading:
    (found,) = LanguageChoice(decoder).settled([own], [language], [budget])
    return found


def settle(decoder: Decoder, own: Reading, *rivals: tuple[str, float]) -> Reading:
    language = Language(own.job.options.language or "", own.language_probability, rivals)
    return settled(decoder, own, language, RedecodingBudget(5.0, 8))


def test_better_text_in_a_rival_language_wins() -> None:
    decoder = Decoder(en=decoded(ENGLISH, -0.3))
    found = settle(decoder, reading("zh", CHINESE, -1.5, 0.7), ("en", 0.2))
    assert (found.decoded.text, found.job.options.language) == (ENGLISH, "en")
    assert found.language_probability is not None
    assert found.language_probability > 0.7


def test_loop_loses_to_a_rival_however_probable_it_is() -> None:
    found = settle(Decoder(en=decoded(ENGLISH, -0.4)), reading("zh", LOOP, -0.05, 0.86), ("en", 0.1))
    assert found.job.options.language == "en"


def test_rival_must_be_better_by_a_margin() -> None:
    own = reading("nl", " de stad is ook oud", -0.5, 0.55)
    for gain, language in ((MARGIN - 0.05, "nl"), (MARGIN + 0.05, "en")):
        found = settle(Decoder(en=decoded(ENGLISH, -0.5 + gain)), own, ("en", 0.34))
        assert found.job.options.language == language


def test_same_words_are_in_the_language_that_they_are_more_probable_in() -> None:
    own = reading("yo", ENGLISH, -0.17, 0.46)
    assert settle(Decoder(en=decoded(f"{ENGLISH}.", -0.09)), own, ("en", 0.25)).job.options.language == "en"
    assert settle(Decoder(en=decoded(f"{ENGLISH}.", -0.2)), own, ("en", 0.25)).job.options.language == "yo"


def test_rival_that_is_improbable_itself_does_not_win() -> None:
    own = reading("en", " So", -2.8, 0.4)
    assert settle(Decoder(ja=decoded("さあ", -2.2)), own, ("ja", 0.1)).decoded == own.decoded


@pytest.mark.parametrize("text", [LOOP, ENGLISH * 5, ""])
def test_unacceptable_rival_does_not_win(text: str) -> None:
    own = reading("zh", CHINESE, -1.5, 0.7)
    assert settle(Decoder(en=decoded(text, -0.05)), own, ("en", 0.2)).decoded == own.decoded


def test_text_that_no_rival_can_beat_is_not_compared() -> None:
    own = reading("en", ENGLISH, -MARGIN + 0.05, 0.7)
    decoder = Decoder()
    assert settle(decoder, own, ("zh", 0.2)) is own
    assert decoder.batches == []


def test_unlikely_language_becomes_likely_by_its_text() -> None:
    own = reading("fi", " istukas pekka se vain", -0.3, 0.45)
    decoder = Decoder(et=decoded(" istugas", -1.0), de=decoded(" ist", -1.5))
    found = settle(decoder, own, ("et", 0.13), ("de", 0.07))
    assert (found.decoded, decoder.batches) == (own.decoded, [["et", "de"]])
    assert found.language_probability is not None
    assert found.language_probability > 0.8


def test_drafts_and_given_languages_have_no_rivals() -> None:
    decoder = Decoder()
    draft = reading("zh", CHINESE, -1.5, 0.7, draft=True)
    assert settle(decoder, draft, ("en", 0.2)) is draft
    given = reading("zh", CHINESE, -1.5, None)
    assert settle(decoder, given) is given
    assert decoder.batches == []


def test_rivals_are_charged() -> None:
    budget = RedecodingBudget(5.0, 8)
    own = reading("zh", CHINESE, -1.5, 0.7)
    language = Language("zh", 0.7, (("en", 0.2),))
    settled(Decoder(en=decoded(ENGLISH, -0.3)), own, language, budget)
    assert budget.spent > 0


def test_own_probability_counts() -> None:
    own = reading("zh", CHINESE, -0.5, 0.8)
    other = reading("en", ENGLISH, -0.5, 0.1)
    assert best_reading(own, [other]).language_probability == pytest.approx(0.8 / 0.9, abs=0.02)
    assert best_reading(own, [replace(other, language_probability=0.2)]).language_probability == pytest.approx(0.8)
