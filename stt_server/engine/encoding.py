"""Runs the encoder, on windows adapted to the audio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel

from stt_server.engine import windows
from stt_server.engine.types import Samples
from stt_server.engine.windows import FloatArray, WindowRule, Windows

T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """The encoder's output for one chunk."""

    output: FloatArray
    """Shape (positions, width), in host memory: 1 MiB for 10 s with Whisper base."""
    seconds: float
    """Seconds of audio in the window."""


class Encoder:
    """A model's encoder. Thread-safe, as the model is."""

    def __init__(self, whisper: WhisperModel, rule: WindowRule, tail: float | None = None) -> None:
        """
        Args:
            tail: see `Windows.of`.
        """
        self._whisper = whisper
        self._model = whisper.model
        width = self._run([np.zeros(0, dtype=np.float32)], 1.0).shape[-1]
        self.windows = Windows.of(width, rule, tail)

    def steps(self, batch: Sequence[T]) -> list[Sequence[T]]:
        """Split a batch into the parts that are encoded together: one by one on a CPU, all at once on a GPU."""
        return [batch] if self._model.device != "cpu" else [[item] for item in batch]

    def encode(self, batch: Sequence[Samples], window: int, *, shortcut: bool) -> list[Encoded]:
        """Encode audio for a window of the decoder.

        A CPU encodes one by one, since batching gains the encoder nothing and costs it cache misses. A GPU encodes all
        at once in the whole window, since the items of a batch must have the same length.

        Args:
            window: one of `windows.WINDOW_SECONDS`.
            shortcut: on a CPU, encode little silence and repeat its output instead of encoding the whole window.
        """
        if not batch:
            return []
        seconds = [min(len(samples) / windows.SAMPLE_RATE, float(window)) for samples in batch]
        if self._model.device != "cpu":
            outputs = list(self._run(batch, window))
        elif shortcut:
            lengths = [self.windows.encoded(own, window) for own in seconds]
            outputs = [
                windows.lengthened(self._run([samples], length)[0], window) for samples, length in zip(batch, lengths)
            ]
        else:
            outputs = [self._run([samples], window)[0] for samples in batch]
        return [Encoded(output, own) for output, own in zip(outputs, seconds)]

    def _run(self, batch: Sequence[Samples], window: float) -> FloatArray:
        """Shape (batch, positions, width)."""
        extractor = self._whisper.feature_extractor
        mel = np.concatenate([windows.features(extractor, samples, window) for samples in batch])
        output = self._model.encode(ctranslate2.StorageView.from_array(mel), to_cpu=False)
        if output.dtype != ctranslate2.DataType.float32:
            output = output.to(ctranslate2.DataType.float32)  # numpy has no bfloat16
        return np.asarray(output.to_device(ctranslate2.Device.cpu))


def as_batch(items: Sequence[Encoded]) -> ctranslate2.StorageView:
    """Stack outputs of the same window for CTranslate2, which moves them to the model's device itself."""
    return ctranslate2.StorageView.from_array(np.stack([item.output for item in items]))
