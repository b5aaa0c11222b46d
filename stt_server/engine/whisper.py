"""A Whisper model in CTranslate2's format: loading it, and chunks in, hypotheses out."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens, merge_punctuations

from stt_server.engine import guard, windows
from stt_server.engine.decoding import MAX_LENGTH, TimedTokens, prompt_tokens, split_segments
from stt_server.engine.language import choose_language
from stt_server.engine.types import Chunk, DecodeOptions, Hypothesis, ModelInfo, Samples, Segment, Word
from stt_server.errors import EngineError, OutOfMemory

log = logging.getLogger(__name__)

_PREPENDED = "\"'“¿([{-"
_APPENDED = "\"'.。,，!！?？:：”)]}、"
_MAX_REMAINDERS = 4
"""How often the part of a chunk that a text stopped short of is decoded again."""


class ModelLoadError(Exception):
    """A model that can't be used as configured: one line that says why and what to change."""


@dataclass(frozen=True)
class ModelOptions:
    """How to load and decode; see the configuration keys of the same names."""

    path: Path
    name: str
    device: str = "auto"
    device_index: int = 0
    compute_type: str = "default"
    cpu_threads: int = 1
    workers: int = 1
    """Inferences that run side by side: CTranslate2's `inter_threads`."""
    beam_size: int = 1
    encoder_window: windows.WindowRule = "adaptive"


@dataclass(frozen=True)
class _Encoded:
    """A chunk after the encoder."""

    output: ctranslate2.StorageView
    seconds: float
    """Of audio in the window."""


@dataclass(frozen=True)
class _Decoded:
    segments: list[TimedTokens]
    logprobs: list[list[float]]
    """Per segment, of its text tokens."""
    words: list[list[Word]]
    no_speech_prob: float
    text: str

    @property
    def end(self) -> float:
        return self.segments[-1].end if self.segments else 0.0


