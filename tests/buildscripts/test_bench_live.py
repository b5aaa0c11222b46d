"""buildscripts/bench live: recordings, evaluation of events, and a small run."""

from __future__ import annotations

import json
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from buildscripts.lib.bench import live as bench_live
from buildscripts.lib.bench import live_load as bench_live_load
from buildscripts.lib.bench.live_load import (
    PAUSES_S,
    Latencies,
    LiveRecording,
    Trace,
    _Utterance,
    latencies,
    live_recordings,
    spoken,
)
from buildscripts.lib.bench.live_report import LiveMeasurement, cost_lines, error_rate, greatest
from buildscripts.lib.bench.plots import plot_live
from buildscripts.lib.load.closed_loop import Recording
from buildscripts.lib.load.corpus import Clip, CorpusError, load
from stt_server.testing.paths import MODELS, SAMPLES

TINY = str(MODELS / "whisper-tiny.en-ct2")


def a_measurement(
    streams: int, finals: list[float | None], round: int = 1, way: str = "grpc", cpu: float = 5.0
) -> LiveMeasurement:
    trace = Trace(tuple(Latencies(0.5, final) for final in finals), "one two", 0.1, 0)
    return LiveMeasurement(way, streams, round, (trace,) * streams, 10.0, cpu, 0.5, 7, 2)


@pytest.fixture(scope="module")
def english() -> list[Clip]:
    return [clip for clip in load(SAMPLES) if clip.language == "en"]


def test_live_recordings_have_true_speech_spans(english: list[Clip]) -> None:
    first, second = live_recordings(english, 2, 12.0, 0.6)
    assert first.whole.text.split()[:3] != second.whole.text.split()[:3], "each begins with another clip"
    assert 9 <= first.whole.seconds <= 20
    for begin, end in first.speech:
        samples = first.whole.samples
        inside = samples[int(begin * 16000) : int(end * 16000)]
        assert np.abs(inside).max() > 0.05
    gaps = [later[0] - earlier[1] for earlier, later in zip(first.speech, first.speech[1:])]
    assert gaps and min(gaps) >= 0.6, "whatever is closer together is one utterance"
    assert first.whole.seconds - first.speech[-1][1] >= min(PAUSES_S), "the last one ends by itself"


def test_corpus_of_only_long_clips_is_refused() -> None:
    long = Clip("long", "en", "a", 40.0, True, lambda: np.zeros(16000, dtype=np.float32))
    with pytest.raises(CorpusError, match="26 s"):
        live_recordings([long], 1, 10.0, 0.6)


async def test_chunks_are_paced_like_speech() -> None:
    began = time.monotonic()
    sizes = []
    async for chunk in spoken(bytes(8000), began):
        sizes.append(len(chunk))
        assert time.monotonic() - began >= sum(sizes) / 32000
    assert sizes == [3200, 3200, 1600]


@pytest.mark.parametrize(
    ("started", "ended", "expected"),
    [
        (1.1, 3.2, Latencies(0.6, 1.5)),
        (1.1, 4.0, Latencies(0.6, None)),  # its end matches no known speech
        (2.0, 3.2, Latencies(None, 1.5)),
        (1.1, None, Latencies(0.6, None)),
    ],
)
def test_latencies_are_relative_to_true_speech(started: float, ended: float | None, expected: Latencies) -> None:
    utterance = _Utterance(started, ended, first_interim=1.6, final=4.5)
    found = latencies(utterance, [(1.0, 3.0), (7.0, 9.0)])
    assert found.first_interim == (None if expected.first_interim is None else pytest.approx(expected.first_interim))
    assert found.final == (None if expected.final is None else pytest.approx(expected.final))


def test_most_streams_is_the_last_before_a_failure() -> None:
    kept, missed = [1.2] * 20, [1.2] * 18 + [1.7] * 2
    assert greatest([a_measurement(1, list(kept)), a_measurement(2, list(kept))], 0.6) == 2
    assert greatest([a_measurement(1, list(kept)), a_measurement(2, list(missed))], 0.6) == 1
    assert greatest([a_measurement(1, list(missed)), a_measurement(2, list(kept))], 0.6) == 0
    assert greatest([a_measurement(1, [None])], 0.6) == 0


def test_processor_time_is_compared_by_way() -> None:
    found = cost_lines([a_measurement(2, [1.0], way=way, cpu=cpu) for way, cpu in (("a", 4.0), ("b", 4.2), ("b", 4.6))])
    assert found == ["Processor time, streams 2: b / a 2.200"]
    assert cost_lines([a_measurement(1, [1.0])]) == []


def test_error_rate_is_over_all_recordings() -> None:
    recordings = [
        LiveRecording(Recording("a", "en", text, True, b""), ()) for text in ("the red fox runs", "the end is near")
    ]
    assert error_rate(recordings, ["the red fox", "the end is near"]) == 1 / 8


def test_plot_is_a_png_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_live([a_measurement(1, [1.0]), a_measurement(4, [1.5, None])], 0.6, "title", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.model
def test_bench_live_measures_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_live_load, "PAUSES_S", (0.9,))
    argv = ["--model", TINY, "--corpus", str(SAMPLES), "--streams", "1,2", "--seconds", "5"]
    argv += ["--ways", "grpc,websocket,realtime"]
    out, wavs = tmp_path / "out.json", tmp_path / "wavs"
    assert bench_live.main([*argv, "--json", str(out), "--wav", str(wavs)]) == 0
    output = capsys.readouterr().out
    assert output.startswith("$ buildscripts/bench live --model")
    assert "Word error rate, 2 streams: finals" in output
    found = json.loads(out.read_text())
    assert [(m["streams"], m["way"]) for m in found["measurements"]] == [
        (streams, way) for streams in (1, 2) for way in ("grpc", "websocket", "realtime")
    ]
    assert "Processor time, streams 2: realtime / grpc" in output
    for measurement in found["measurements"]:
        assert measurement["cpu"] > 0
        assert measurement["interims"] > 0
        for trace in measurement["traces"]:
            assert trace["text"]
            timed = [utterance for utterance in trace["utterances"] if utterance["final"] is not None]
            assert timed, "utterances end where speech does"
            # A final can't come before the silence that ends its utterance.
            assert all(utterance["final"] > 0.5 for utterance in timed)
    with wave.open(str(wavs / "live-0.wav")) as file:
        assert file.getframerate() == 16000
    assert json.loads((wavs / "live-0.json").read_text())["speech"]
