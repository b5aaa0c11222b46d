"""buildscripts/bench languages: choice of recordings and pairs, counts, and a small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from buildscripts.lib.bench import languages as bench_languages
from buildscripts.lib.bench.language_report import (
    Detection,
    Joined,
    beginnings,
    detection_table,
    joined_result,
    mixed_pairs,
    pair_clip,
    pairs_line,
    same_line,
    same_pairs,
    wrong_lines,
)
from buildscripts.lib.load.corpus import Clip, words_kept
from stt_server.engine import language, language_choice
from stt_server.engine.language import UNSURE_LANGUAGE
from stt_server.testing.paths import MODELS, SAMPLES


def a_clip(name: str, language: str = "en", seconds: float = 3.0) -> Clip:
    return Clip(name, language, name, seconds, True, lambda: np.ones(round(seconds * 16000), dtype=np.float32))


def a_detection(name: str, reference: str, found: str, probability: float | None = 0.5) -> Detection:
    return Detection(name, reference, found, probability, "text")


def a_joined(references: tuple[str, str], found: tuple[str, ...], kept: int = 2, words: int = 4) -> Joined:
    return Joined(("a", "b"), references, found, kept, words, "text")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "expected"),
    [
        ("A red, quick fox", "a quick fox ran", "en", (3, 4)),
        ("eins zwei", "", "de", (0, 2)),
        ("你好世界", "你好 world 界", "zh", (3, 4)),
        ("hello 你好", "Hello! 你好", "", (2, 2)),
    ],
)
def test_kept_words_are_those_of_the_reference_in_order(
    reference: str, hypothesis: str, language: str, expected: tuple[int, int]
) -> None:
    assert words_kept(reference, hypothesis, language) == expected


def test_beginnings_are_of_recordings_that_last_longer() -> None:
    found = beginnings([a_clip("short", seconds=3.9), a_clip("long", seconds=4.0)], 2.5)
    assert [(clip.name, clip.seconds, len(clip.samples)) for clip in found] == [("long", 2.5, 40_000)]


def test_mixed_pairs_are_in_different_languages_and_the_same_for_a_seed() -> None:
    clips = [a_clip(f"{code}{n}", code) for code in ("en", "de", "fr") for n in range(3)]
    clips += [a_clip("too-short", "it", 1.9), a_clip("too-long", "it", 6.1)]
    pairs = mixed_pairs(clips, 50, 1)
    assert len(pairs) == 50
    assert all(first.language != second.language for first, second in pairs)
    assert {clip.language for pair in pairs for clip in pair} == {"en", "de", "fr"}
    assert pairs == mixed_pairs(clips, 50, 1) != mixed_pairs(clips, 50, 2)
    assert mixed_pairs(clips[:3], 50, 1) == []


def test_same_pairs_are_in_one_language_and_bounded_in_each() -> None:
    clips = [a_clip(f"en{n}") for n in range(5)] + [a_clip("de0", "de"), a_clip("de1", "de"), a_clip("fr0", "fr")]
    pairs = same_pairs(clips, 6, 1)
    languages = [first.language for first, second in pairs if first.language == second.language]
    assert languages == ["de"] * 2 + ["en"] * 6
    assert len({(first.name, second.name) for first, second in pairs}) == 8
    assert all(first is not second for first, second in pairs)


def test_pair_has_a_second_of_silence_between_its_recordings() -> None:
    samples = pair_clip((a_clip("a", seconds=2.0), a_clip("b", "de", 3.0))).samples
    assert np.flatnonzero(np.diff(samples)).tolist() == [2 * 16000 - 1, 3 * 16000 - 1, 6 * 16000 - 1]


def test_pair_is_cut_if_its_segments_have_several_languages() -> None:
    pair = (a_clip("a"), a_clip("b", "zh"))
    cut = joined_result(pair, ("ab", "你好"), ("en", "zh", "zh"), "ab 你")
    assert (cut.cut, cut.right, cut.kept, cut.words) == (True, True, 3, 4)
    wrong = joined_result(pair, ("ab", "你好"), ("en", "ko"), "ab")
    assert (wrong.cut, wrong.right) == (True, False)
    whole = joined_result(pair, ("ab", "你好"), ("en",), "ab")
    assert (whole.cut, whole.right) == (False, False)


def test_report_counts_what_is_wrong_cut_and_kept() -> None:
    whole = [a_detection("a", "en", "en"), a_detection("b", "en", "zh"), a_detection("c", "de", "", None)]
    starts = [a_detection("b", "en", "en")]
    out = Console(width=100)
    with out.capture() as printed:
        out.print(detection_table(whole, starts, 2.5))
    rows = {line.split()[1]: line.split()[3::2] for line in printed.get().splitlines() if line.startswith("│")}
    assert rows == {
        "de": ["1", "1", "100%", "0", "0", "│"],
        "en": ["2", "1", "50%", "1", "0", "0%"],
        "all": ["3", "2", "67%", "1", "0", "0%"],
    }
    assert wrong_lines(whole, [a_detection("b", "en", "fr")]) == [
        "b: en found as zh (0.50)",
        "c: de found as no speech",
        "b, beginning: en found as fr (0.50)",
    ]
    pairs = [
        a_joined(("en", "de"), ("en", "de"), 4, 4),
        a_joined(("en", "de"), ("en", "fr")),
        a_joined(("en", "de"), ()),
    ]
    assert pairs_line(pairs) == (
        "3 pairs of sentences in different languages, 1 s apart: 2 are cut, 1 between the two languages; "
        "8 of 12 words (67%) of each alone are kept"
    )
    same = [a_joined(("en", "en"), ("en", "zh")), a_joined(("de", "de"), ("de", "de"))]
    assert same_line(same) == "2 chunks of two sentences in one language, 2 languages: 1 are cut"


def test_constants_are_changed_in_all_modules_of_the_engine_for_the_run() -> None:
    before = UNSURE_LANGUAGE
    values = [("UNSURE_LANGUAGE", "0.25"), ("MOST_RIVALS", "1")]
    with bench_languages.constants(values):
        assert [vars(module)["UNSURE_LANGUAGE"] for module in (language, language_choice)] == [0.25, 0.25]
        assert language.MOST_RIVALS == 1
    assert [vars(module)["UNSURE_LANGUAGE"] for module in (language, language_choice)] == [before, before]


@pytest.mark.parametrize(("name", "value", "problem"), [("NONE", "1", "has no NONE"), ("MOST_RIVALS", "x", "can't be")])
def test_unknown_constant_and_invalid_value_are_named(
    name: str, value: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_languages.main(["--constant", f"{name}={value}"]) == 1
    assert problem in capsys.readouterr().err


@pytest.mark.model
def test_bench_languages_recognizes_each_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", str(MODELS / "whisper-base-ct2"), "--corpus", str(SAMPLES), "--languages", "en,fr"]
    results = tmp_path / "results.json"
    assert bench_languages.main([*argv, "--beginning", "1", "--pairs", "1", "--same", "1", "--json", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "1 pairs of sentences in different languages" in printed
    found = json.loads(results.read_text())
    assert {each["reference"] for each in found["recordings"]} == {"en", "fr"}
    assert len(found["beginnings"]) >= 1
    assert [set(pair["references"]) for pair in found["pairs"]] == [{"en", "fr"}]
    assert found["pairs"][0]["words"] > 0