class WhisperRecognizer:
    """The production `Recognizer`. Thread-safe: CTranslate2 queues calls to its workers."""

    def __init__(self, options: ModelOptions) -> None:
        """Loads the model, which takes seconds.

        Raises:
            ModelLoadError: no usable model there, or not on this device.
        """
        self._options = options
        self._model = _load(options)
        languages = tuple(sorted(self._model.supported_languages))
        self.info = ModelInfo(options.name, self._model.model.device, self._model.model.compute_type, languages)

    def warm_up(self) -> None:
        """Runs every window size once, so that the first caller doesn't pay for lazy allocations."""
        for window in sorted({windows.window_for(s, self._options.encoder_window) for s in (1.0, 8.0, 14.0, 24.0)}):
            silence = np.zeros(windows.SAMPLE_RATE, dtype=np.float32)
            encoded = self._encode(silence, window)
            language = "en" if self.info.multilingual else None
            self._decode(encoded, DecodeOptions(language=language))

    def recognize(self, chunk: Chunk, options: DecodeOptions) -> Hypothesis:
        """What was said in a chunk.

        Raises:
            EngineError, OutOfMemory: as `Recognizer.recognize`.
        """
        try:
            return self._recognize(chunk, options)
        except (RuntimeError, ValueError) as error:
            if _is_out_of_memory(error):
                raise OutOfMemory("the device is out of memory; try again, or send shorter audio") from error
            raise EngineError("the model failed on this recording") from error

    def _recognize(self, chunk: Chunk, options: DecodeOptions) -> Hypothesis:
        seconds = len(chunk.samples) / windows.SAMPLE_RATE
        window = windows.window_for(seconds, self._options.encoder_window)
        encoded = self._encode(chunk.samples, window)
        language, probability = self._language(encoded, options)
        options = replace(options, language=language)
        decoded = self._decode(encoded, options)
        doubt = _doubt(decoded, chunk, 0.0)
        if doubt and window != windows.FULL_WINDOW:
            log.debug("redo on the full window", extra={"doubt": doubt, "window_s": window})
            encoded = self._encode(chunk.samples, windows.FULL_WINDOW)
            decoded = self._decode(encoded, options)
        parts = [(0.0, decoded), *self._remainders(chunk, decoded, options)]
        segments = tuple(s for offset, part in parts for s in self._segments(part, chunk.start + offset))
        return Hypothesis(
            segments=segments,
            language=language,
            language_probability=probability,
            token_logprobs=tuple(p for _, part in parts for ps in part.logprobs for p in ps),
            looped=guard.is_looped("".join(part.text for _, part in parts)),
        )

    def _remainders(self, chunk: Chunk, decoded: _Decoded, options: DecodeOptions) -> list[tuple[float, _Decoded]]:
        """Decodes what a text stopped short of, so that no speech of a chunk is lost; with offsets in seconds."""
        parts: list[tuple[float, _Decoded]] = []
        offset = decoded.end
        while decoded.text and len(parts) < _MAX_REMAINDERS and guard.stops_early(offset, _speech_end(chunk)):
            samples = chunk.samples[int(offset * windows.SAMPLE_RATE) :]
            window = windows.window_for(len(samples) / windows.SAMPLE_RATE, self._options.encoder_window)
            decoded = self._decode(self._encode(samples, window), options)
            if not decoded.text or decoded.end <= 0 or guard.is_looped(decoded.text):
                break
            log.debug("decoded what the text stopped short of", extra={"offset_s": offset})
            parts.append((offset, decoded))
            offset += decoded.end
        return parts

    def _encode(self, samples: Samples, window: int) -> _Encoded:
        mel = windows.features(self._model.feature_extractor, samples, window)
        output = self._model.model.encode(ctranslate2.StorageView.from_array(mel), to_cpu=False)
        return _Encoded(output, min(len(samples) / windows.SAMPLE_RATE, float(window)))

    def _language(self, encoded: _Encoded, options: DecodeOptions) -> tuple[str, float | None]:
        if options.language is not None:
            return options.language, None
        if not self.info.multilingual:
            return self.info.languages[0], None
        ranking = self._model.model.detect_language(encoded.output)[0]
        return choose_language(ranking, options.candidate_languages)

    def _tokenizer(self, options: DecodeOptions) -> Tokenizer:
        return Tokenizer(self._model.hf_tokenizer, self.info.multilingual, options.task, options.language)

    def _decode(self, encoded: _Encoded, options: DecodeOptions) -> _Decoded:
        tokenizer = self._tokenizer(options)
        result = self._model.model.generate(
            encoded.output,
            [prompt_tokens(tokenizer, options)],
            beam_size=self._options.beam_size,
            max_length=MAX_LENGTH,
            return_no_speech_prob=True,
            suppress_tokens=list(get_suppressed_tokens(tokenizer, [-1])),
            sampling_temperature=0.0,
        )[0]
        segments = split_segments(result.sequences_ids[0], tokenizer, encoded.seconds)
        text_tokens = [token for segment in segments for token in segment.tokens]
        logprobs, words = self._align(encoded, tokenizer, segments, text_tokens, options.word_timestamps)
        return _Decoded(segments, logprobs, words, result.no_speech_prob, tokenizer.decode(text_tokens))

    def _align(
        self,
        encoded: _Encoded,
        tokenizer: Tokenizer,
        segments: list[TimedTokens],
        tokens: list[int],
        with_words: bool,
    ) -> tuple[list[list[float]], list[list[Word]]]:
        """Each text token's log-probability, and each segment's words with their times.

        `generate` scores timestamps too, which are unsure by nature and would drag the mean down; one pass of the
        aligner over the text gives the probability of every text token, for beams as for greedy decoding.
        """
        if not tokens:
            return [], []
        frames = max(2, math.ceil(encoded.seconds * windows.FRAMES_PER_SECOND))
        start = tokenizer.sot_sequence
        probabilities = self._model.model.align(encoded.output, start, [tokens], frames)[0].text_token_probs
        by_segment: list[list[float]] = []
        position = 0
        for segment in segments:
            part = probabilities[position : position + len(segment.tokens)]
            by_segment.append([math.log(max(p, 1e-10)) for p in part])
            position += len(segment.tokens)
        words: list[list[Word]] = [[] for _ in segments]
        if with_words:
            words = self._words(encoded, tokenizer, segments, frames)
        return by_segment, words

    def _words(
        self, encoded: _Encoded, tokenizer: Tokenizer, segments: list[TimedTokens], frames: int
    ) -> list[list[Word]]:
        tokens = [token for segment in segments for token in segment.tokens]
        alignment = self._model.find_alignment(tokenizer, [tokens], encoded.output, frames)[0]
        merge_punctuations(alignment, _PREPENDED, _APPENDED)
        ends = np.cumsum([len(segment.tokens) for segment in segments])
        words: list[list[Word]] = [[] for _ in segments]
        position = 0
        for timing in alignment:
            index = min(int(np.searchsorted(ends, position, side="right")), len(segments) - 1)
            position += len(timing["tokens"])
            if timing["word"]:
                start, end = float(timing["start"]), float(timing["end"])
                words[index].append(Word(start, end, timing["word"], float(timing["probability"])))
        return words

    def _segments(self, decoded: _Decoded, offset: float) -> list[Segment]:
        """The segments of a decoding, moved by `offset` seconds to their place in the recording."""
        decode = self._tokenizer(DecodeOptions(language="en" if self.info.multilingual else None)).decode
        return [
            Segment(
                start=round(offset + segment.start, 3),
                end=round(offset + segment.end, 3),
                text=(text := decode(list(segment.tokens))),
                avg_logprob=sum(logprobs) / len(logprobs),
                no_speech_prob=decoded.no_speech_prob,
                compression_ratio=guard.compression_ratio(text),
                words=tuple(replace(w, start=round(offset + w.start, 3), end=round(offset + w.end, 3)) for w in words),
            )
            for segment, logprobs, words in zip(decoded.segments, decoded.logprobs, decoded.words)
        ]


def _load(options: ModelOptions) -> WhisperModel:
    # Without this file faster-whisper would ask the network for a tokenizer.
    for required in ("model.bin", "config.json", "tokenizer.json"):
        if not (options.path / required).is_file():
            raise ModelLoadError(f"the model folder {options.path} has no {required}; fetch the model again")
    try:
        return WhisperModel(
            str(options.path),
            device=options.device,
            device_index=options.device_index,
            compute_type=options.compute_type,
            cpu_threads=options.cpu_threads,
            num_workers=options.workers,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelLoadError(f"the model in {options.path} can't be loaded on {options.device}: {reason}") from error
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise ModelLoadError(f"the model in {options.path} is damaged: {' '.join(str(error).split())}") from error


def _speech_end(chunk: Chunk) -> float:
    return chunk.speech[-1][1] if chunk.speech else 0.0


def _doubt(decoded: _Decoded, chunk: Chunk, offset: float) -> str | None:
    """Why a text decoded on a shortened window is not to be trusted; None if it is."""
    speech = sum(end - start for start, end in chunk.speech)
    if not decoded.text.strip():
        return "empty" if speech > 0 else None
    if guard.is_looped(decoded.text):
        return "loop"
    if guard.stops_early(offset + decoded.end, _speech_end(chunk)):
        return "early_stop"
    return "too_fast" if guard.is_too_fast(decoded.text, speech) else None


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA, cuBLAS and the CPU allocator each say it in their own words."""
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "alloc_failed", "bad_alloc", "failed to allocate"))
