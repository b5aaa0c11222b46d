"""buildscripts/bench: evaluation of measurements, and a small run of each benchmark."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from buildscripts.lib.bench import engine as bench_engine
from buildscripts.lib.bench import profile as bench_profile
from buildscripts.lib.bench import service as bench_service
from buildscripts.lib.bench.mixes import choose
from buildscripts.lib.bench.report import Spread, accuracy, ratios
from buildscripts.lib.load.closed_loop import Measurement, Recording, drive
from buildscripts.lib.load.corpus import Clip, CorpusError, joined, load, word_errors, words_lost
from stt_server.testing.load import percentile
from stt_server.testing.paths import MODELS, SAMPLES

TINY = str(MODELS / "whisper-tiny.en-ct2")


def a_clip(name: str, seconds: float, language: str = "en", text: str = "one two") -> Clip:
    return Clip(name, language, text, seconds, True, lambda: np.zeros(int(seconds * 16000), dtype=np.float32))


def a_recording(text: str, language: str = "en", strict: bool = True) -> Recording:
    return Recording("a", language, text, strict, bytes(2 * 16000))


def a_measurement(contender: str, round: int, wall: float, callers: int = 1) -> Measurement:
    return Measurement(contender, callers, round, 10.0, wall, (wall,), ("",))


def write_wav(path: Path, seconds: float) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * int(seconds * 8000)))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "expected"),
    [
        ("It's twenty-one, colour!", "it is 21 color", "en", (0, 4)),
        ("one two three", "one three three four", "de", (2, 3)),
        ("the red fox", "", "en", (3, 3)),
        ("", "so much made up", "fr", (4, 0)),
        ("", "", "en", (0, 0)),
        ("你好，世界", "你 好 世 届", "zh", (1, 4)),
    ],
)
def test_errors_are_counted_in_words_or_characters(
    reference: str, hypothesis: str, language: str, expected: tuple[int, int]
) -> None:
    assert word_errors(reference, hypothesis, language) == expected


@pytest.mark.parametrize(
    ("hypothesis", "language", "expected"),
    [("the fox", "de", 2), ("the red box runs away", "de", 0), ("", "de", 4), ("The fox runs.", "en", 1)],
)
def test_lost_words_are_those_that_the_text_omits(hypothesis: str, language: str, expected: int) -> None:
    assert words_lost("the red fox runs", hypothesis, language) == expected


def test_manifest_keeps_order_and_decodes_on_demand(tmp_path: Path) -> None:
    write_wav(tmp_path / "b.wav", 1.0)
    (tmp_path / "a.wav").write_bytes(b"not audio")
    entries = [
        {"file": "b.wav", "language": "de", "text": "ja", "seconds": 1.0, "strict": False, "source": "somewhere"},
        {"file": "a.wav", "language": "en", "text": "yes", "seconds": 2.0},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    first, second = load(tmp_path)
    assert (first.name, first.language, first.text, first.strict, second.strict) == ("b", "de", "ja", False, True)
    assert len(first.samples) == 16000
    assert first.samples is first.samples


def test_folder_without_manifest_uses_wav_and_txt_files(tmp_path: Path) -> None:
    write_wav(tmp_path / "fr" / "oui.wav", 1.5)
    write_wav(tmp_path / "fr" / "silent.wav", 1.0)
    (tmp_path / "fr" / "oui.txt").write_text("oui\n")
    (clip,) = load(tmp_path)
    assert (clip.name, clip.language, clip.text, clip.seconds) == ("oui", "fr", "oui", 1.5)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"file": "a.wav"}', '{"file": "none.wav", "language": "en", "text": "", "seconds": 1}']
)
def test_invalid_manifest_is_refused_with_the_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(CorpusError, match="line 2"):
        load(tmp_path)
    with pytest.raises(CorpusError, match="is no corpus"):
        load(tmp_path / "nowhere")


def test_joined_clips_are_separated_by_pauses() -> None:
    long = joined("long", [a_clip("a", 1.0, text="a"), a_clip("b", 2.0, text="b")], pause=0.5)
    assert (long.text, long.seconds, len(long.samples)) == ("a b", 4.0, 64000)


def test_mixes_have_the_documented_lengths() -> None:
    clips = [a_clip("s", 4.0), a_clip("t", 6.0, "de"), a_clip("m", 12.0), a_clip("l", 70.0)]
    assert {clip.name for clip in choose(clips, "short", 4)} == {"s", "t"}
    middle = choose(clips, "middle", 5)
    assert middle[0].name == "m"
    assert all(10 <= clip.seconds < 32 for clip in middle)
    long = choose(clips, "long", 3)
    assert long[0].name == "l"
    assert all(60 <= clip.seconds < 180 for clip in long)
    lengths = [clip.seconds for clip in choose(clips, "mix", 8)]
    assert [sum(seconds < 10 for seconds in lengths), sum(seconds >= 60 for seconds in lengths)] == [5, 1]
    assert [clip.name for clip in choose(clips, "mix", 8)] == [clip.name for clip in choose(clips, "mix", 8)]
    with pytest.raises(CorpusError):
        choose([a_clip("l", 70.0)], "mix", 1)
    assert choose(clips, "all", 1) == clips


def test_percentile_uses_the_nearest_rank() -> None:
    values = [float(value) for value in range(20, 0, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 10.0, 19.0, 20.0]
    assert percentile([3.0], 0.95) == 3.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_ratios_are_computed_per_round() -> None:
    # The machine is ten times slower in the second round, for both: the ratio doesn't move.
    walls = [("ours", 1, 1.0), ("theirs", 1, 4.0), ("ours", 2, 10.0), ("theirs", 2, 40.0), ("ours", 3, 1.0)]
    measurements = [a_measurement(*one) for one in walls] + [a_measurement("theirs", 3, 9.0, callers=2)]
    assert ratios(measurements, "ours", "theirs", 1, lambda m: m.throughput) == Spread(4.0, 4.0, 4.0)
    assert ratios(measurements, "ours", "theirs", 1, lambda m: m.wall) == Spread(0.25, 0.25, 0.25)
    again = [*measurements, a_measurement("ours", 2, 30.0)]
    assert ratios(again, "ours", "theirs", 1, lambda m: m.wall) == Spread(0.375, 0.25, 0.5), "the mean of 10 and 30"
    with pytest.raises(ValueError, match="no median"):
        ratios(measurements, "ours", "theirs", 2, lambda m: m.wall)


def test_spread_formats_median_and_extremes() -> None:
    assert f"{Spread.of([3.0, 1.0, 2.0]):.1f}" == "2.0 (1.0 to 3.0)"
    assert f"{Spread.of([2.0]):.1f}" == "2.0"
    assert bench_service.as_percent(Spread(1.5, 0.5, 2.0)) == Spread(50.0, -50.0, 100.0)


def test_accuracy_counts_strict_clips_and_defective_texts() -> None:
    recordings = [a_recording("the red fox runs"), a_recording("eins", "de"), a_recording("five", strict=False)]
    loop = "the red fox runs " * 8
    found = accuracy(recordings, [("the red", "eins", "x"), (loop, "zwei", "x")], lambda language: language == "en")
    assert (found.errors, found.words, found.looped, found.cut_short) == (2 + 28, 8, 1, 1)
    assert (found.lost, found.lost_rate) == (2, 0.25)
    assert accuracy([], [], lambda _: True).rate is None


async def test_closed_loop_keeps_the_number_of_callers() -> None:
    running, most = 0, 0
    turn = asyncio.Event()

    async def transcribe(recording: Recording) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            turn.set()
        await turn.wait()
        running -= 1
        return recording.text

    recordings = [a_recording(str(number)) for number in range(7)]
    found = await drive("it", transcribe, recordings, 3)
    assert most == 3
    assert found.texts == tuple("0123456")
    assert (found.audio, len(found.latencies)) == (3.5 * 2, 7)
    assert found.cpu is not None
    assert all(0 < latency <= found.wall for latency in found.latencies)
    assert found.throughput == pytest.approx(7 / found.wall)


def test_contenders_take_turns_in_going_first() -> None:
    plan = list(bench_engine.turns(("a", "b", "c"), (1, 8), 3))
    assert len(plan) == 18
    assert [name for _, _, name in plan[::3]] == ["a", "b", "b", "c", "c", "a"]
    assert sorted(plan[:3]) == [(1, 1, "a"), (1, 1, "b"), (1, 1, "c")]
    names = [name for _, _, name in bench_engine.turns(("ours", "a", "b"), (1,), 2, quick=("ours",))]
    assert names == ["ours", "a", "ours", "b", "ours", "b", "ours", "a"]
    assert [name for _, _, name in bench_engine.turns(("ours",), (1,), 2, quick=("ours",))] == ["ours", "ours"]


def test_forced_contenders_are_compared_with_ours_forced() -> None:
    compared = bench_engine.compared_with(("ours", "ours-forced", "defaults", "best"))
    assert [compared(name) for name in ("defaults", "best", "ours", "ours-forced")] == [
        "ours",
        "ours-forced",
        None,
        None,
    ]
    assert bench_engine.compared_with(("ours", "best"))("best") == "ours"
    assert bench_engine.compared_with(("best", "defaults"))("best") is None


@pytest.mark.parametrize("wrong", [["--callers", "0"], ["--contenders", "mine"], ["--model", "none"], ["--set", "A"]])
def test_invalid_arguments_print_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench_engine.arguments(["--model", TINY, *wrong] if "--model" not in wrong else wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_model_is_a_name_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    assert bench_engine.model_folder(str(tmp_path)) == tmp_path
    with pytest.raises(argparse.ArgumentTypeError, match="buildscripts/models"):
        bench_engine.model_folder("huge")


def test_processor_time_of_a_process() -> None:
    before = bench_service.processor_seconds(os.getpid())
    assert before is not None
    assert before > 0
    assert bench_service.processor_seconds(2**22 + 1) is None


def test_plot_is_a_png_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from buildscripts.lib.bench.plots import plot_speed

    found = [a_measurement(name, 1, wall, callers) for name, wall in (("ours", 1), ("best", 4)) for callers in (1, 8)]
    plot_speed([*found, replace(found[0], round=2)], ("ours",), "title", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.model
def test_bench_engine_compares_with_faster_whisper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", TINY, "--corpus", str(SAMPLES), "--callers", "2", "--rounds", "2", "--clips", "2"]
    out = tmp_path / "out.json"
    assert bench_engine.main([*argv, "--contenders", "ours,handbook", "--json", str(out)]) == 0
    output = capsys.readouterr().out
    assert output.startswith("$ buildscripts/bench engine --model")
    assert "ours / handbook" in output
    found = json.loads(out.read_text())
    assert [(m["contender"], m["round"]) for m in found["measurements"]] == [
        ("ours", 1),
        ("ours", 2),
        ("handbook", 1),
        ("handbook", 2),
    ]
    assert all(all(m["texts"]) and m["wall"] > 0 for m in found["measurements"])
    assert {clip["language"] for clip in found["clips"]} == {"en"}, "an English-only model is given English"


@pytest.mark.model
def test_bench_service_compares_with_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", TINY, "--corpus", str(SAMPLES), "--callers", "2", "--rounds", "1", "--clips", "2"]
    out = tmp_path / "out.json"
    assert bench_service.main([*argv, "--language", "forced", "--json", str(out)]) == 0
    assert "cost, processor %" in capsys.readouterr().out
    found = json.loads(out.read_text())["measurements"]
    assert [m["contender"] for m in found] == ["engine", "grpc", "rest", "openai"]
    assert all(all(m["texts"]) for m in found)
    assert all(m["texts"] == found[0]["texts"] for m in found)
    assert all(m["cpu"] > 0 for m in found)


def test_profile_has_every_stage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--corpus", str(SAMPLES), "--model", TINY, "--languages", "en", "--clips", "2", "--rounds", "1"]
    assert bench_profile.main(arguments) == 0
    printed = capsys.readouterr().out
    for stage in ("decoding audio", "voice activity", "features", "encoder", "decoder"):
        assert stage in printed
