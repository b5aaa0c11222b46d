"""Both models' answers to a corpus, cached in a file: decoding is slow, evaluating thresholds is not."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from buildscripts.lib.load.corpus import Clip, word_errors
from stt_server.audio import SAMPLE_RATE, split
from stt_server.engine.text_checks import words_of
from stt_server.engine.types import Chunk, DecodeOptions, Hypothesis, Samples, confidence_of
from stt_server.routing import Signals

Recognize = Callable[[Chunk, DecodeOptions], Hypothesis]

MAX_SECONDS = 30.0
"""Longer recordings are escalated chunk by chunk, and there is no reference text per chunk."""

DEGRADED = {"plain": None, "noise": 12.0, "loud-noise": 4.0, "telephone": None}
"""Conditions that a clip can be degraded to; for noise, the signal-to-noise ratio in dB."""


@dataclass(frozen=True)
class Part:
    """One model's result for one chunk. Times in seconds."""

    text: str
    token_logprobs: list[float]
    looped: bool
    language_probability: float | None
    no_speech_prob: float
    end: float
    """End of the text, from the start of the chunk."""
    speech: float
    """Duration of speech by voice activity detection."""
    speech_end: float
    """End of speech, from the start of the chunk."""


@dataclass(frozen=True)
class Answer:
    """One model's answer to one clip."""

    seconds: float
    """Inference time, seconds."""
    parts: list[Part]

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts)

    @property
    def confidence(self) -> float | None:
        return confidence_of(p for part in self.parts for p in part.token_logprobs)

    @property
    def signals(self) -> Signals:
        """Routing signals, as the service computes them."""
        return Signals(
            speech=bool(self.parts),
            words=sum(len(words_of(part.text)) for part in self.parts),
            confidence=self.confidence,
            language_probability=self.parts[0].language_probability if self.parts else None,
            looped=any(part.looped for part in self.parts),
            chunks=len(self.parts),
        )


@dataclass(frozen=True)
class Pair:
    """Both models' answers to one clip."""

    name: str
    condition: str
    """A key of `DEGRADED`."""
    language: str
    reference: str
    seconds: float
    small: Answer
    large: Answer

    def errors(self, answer: Answer) -> int:
        return word_errors(self.reference, answer.text, self.language)[0]

    @property
    def words(self) -> int:
        return word_errors(self.reference, "", self.language)[1]


def degrade(samples: Samples, condition: str) -> Samples:
    """Degrade a recording: noise, or a telephone's band (300 to 3400 Hz). Deterministic."""
    if condition == "telephone":
        spectrum = np.fft.rfft(samples)
        hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
        spectrum[(hertz < 300) | (hertz > 3400)] = 0
        return np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    ratio = DEGRADED[condition]
    if ratio is None:
        return samples
    spectrum = np.fft.rfft(np.random.default_rng(zlib.crc32(samples.tobytes())).standard_normal(len(samples)))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))  # pink noise, like that of rooms and streets
    noise = np.fft.irfft(spectrum, len(samples))
    noise *= np.sqrt(np.mean(np.square(samples)) / np.mean(np.square(noise))) * 10 ** (-ratio / 20)
    return np.clip(samples + noise, -1, 1).astype(np.float32)


def answer_of(samples: Samples, recognize: Recognize, language: str | None) -> Answer:
    """One model's answer, chunk by chunk as in the service."""
    chunks = split(samples, vad_filter=True)
    started = time.perf_counter()
    hypotheses = [recognize(chunk, DecodeOptions(language=language)) for chunk in chunks]
    seconds = time.perf_counter() - started
    return Answer(seconds, [_part(chunk, hypothesis) for chunk, hypothesis in zip(chunks, hypotheses)])


def _part(chunk: Chunk, hypothesis: Hypothesis) -> Part:
    return Part(
        text=hypothesis.text,
        token_logprobs=[round(p, 5) for p in hypothesis.token_logprobs],
        looped=hypothesis.looped,
        language_probability=hypothesis.language_probability,
        no_speech_prob=max((segment.no_speech_prob for segment in hypothesis.segments), default=1.0),
        end=hypothesis.segments[-1].end - chunk.start if hypothesis.segments else 0.0,
        speech=sum(end - start for start, end in chunk.speech),
        speech_end=chunk.speech[-1][1] if chunk.speech else 0.0,
    )


def pairs_of(
    clips: Sequence[Clip],
    conditions: Sequence[str],
    ask: Callable[[str, Samples], tuple[Answer, Answer]],
    cache: Path | None,
    key: dict[str, Any],
    say: Callable[[str], None],
) -> list[Pair]:
    """Both answers to every clip in every condition, from `cache` or else from the models.

    Args:
        ask: (language, samples) -> answers of the small and the large model.
        key: whatever else the answers depend on; a cache with another key is discarded.
    """
    known = _read(cache, key)
    found: list[Pair] = []
    for clip in clips:
        for condition in conditions:
            pair = known.get((clip.language, clip.name, condition))
            if pair is None or pair.reference != clip.text:
                small, large = ask(clip.language, degrade(clip.samples, condition))
                pair = Pair(clip.name, condition, clip.language, clip.text, clip.seconds, small, large)
                known[clip.language, clip.name, condition] = pair
                say(f"{len(found) + 1}/{len(clips) * len(conditions)} {clip.name} {condition}")
                if cache is not None:
                    _write(cache, key, list(known.values()))
            found.append(pair)
    return found


def _read(cache: Path | None, key: dict[str, Any]) -> dict[tuple[str, str, str], Pair]:
    if cache is None or not cache.is_file():
        return {}
    content = json.loads(cache.read_text(encoding="utf-8"))
    if content["key"] != key:
        return {}
    pairs = [Pair(**{**p, "small": _answer(p["small"]), "large": _answer(p["large"])}) for p in content["pairs"]]
    return {(pair.language, pair.name, pair.condition): pair for pair in pairs}


def _answer(entry: dict[str, Any]) -> Answer:
    return Answer(entry["seconds"], [Part(**part) for part in entry["parts"]])


def _write(cache: Path, key: dict[str, Any], pairs: list[Pair]) -> None:
    new = cache.with_name(cache.name + ".part")
    new.write_text(json.dumps({"key": key, "pairs": [asdict(p) for p in pairs]}, ensure_ascii=False), encoding="utf-8")
    new.replace(cache)
