"""`buildscripts/bench cascade`: arithmetic on synthetic clips, and the command on real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from buildscripts.lib.bench.cascade import outcomes_of
from buildscripts.lib.bench.cascade_clips import Answer, Pair, Part, degrade, pairs_of
from buildscripts.lib.bench.cascade_curve import (
    ALWAYS,
    Outcome,
    at,
    chance,
    curve,
    for_share,
    for_wer,
    gain,
    halves,
    oracle,
    thresholds,
)
from buildscripts.lib.bench.plots import plot_cascade
from buildscripts.lib.load.corpus import Clip
from stt_server.engine.types import Samples
from stt_server.testing.paths import ROOT


def clip(score: float, small: int, large: int, keeps_small: bool = False, source: str = "") -> Outcome:
    return Outcome(source or f"clip {score}", 10, small, large, 1.0, 3.0, score, keeps_small)


FOUR = [clip(0.3, 4, 1), clip(0.5, 2, 2), clip(0.7, 1, 3, keeps_small=True), clip(0.9, 1, 0)]
"""Ten words each: the small model makes 8 errors of 40, the large one 6, the better of both 4."""


def test_threshold_sends_scores_below_it() -> None:
    found = at(FOUR, 0.5)
    assert (found.share, found.wer, found.seconds) == (0.25, 5 / 40, 4 * 1.0 + 3.0)


def test_curve_spans_from_no_clips_to_all() -> None:
    points = curve(FOUR)
    assert [p.share for p in points] == [0, 0.25, 0.5, 0.75, 1]
    assert [round(p.wer * 40) for p in points] == [8, 5, 5, 7, 6]
    assert [p.seconds for p in points] == [4, 7, 10, 13, 16]


def test_best_keeps_better_founded_text_of_the_small_model() -> None:
    assert [round(p.wer * 40) for p in curve(FOUR, best=True)] == [8, 5, 5, 5, 4]


def test_other_checks_apply_at_threshold_zero() -> None:
    assert at([*FOUR, clip(ALWAYS, 5, 0)], 0.0).share == 0.2
    assert at(FOUR, 0.0).share == 0


def test_thresholds_separate_scores_with_few_decimals() -> None:
    assert thresholds([0.3, 0.5, 0.5, ALWAYS]) == [0.0, 0.4, 0.51]
    assert thresholds([0.551, 0.554]) == [0.0, 0.552, 0.56]
    assert thresholds([ALWAYS]) == [0.0]


def test_every_threshold_separates_adjacent_scores() -> None:
    scores = sorted(np.random.default_rng(1).random(500).tolist())
    for rank, threshold in enumerate(thresholds(scores)):
        assert sum(score < threshold for score in scores) == rank


def test_chance_interpolates_between_both_models() -> None:
    half = chance(FOUR, 0.5)
    assert (round(half.wer * 40, 6), half.seconds) == (7, 10)
    assert round(chance(FOUR, 1.0, best=True).wer * 40, 6) == 4


def test_oracle_sends_only_clips_that_improve() -> None:
    assert [round(oracle(FOUR, share).wer * 40) for share in (0, 0.25, 0.5, 1)] == [8, 5, 4, 4]
    assert oracle(FOUR, 1.0).share == 0.5


def test_gain_is_relative_to_the_large_model_on_all_clips() -> None:
    assert gain(FOUR, at(FOUR, 0.5)) == pytest.approx(1.5)
    assert gain(FOUR, at(FOUR, 0.0)) == 0
    useless = [clip(0.5, 1, 1)]
    assert gain(useless, at(useless, 0.9)) is None


def test_threshold_for_a_share_and_for_an_error_rate() -> None:
    share = for_share(FOUR, 0.6)
    assert (share.threshold, share.share) == (0.6, 0.5)
    reached = for_wer(FOUR, 5 / 40)
    assert reached is not None and (reached.threshold, reached.share) == (0.4, 0.25)
    assert for_wer(FOUR, 0.01) is None


def test_share_exceeded_by_other_checks_gets_threshold_zero() -> None:
    assert for_share([clip(ALWAYS, 1, 0), clip(0.5, 1, 0)], 0.25).threshold == 0.0


def test_halves_evaluate_thresholds_on_unseen_clips() -> None:
    # Low scores mean errors that the large model mends, in any half: all of the gain comes from a quarter of the clips.
    clips = [clip(0.2 + n / 1000, 4, 0) for n in range(50)] + [clip(0.8 + n / 1000, 1, 1) for n in range(150)]
    found = halves(clips, 0.25)
    assert found.share == pytest.approx(0.25, abs=0.03)
    assert found.gain == pytest.approx(0.95, abs=0.06)
    assert found.gain_quartiles is not None and 0.8 < found.gain_quartiles[0] <= found.gain_quartiles[1] <= 1
    assert halves(clips, 0.25) == found


def test_copies_of_a_recording_stay_on_one_side_of_a_split() -> None:
    # One recording in 20 copies, and one in one copy: whichever is known, the other alone is judged, so that the error
    # rate over the rounds takes two values only, 0.1 and 0.3, whose mean and spread belong together.
    clips = [clip(0.5, 1, 0, source="a")] * 20 + [clip(0.5, 3, 0, source="b")]
    found = halves(clips, 0.0, rounds=8)
    assert found.wer_spread**2 == pytest.approx((0.3 - found.wer) * (found.wer - 0.1))
    assert 0.1 < found.wer < 0.3


def answer(text: str, logprob: float, looped: bool = False) -> Answer:
    part = Part(text, [logprob] * len(text.split()), looped, None, 0.0, 1.0, 1.0, 1.0)
    return Answer(1.0, [part])


def test_outcomes_use_the_services_decision() -> None:
    said = "one two three four"
    pair = Pair("a", "plain", "de", said, 2.0, answer("one two tree four", -0.5), answer(said, -0.7))
    short = replace(pair, small=answer("one", -0.1))
    loop = replace(pair, large=answer("one one", -0.01, looped=True))
    plain, few, looped = outcomes_of([pair, short, loop], "mean", min_words=3)
    assert (plain.words, plain.small_errors, plain.large_errors) == (4, 1, 0)
    assert plain.score == pytest.approx(np.exp(-0.5)) and plain.keeps_small
    assert few.score == ALWAYS
    assert looped.keeps_small
    (combined,) = outcomes_of([pair], "combined", min_words=3)
    assert combined.score == pytest.approx(np.exp(-0.5 * np.sqrt(4 / 12)))


def test_noise_has_its_level_and_is_reproducible() -> None:
    tone = np.sin(np.arange(16000) * 0.1).astype(np.float32) * 0.1
    noisy = degrade(tone, "noise")
    assert 10 * np.log10(np.mean(tone**2) / np.mean((noisy - tone) ** 2)) == pytest.approx(12, abs=0.1)
    assert np.array_equal(noisy, degrade(tone, "noise"))
    assert degrade(tone, "plain") is tone


def test_telephone_removes_bass() -> None:
    time = np.arange(16000) / 16000
    bass, voice = (np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (100, 1000))
    assert np.abs(degrade(bass + voice, "telephone") - voice).max() < 1e-3


def test_cached_answers_are_not_computed_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(language: str, samples: Samples) -> tuple[Answer, Answer]:
        asked.append(language)
        return answer("ja", -0.1), answer("ja, gut", -0.2)

    def run(clips: list[Clip], model: str) -> list[Pair]:
        return pairs_of(clips, ["plain"], ask, tmp_path / "cache.json", {"small": model}, lambda line: None)

    def of(language: str, text: str = "ja") -> Clip:
        return Clip("same name", language, text, 1.0, True, lambda: np.zeros(16000, dtype=np.float32))

    first = run([of("de")], "tiny")
    assert run([of("de"), of("nl")], "tiny")[0] == first[0] and asked == ["de", "nl"]
    run([of("de", "nein")], "tiny")
    assert asked == ["de", "nl", "de"]
    run([of("nl")], "base")
    assert asked == ["de", "nl", "de", "nl"]


def test_plot_is_a_png_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_cascade({"mean": FOUR, "combined": FOUR}, tmp_path / "curve.png", "made up")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.model
def test_bench_cascade_recommends_a_threshold(tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    command = [str(ROOT / "buildscripts/bench"), "cascade", "--language", "en", "--cache", str(cache), "--share", "0.5"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONF_LOGPROB_THRESHOLD=" in done.stdout and "ROUTING_SIGNAL=" in done.stdout
    pairs = json.loads(cache.read_text(encoding="utf-8"))["pairs"]
    assert {pair["name"] for pair in pairs} == {"hello_world", "counting", "quick_brown_fox"}
    assert all(pair["large"]["parts"] for pair in pairs)
