"""Silero's network as this service runs it, against the one that faster-whisper ships."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnxruntime
import pytest
from faster_whisper.vad import get_vad_model

from stt_server.audio import SAMPLE_RATE, silero
from stt_server.audio.mono import FloatArray
from stt_server.audio.onnx_graph import Graph, read_weights
from stt_server.audio.vad import WINDOW, VoiceActivity
from stt_server.testing.audio_samples import clip, joined, silence

NO_STATE = np.zeros((1, 1, 128), dtype=np.float32)


def probabilities(session: Any, windows: FloatArray, step: int) -> FloatArray:
    """Silero's probabilities of windows with their context, `step` of them in each call."""
    found, h, c = [], NO_STATE, NO_STATE
    for at in range(0, len(windows), step):
        output, h, c = session.run(None, {"input": windows[at : at + step], "h": h, "c": c})
        found.append(output)
    return np.concatenate(found)


@pytest.fixture(scope="module")
def windows() -> FloatArray:
    """Speech in two languages, noise and silence, each window with 64 samples of context."""
    noise = np.random.default_rng(0).normal(0, 0.3, SAMPLE_RATE).astype(np.float32)
    audio = joined(clip("en/counting"), silence(1), clip("hi/pangrama"), noise)
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(audio, WINDOW + 64)[::WINDOW])


@pytest.mark.parametrize("step", [1, 5, 16, 10_000])
def test_probabilities_equal_those_of_faster_whisper(windows: FloatArray, step: int) -> None:
    expected = probabilities(get_vad_model().session, windows, 10_000)
    found = probabilities(silero.session(), windows, step)
    assert found.shape == expected.shape
    assert expected.max() > 0.9 > 0.1 > expected.min()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_installed_model_is_the_known_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert silero.session.__wrapped__() is not get_vad_model().session
    assert caplog.records == []


def test_another_model_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("stt_server.audio.silero._KNOWN_MODEL", "0" * 64)
    assert silero.session.__wrapped__() is get_vad_model().session
    assert "another Silero model" in caplog.text


def test_inaudible_samples_reach_the_network_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Denormal numbers would slow it down 50 times."""
    inputs = []
    real = silero.session()

    class Recorder:
        def run(self, outputs: None, values: dict[str, FloatArray]) -> Any:
            inputs.append(values["input"])
            return real.run(outputs, values)

    monkeypatch.setattr(silero, "session", Recorder)
    samples = np.full(20 * WINDOW, 1e-38, dtype=np.float32)
    samples[WINDOW:] *= -1
    samples[16 * WINDOW] = 0.5
    VoiceActivity().judge(samples)
    assert {float(value) for values in inputs for value in np.unique(values)} == {0.0, 0.5}
    assert samples[0] != 0


def test_graph_is_run_by_onnxruntime() -> None:
    graph = Graph()
    graph.input("x", ("rows", 3))
    total = graph.apply("ReduceSum", "x", graph.constant([1]), keepdims=0)
    graph.apply("Mul", total, graph.constant(np.float32(300)), outputs=["y"])
    graph.output("y", ("rows",))
    session = onnxruntime.InferenceSession(graph.model(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.arange(6, dtype=np.float32).reshape(2, 3)})
    assert found.tolist() == [900, 3600]


def test_float_constants_of_a_graph_are_read_as_weights() -> None:
    graph = Graph()
    values = np.arange(300, dtype=np.float32).reshape(2, 150)
    name = graph.constant(values)
    graph.constant([-1])
    weights = read_weights(graph.model())
    assert list(weights) == [name]
    np.testing.assert_array_equal(weights[name], values)


def test_unexpected_wire_type_is_refused() -> None:
    with pytest.raises(ValueError, match="field 7 has wire type 5; expected 0 or 2"):
        read_weights(bytes([7 << 3 | 5, 0, 0, 0, 0]))
