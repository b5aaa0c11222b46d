"""Full stops and first letters of texts, with a scripted aligner."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from stt_server.engine.generation import Decoded, DecoderInput
from stt_server.engine.language_choice import Reading
from stt_server.engine.queue import Priority
from stt_server.engine.recording import recognize_chunks
from stt_server.engine.sentence_edges import SentenceEdges, capitalized, marks_of
from stt_server.engine.tokens import TimedTokens
from stt_server.engine.types import ChunkJob, DecodeOptions, Word
from tests.support.chunks import chunk

DOUBT, SURE = math.log(0.4), math.log(0.9)


class Characters:
    """A tokenizer with one token for each word with the space before it, and one for each mark."""

    def __init__(self, language: str = "en") -> None:
        self.language_code = language
        self._known: list[str] = []

    def encode(self, text: str) -> list[int]:
        parts = [f" {part}" for part in text.split()] if text.startswith(" ") else [text]
        self._known += [part for part in parts if part not in self._known]
        return [self._known.index(part) for part in parts]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._known[token] for token in tokens)


class Aligner:
    """Gives tokens the probabilities of a script by their text, 0.01 to others; records the texts."""

    def __init__(self, **probabilities: float) -> None:
        self.probabilities: Mapping[str, float] = probabilities
        self.texts: list[list[str]] = []

    def aligned_logprobs(self, batch: Sequence[DecoderInput], texts: Sequence[list[int]]) -> list[list[float]]:
        assert len(batch) == len(texts)
        found = [[item.tokenizer.decode([token]) for token in text] for item, text in zip(batch, texts)]
        self.texts.append(["".join(tokens) for tokens in found])
        return [[math.log(self.probabilities.get(token, 0.01)) for token in tokens] for tokens in found]


def reading(text: str, *, end: float = 3.0, logprob: float = DOUBT, language: str = "en", **options: Any) -> Reading:
    """A text of one segment, with a word for each token."""
    tokenizer: Any = Characters(language)
    tokens = tuple(tokenizer.encode(text)) if text else ()
    segments = [TimedTokens(0.0, end, tokens)] if text else []
    words = [[Word(i, i + 1.0, tokenizer.decode([token]), 0.9) for i, token in enumerate(tokens)]] if text else []
    prompt = options.pop("prompt", "")
    job = ChunkJob(options.pop("chunk", chunk()), DecodeOptions(language, prompt=prompt), **options)
    item: Any = DecoderInput(None, tokenizer, (), True)  # type: ignore[arg-type]
    return Reading(job, item, Decoded(segments, [[logprob] * len(tokens)] if text else [], words, 0.01, text), None)


def completed(aligner: Aligner, *readings: Reading) -> list[str]:
    return [own.decoded.text for own in SentenceEdges(aligner).completed(readings)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ({".": 0.51}, " The fox runs."),
        ({".": 0.49}, " The fox runs"),
        ({".": 0.1, "?": 0.8}, " The fox runs?"),
        ({".": 0.45, "?": 0.45}, " The fox runs"),
    ],
)
def test_probable_mark_ends_a_text(probabilities: dict[str, float], expected: str) -> None:
    assert completed(Aligner(**probabilities), reading(" The fox runs")) == [expected]


def test_mark_belongs_to_the_last_segment_and_word() -> None:
    (found,) = SentenceEdges(Aligner(**{".": 0.8})).completed([reading(" The fox runs")])  # type: ignore[arg-type]
    decoded = found.decoded
    assert [word.text for own in decoded.words for word in own] == [" The", " fox", " runs."]
    assert found.input.tokenizer.decode(list(decoded.segments[-1].tokens)) == " The fox runs."
    assert decoded.end == 3.0
    assert decoded.token_logprobs == pytest.approx([DOUBT] * 3 + [math.log(0.8)])


@pytest.mark.parametrize("text", ["", " The fox runs.", " The fox runs,", " The fox runs...", ' "The fox runs"'])
def test_text_without_a_last_word_is_not_tried(text: str) -> None:
    aligner = Aligner(**{".": 0.9})
    assert completed(aligner, reading(text)) == [text]
    assert not any(aligner.texts)


@pytest.mark.parametrize(
    "options",
    [{"draft": True}, {"prompt": "no punctuation please"}, {"end": 1.0}],
    ids=["draft", "prompt", "decoded again, since it stops early"],
)
def test_texts_that_are_not_final_or_in_a_given_style_stay(options: dict[str, Any]) -> None:
    aligner = Aligner(**{".": 0.9, " The": 0.9})
    assert completed(aligner, reading(" the fox runs", begins=True, **options)) == [" the fox runs"]
    assert not any(aligner.texts)


def test_texts_share_one_pass_for_each_mark() -> None:
    aligner = Aligner(**{".": 0.2})
    completed(aligner, reading(" One fox"), reading(" Two foxes."), reading(" Three foxes"))
    assert aligner.texts[:2] == [[" One fox.", " Three foxes."], [" One fox?", " Three foxes?"]]


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        (" The fox", (".", "?")),
        ("狐が走る", ("。", "？")),
        ("ハシル", ("。", "？")),
        (" in 1813", (".", "?")),
        ("18", (".", "?")),
        (" लोमड़ी", ("।", "?")),
        (" الثعلب", (".", "؟")),
        ("จิ้งจอก", ()),
    ],
)
def test_marks_are_those_of_the_script(text: str, marks: tuple[str, ...]) -> None:
    assert marks_of(text) == marks


@pytest.mark.parametrize(
    ("upper", "expected"), [(0.34, " The fox runs."), (0.32, " the fox runs.")], ids=["a third", "less"]
)
def test_capital_is_preferred_if_probable_too(upper: float, expected: str) -> None:
    aligner = Aligner(**{" The": upper})
    assert completed(aligner, reading(" the fox runs.", begins=True)) == [expected]
    assert aligner.texts[-1] == [" The"], "the rest says nothing about it"


def test_capital_changes_nothing_but_the_first_word() -> None:
    before = reading(" the fox runs.", begins=True)
    (found,) = SentenceEdges(Aligner(**{" the": 0.4, " The": 0.4})).completed([before])  # type: ignore[arg-type]
    assert [word.text for own in found.decoded.words for word in own] == [" The", " fox", " runs."]
    assert found.decoded.segments[0].tokens[1:] == before.decoded.segments[0].tokens[1:]
    assert found.input.tokenizer.decode(list(found.decoded.segments[0].tokens)) == " The fox runs."
    assert found.decoded.token_logprobs == pytest.approx(before.decoded.token_logprobs)


def test_word_of_several_tokens_is_replaced_and_later_tokens_stay() -> None:
    own = reading(" the fox runs.", begins=True)
    tokenizer = own.input.tokenizer
    tokens = tuple(token for part in (" t", "he", " f", "ox", " runs.") for token in tokenizer.encode(part))
    segments, logprobs = [TimedTokens(0.0, 3.0, tokens)], [[DOUBT] * 5]
    own = replace(own, decoded=replace(own.decoded, segments=segments, logprobs=logprobs))
    aligner = Aligner(**{" The": 0.4})
    (found,) = SentenceEdges(aligner).completed([own])  # type: ignore[arg-type]
    assert found.decoded.text == " The fox runs."
    assert found.decoded.segments[0].tokens == (*tokenizer.encode(" The"), *tokens[2:])
    assert found.decoded.token_logprobs == pytest.approx([2 * DOUBT, DOUBT, DOUBT, DOUBT])


@pytest.mark.parametrize(
    "options", [{}, {"begins": True, "logprob": SURE}], ids=["may continue a sentence", "the model is sure of it"]
)
def test_lower_case_stays(options: dict[str, Any]) -> None:
    aligner = Aligner(**{" the": 0.4, " The": 0.9})
    assert completed(aligner, reading(" the fox runs.", **options)) == [" the fox runs."]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (" the fox", "en", " The fox"),
        (" The fox", "en", " The fox"),
        (" ¿qué zorro?", "es", " ¿Qué zorro?"),
        (" 3 foxes", "en", " 3 foxes"),
        (" iki tilki", "tr", " İki tilki"),
        (" ιδού", "el", " Ιδού"),
        ("狐", "zh", "狐"),
        (" მელა", "ka", " მელა"),
        (" ßa", "de", " ßa"),
        ("", "en", ""),
    ],
)
def test_first_letter_in_upper_case(text: str, language: str, expected: str) -> None:
    assert capitalized(text, language) == expected


class Batcher:
    """Records jobs."""

    def __init__(self) -> None:
        self.jobs: list[ChunkJob] = []

    async def recognize(self, job: ChunkJob, *_: object) -> None:
        self.jobs.append(job)


@pytest.mark.parametrize(
    ("context", "begin"),
    [
        ("", [True, False]),
        ("It ran.", [True, False]),
        ("He said “no.” ", [True, False]),
        ("It ran and", [False, False]),
    ],
)
def test_only_a_first_chunk_that_continues_no_sentence_begins(context: str, begin: list[bool]) -> None:
    batcher, options = Batcher(), DecodeOptions("en", context=context)
    run = recognize_chunks(batcher, [chunk(), chunk(start=9.0)], options, None, Priority.ANSWER, detect_language=False)  # type: ignore[arg-type]
    asyncio.run(run)
    assert [job.begins for job in batcher.jobs] == begin
