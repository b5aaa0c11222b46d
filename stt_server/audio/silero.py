"""Silero's network with its convolutions as matrix products.

faster-whisper ships Silero as an ONNX file. There, each window of 32 ms is convolved by itself: a product with few
columns, for which all weights are read again. Here the windows of a call share one product per layer, with the same
weights: probabilities differ by less than 1e-5. `buildscripts/bench profile` prints what it costs.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from stt_server.audio.mono import FloatArray
from stt_server.audio.onnx_graph import Graph, read_weights

log = logging.getLogger(__name__)

_KNOWN_MODEL = "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2"
"""SHA-256 of Silero 6 as in faster-whisper 1.2.1, with the names and shapes that `fast_model` expects."""

_HOP, _FREQUENCIES = 128, 129
"""Samples between the frames of the short-time Fourier transform, and frequencies of a frame, which has two hops."""


@cache
def session() -> Any:
    """The shared inference session.

    Its inputs are "input", windows with the 64 samples before each, of shape (windows, 576), and the LSTM's state, "h"
    and "c", of shape (1, 1, 128). Its outputs are the windows' probabilities of speech and the next state.
    """
    # Disables onnxruntime's telemetry, which would also write an id of this machine into the home directory. It is read
    # on import, from the C environment: os.environ isn't changed.
    os.putenv("ORT_DISABLE_TELEMETRY", "1")
    # Imported late, since it takes a second and decoding doesn't need it.
    from faster_whisper.utils import get_assets_path

    path = Path(get_assets_path(), "silero_vad_v6.onnx")
    model = path.read_bytes() if path.is_file() else b""
    if sha256(model).hexdigest() == _KNOWN_MODEL:
        return _load(fast_model(read_weights(model)))
    from faster_whisper.vad import get_vad_model

    log.warning(
        "faster-whisper has another Silero model than version 1.2.1: it is used as it is, and takes three times as long"
    )
    return get_vad_model().session


def _load(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep memory, and saves no time here
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def fast_model(weights: dict[str, FloatArray]) -> bytes:
    """An ONNX model with the inputs and outputs of Silero's.

    Args:
        weights: Silero's, by their names in its file.
    """
    return _Network(weights).graph.model()


class _Network:
    """Silero's layers as a graph. Methods that add some return the name of the resulting value."""

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        self._weights = weights
        self.graph = Graph()
        self.graph.input("input", ("windows", 576))
        for name in ("h", "c"):
            self.graph.input(name, (1, 1, 128))
        self._decode(self._encode(self._transform("input")))
        self.graph.output("speech_probs", ("windows",))
        for name in ("hn", "cn"):
            self.graph.output(name, (1, 1, 128))

    def _transform(self, windows: str) -> str:
        """Apply the short-time Fourier transform; magnitudes of shape (windows, 4, `_FREQUENCIES`)."""
        add, constant = self.graph.apply, self.graph.constant
        # With their last 64 samples reflected at the end, windows have five hops, and so four frames.
        first, end, axis, step = (constant([value]) for value in (-2, -66, 1, -1))
        samples = add("Concat", windows, add("Slice", windows, first, end, axis, step), axis=1)
        frames = self._joined(self._reshaped(samples, -1, 5, _HOP), [[0, 1], [1, 2], [2, 3], [3, 4]], 2 * _HOP)
        basis = self._weights["encoder.feature_extractor.forward_basis_buffer"].reshape(2, _FREQUENCIES, 2 * _HOP)
        parts = [add("MatMul", frames, constant(part.T)) for part in basis]
        power = add("Add", *(add("Mul", part, part) for part in parts))
        return self._reshaped(add("Sqrt", power), -1, 4, _FREQUENCIES)

    def _encode(self, frames: str) -> str:
        """Apply the four convolutions, each over 3 positions with a zero at both ends; shape (windows, 1, 128).

        The second and the third have a stride of 2: they make two positions of four, and one of two.
        """
        rows = self._joined(self._padded(frames, 1, 1), [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]], 3 * _FREQUENCIES)
        positions = self._reshaped(self._convolved(rows, 0, slice(0, 3)), -1, 4, 128)
        rows = self._joined(self._padded(positions, 1, 0), [[0, 1, 2], [2, 3, 4]], 3 * 128)
        # The last two meet nothing but padding at their other positions.
        rows = self._reshaped(self._convolved(rows, 1, slice(0, 3)), -1, 2 * 64)
        rows = self._convolved(self._convolved(rows, 2, slice(1, 3)), 3, slice(1, 2))
        return self._reshaped(rows, -1, 1, 128)

    def _decode(self, encoded: str) -> None:
        """Apply the LSTM and the last layer."""
        add, constant = self.graph.apply, self.graph.constant
        lstm = [constant(self._weights[f"onnx::LSTM_{number}"]) for number in (209, 210, 211)]
        hidden = add("LSTM", encoded, *lstm, "", "h", "c", outputs=["hidden", "hn", "cn"], hidden_size=128)
        rows = self._reshaped(add("Relu", hidden), -1, 128)
        weight = constant(self._weights["decoder.conv1d.weight"].reshape(128, 1))
        speech = add("Sigmoid", add("Gemm", rows, weight, constant(self._weights["decoder.conv1d.bias"])))
        add("Reshape", speech, constant([-1]), outputs=["speech_probs"])

    def _convolved(self, rows: str, layer: int, positions: slice) -> str:
        """Apply a convolution and a rectifier.

        Args:
            rows: for each result, the channels of the `positions` that it depends on.
            positions: those of the convolution's 3 that `rows` has.
        """
        kernel = self._weights[f"encoder.conv_layers.{layer}.weight"].transpose(2, 1, 0)[positions]
        weight = self.graph.constant(kernel.reshape(-1, kernel.shape[-1]))
        bias = self.graph.constant(self._weights[f"encoder.conv_layers.{layer}.bias"])
        return self.graph.apply("Relu", self.graph.apply("Gemm", rows, weight, bias))

    def _joined(self, value: str, positions: list[list[int]], width: int) -> str:
        """Rows of `width` numbers, each with several positions of the second axis side by side."""
        rows = self.graph.apply("Gather", value, self.graph.constant(positions), axis=1)
        return self._reshaped(rows, -1, width)

    def _padded(self, value: str, before: int, after: int) -> str:
        """Add positions of zeros to the second of three axes."""
        return self.graph.apply("Pad", value, self.graph.constant([0, before, 0, 0, after, 0]))

    def _reshaped(self, value: str, *shape: int) -> str:
        return self.graph.apply("Reshape", value, self.graph.constant(shape))
