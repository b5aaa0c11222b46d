"""Text from encoded audio: CTranslate2's `generate`, with log-probabilities and word times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from stt_server.engine.alignment import aligned_logprobs, greedy_logprobs, word_times
from stt_server.engine.encoding import Encoded, as_batch
from stt_server.engine.text_checks import compression_ratio
from stt_server.engine.tokens import (
    TimedTokens,
    by_segment,
    earlier_tokens,
    max_length,
    prompt_tokens,
    split_segments,
    tokens_per_second,
)
from stt_server.engine.types import DecodeOptions, Segment, Word

PROMPTS_CACHED = 64
"""Prompts whose tokens are cached."""


@dataclass(frozen=True)
class DecoderInput:
    """One item of a batch to decode."""

    encoded: Encoded
    tokenizer: Tokenizer
    earlier: tuple[int, ...]
    """Tokens of hotwords, prompt and context."""
    words: bool
    """Whether to time the words."""


@dataclass(frozen=True)
class Decoded:
    """The text of one decoder window. Times are seconds from the start of the window."""

    segments: list[TimedTokens]
    logprobs: list[list[float]]
    """Natural log-probabilities of the text tokens, by segment."""
    words: list[list[Word]]
    """By segment; empty if not asked for."""
    no_speech_prob: float
    text: str
    offset: float = 0.0
    """Start of the window, in seconds from the start of the chunk."""

    @property
    def token_logprobs(self) -> list[float]:
        return [logprob for segment in self.logprobs for logprob in segment]

    @property
    def mean_logprob(self) -> float:
        """Mean over the text tokens; 0 if there are none."""
        logprobs = self.token_logprobs
        return sum(logprobs) / len(logprobs) if logprobs else 0.0

    @property
    def end(self) -> float:
        """End of the last segment; 0 if there is none."""
        return self.segments[-1].end if self.segments else 0.0


class TextDecoder:
    """The decoder of a Whisper model. Thread-safe, as the model is."""

    def __init__(self, whisper: WhisperModel, beam_size: int) -> None:
        self._whisper = whisper
        self._model = whisper.model
        self.beam_size = beam_size
        self._plain = self._tokenizer(DecodeOptions(language=min(whisper.supported_languages)))
        """For text alone, which has the same tokens in every language and task."""
        # Called for each chunk of a request, in the event loop; a long prompt takes a millisecond.
        self.earlier = lru_cache(PROMPTS_CACHED)(partial(earlier_tokens, self._plain))
        """Tokens of the hotwords, prompt and context of `DecodeOptions`."""
        self._suppressed = list(get_suppressed_tokens(self._plain, [-1]))

    def _tokenizer(self, options: DecodeOptions) -> Tokenizer:
        multilingual = self._model.is_multilingual
        return Tokenizer(self._whisper.hf_tokenizer, multilingual, options.task, options.language)

    def input(self, encoded: Encoded, options: DecodeOptions) -> DecoderInput:
        """Encoded audio with the tokens and options to decode it with."""
        return DecoderInput(encoded, self._tokenizer(options), self.earlier(options), options.word_timestamps)

    def decode(
        self, batch: Sequence[DecoderInput], temperature: float = 0.0, *, beams: int | None = None
    ) -> list[Decoded]:
        """Decode a batch with the same window and the same number of prompt tokens.

        Args:
            temperature: above 0, tokens are sampled, without a beam search.
            beams: hypotheses kept, 1 for greedy decoding; None: as many as the model is configured with.
        """
        beams = 1 if temperature else beams or self.beam_size
        # On a GPU, copying the logits of each token to the host costs more than one pass of the aligner.
        with_logits = beams == 1 and self._model.device == "cpu"
        results = self._generate(batch, temperature, beams, with_logits)
        segments = [
            split_segments(result.sequences_ids[0], item.tokenizer, item.encoded.seconds)
            for result, item in zip(results, batch)
        ]
        texts = [[token for segment in own for token in segment.tokens] for own in segments]
        if with_logits:
            logprobs = [
                greedy_logprobs(result.logits[0], result.sequences_ids[0], item.tokenizer.eot)
                for result, item in zip(results, batch)
            ]
        else:
            logprobs = self.aligned_logprobs(batch, texts)
        return [
            Decoded(
                segments=own,
                logprobs=by_segment(values, own),
                words=self.words(item, own) if item.words else [[] for _ in own],
                no_speech_prob=result.no_speech_prob,
                text=item.tokenizer.decode(text),
            )
            for result, item, own, values, text in zip(results, batch, segments, logprobs, texts)
        ]

    def _generate(self, batch: Sequence[DecoderInput], temperature: float, beams: int, with_logits: bool) -> list[Any]:
        """CTranslate2's results, one for each item."""
        prompts = [prompt_tokens(item.tokenizer, item.earlier) for item in batch]
        longest = max(item.encoded.seconds for item in batch)
        per_second = max(tokens_per_second(item.tokenizer.language_code) for item in batch)
        results: list[Any] = self._model.generate(
            as_batch([item.encoded for item in batch]),
            prompts,
            beam_size=beams,
            max_length=max_length(longest, per_second, len(prompts[0])),
            return_no_speech_prob=True,
            return_logits_vocab=with_logits,
            suppress_tokens=self._suppressed,
            sampling_topk=0 if temperature else 1,
            sampling_temperature=temperature,
        )
        return results

    def aligned_logprobs(self, batch: Sequence[DecoderInput], texts: Sequence[list[int]]) -> list[list[float]]:
        """Log-probabilities of text tokens by the aligner: one pass for each language and task in the batch."""
        found: list[list[float]] = [[] for _ in batch]
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (item, text) in enumerate(zip(batch, texts)):
            if text:
                alike[tuple(item.tokenizer.sot_sequence)].append(index)
        for indices in alike.values():
            outputs = as_batch([batch[i].encoded for i in indices])
            seconds = [batch[i].encoded.seconds for i in indices]
            tokenizer = batch[indices[0]].tokenizer
            logprobs = aligned_logprobs(self._whisper, outputs, tokenizer, [texts[i] for i in indices], seconds)
            for index, values in zip(indices, logprobs):
                found[index] = values
        return found

    def words(self, item: DecoderInput, segments: Sequence[TimedTokens]) -> list[list[Word]]:
        """The words of each segment, with times in seconds from the start of the window."""
        if not segments:
            return []
        return word_times(self._whisper, as_batch([item.encoded]), item.tokenizer, segments, item.encoded.seconds)

    def segments(self, decoded: Decoded, chunk_start: float) -> list[Segment]:
        """The segments of a decoding, with times from the start of the recording.

        Args:
            chunk_start: seconds from the start of the recording.
        """
        offset = chunk_start + decoded.offset
        return [
            Segment(
                start=round(offset + segment.start, 3),
                end=round(offset + segment.end, 3),
                text=(text := self._plain.decode(list(segment.tokens))),
                avg_logprob=sum(logprobs) / len(logprobs),
                no_speech_prob=decoded.no_speech_prob,
                compression_ratio=compression_ratio(text),
                words=tuple(replace(w, start=round(offset + w.start, 3), end=round(offset + w.end, 3)) for w in words),
            )
            for segment, logprobs, words in zip(decoded.segments, decoded.logprobs, decoded.words)
        ]
