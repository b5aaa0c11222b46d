"""A Whisper model in CTranslate2's format: chunks in, hypotheses out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from stt_server.engine import text_checks as guard
from stt_server.engine import windows
from stt_server.engine.acceptance import Decoded, doubt_of, hopeless, invented_reason, promise, speech_end
from stt_server.engine.alignment import aligned_logprobs, greedy_logprobs, word_times
from stt_server.engine.encoding import Encoded, Encoder, as_batch
from stt_server.engine.language import choose_language
from stt_server.engine.loading import ModelOptions, load
from stt_server.engine.tokens import (
    TimedTokens,
    by_segment,
    earlier_tokens,
    max_length,
    prompt_tokens,
    split_segments,
)
from stt_server.engine.types import Chunk, ChunkJob, DecodeOptions, Hypothesis, ModelInfo, Samples, Segment, Word
from stt_server.errors import Abandoned

log = logging.getLogger(__name__)

MAX_REMAINDERS = 4
"""How often the part of a chunk that a text stopped short of is decoded again."""
LANGUAGE_UNSURE = 0.5
"""A language less probable than this is detected again on the full window, where short clips are told better."""
EARLIER_REMEMBERED = 64
"""Prompts with hotwords whose tokens are kept."""
CPU_BATCH_SECONDS = 96
"""Of windows in one batch on a CPU, where a batch of long ones saves little and keeps others waiting for seconds."""


@dataclass(frozen=True)
class _Request:
    """One item of a batch that is decoded."""

    encoded: Encoded
    tokenizer: Tokenizer
    earlier: tuple[int, ...]
    words: bool


class WhisperRecognizer:
    """The production `Recognizer`. Thread-safe: CTranslate2 queues calls to its workers."""

    def __init__(self, options: ModelOptions) -> None:
        """Loads the model, which takes seconds. Raises ModelLoadError."""
        self._options = options
        self._whisper = load(options)
        self._model = self._whisper.model
        self._encoder = Encoder(self._whisper, options.encoder_window)
        self._windows = self._encoder.windows
        languages = tuple(sorted(self._whisper.supported_languages))
        self.info = ModelInfo(options.name, self._model.device, self._model.compute_type, languages)
        any_language = self._tokenizer(DecodeOptions(language=languages[0]))
        self._any_language = any_language
        # Asked for each chunk of a request, in the event loop; a long prompt takes a millisecond.
        self._earlier = lru_cache(EARLIER_REMEMBERED)(partial(earlier_tokens, any_language))
        self._suppressed = list(get_suppressed_tokens(any_language, [-1]))

    def warm_up(self) -> None:
        """Runs every window size once, so that the first caller doesn't pay for lazy allocations."""
        silence = np.zeros(windows.SAMPLE_RATE, dtype=np.float32)
        for window in self._windows.sizes:
            self._decode_one(silence, window, DecodeOptions(language=self.info.languages[0]))

    def group_of(self, job: ChunkJob) -> Hashable:
        """Window and length of the prompt: CTranslate2 wants both alike in a batch."""
        seconds = len(job.chunk.samples) / windows.SAMPLE_RATE
        window = self._windows.decoded(seconds)
        return window, len(self._earlier(job.options))

    def batch_limit(self, group: Hashable) -> int:
        """A GPU takes what it is given; on a CPU a batch stays short."""
        if self.info.device != "cpu" or not isinstance(group, tuple):
            return 2**31
        return max(1, CPU_BATCH_SECONDS // int(group[0]))

    def recognize(self, chunk: Chunk, options: DecodeOptions) -> Hypothesis:
        """What was said in one chunk; raises as `recognize_batch`."""
        return self.recognize_batch([ChunkJob(chunk, options)])[0]

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        """What was said in each chunk of one group, those that joined it included; raises as `recognize_batch` of the
        protocol does."""
        seconds = max(len(job.chunk.samples) for job in jobs) / windows.SAMPLE_RATE
        window = self._windows.decoded(seconds)
        encoded: list[Encoded] = []
        late, jobs = jobs, list(jobs)
        while late:
            for some in self._encoder.steps(late):
                _check_wanted(jobs)
                encoded += self._encoder.encode([job.chunk.samples for job in some], window, shortcut=True)
            late = more()
            jobs += late
        _check_wanted(jobs)
        languages = self._languages(jobs, encoded)
        options = [replace(job.options, language=code) for job, (code, _) in zip(jobs, languages)]
        decoded = self._decode([self._request(item, own) for item, own in zip(encoded, options)])
        hypotheses = []
        for job, own, found, (_, probability) in zip(jobs, options, decoded, languages):
            _check_wanted(jobs)  # it may be decoded again
            hypotheses.append(self._hypothesis(job, own, found, probability, window))
        return hypotheses

    def _hypothesis(
        self, job: ChunkJob, options: DecodeOptions, decoded: Decoded, probability: float | None, window: int
    ) -> Hypothesis:
        chunk = job.chunk
        parts = [(0.0, decoded)] if job.draft else self._settled(chunk, options, decoded, window)
        text = "".join(part.text for _, part in parts)
        logprobs = tuple(p for _, part in parts for ps in part.logprobs for p in ps)
        reason = invented_reason(chunk, text, parts[0][1].no_speech_prob, logprobs)
        if reason is not None:
            log.debug("text dropped as invented", extra={"reason": reason, "start_s": chunk.start})
            parts, logprobs, text = [], (), ""
        return Hypothesis(
            segments=tuple(s for offset, part in parts for s in self._segments(part, chunk.start + offset)),
            language=options.language or "",
            language_probability=probability,
            token_logprobs=logprobs,
            looped=guard.is_looped(text),
            suppressed=reason,
        )

    def _settled(
        self, chunk: Chunk, options: DecodeOptions, decoded: Decoded, window: int
    ) -> list[tuple[float, Decoded]]:
        """The best that can be made of a chunk, in parts with offsets in seconds."""
        decoded = self._undoubted(chunk, options, decoded, window)
        decoded = self._tried_again(chunk, options, decoded)
        return [(0.0, decoded), *self._remainders(chunk, decoded, options)]

    def _undoubted(self, chunk: Chunk, options: DecodeOptions, decoded: Decoded, window: int) -> Decoded:
        """Decodes a doubtful text again, with more silence that the encoder has really heard: all of its window first,
        then the full one, which costs several times as much."""
        if self._windows.tails is None:
            return decoded
        for wider in sorted({window, windows.FULL_WINDOW}):
            doubt = doubt_of(decoded, chunk)
            if doubt is None:
                break
            log.debug("decode again", extra={"doubt": doubt, "window_s": wider})
            decoded = self._decode_one(chunk.samples, wider, options)
        return decoded

    def _tried_again(self, chunk: Chunk, options: DecodeOptions, decoded: Decoded) -> Decoded:
        """A text that loops or is hopeless, sampled anew at rising temperatures until one is neither: openai/whisper's
        temperature fallback, with one decoding a temperature instead of the best of five, so that its time is bounded.
        """
        found = [decoded]
        for temperature in self._options.temperatures:
            if not hopeless(found[-1]):
                break
            found.append(self._decode_one(chunk.samples, windows.FULL_WINDOW, options, temperature))
        return found[-1] if not hopeless(found[-1]) else max(found, key=promise)

    def _remainders(self, chunk: Chunk, decoded: Decoded, options: DecodeOptions) -> list[tuple[float, Decoded]]:
        """Decodes what a text stopped short of, so that no speech of a chunk is lost; with offsets in seconds."""
        parts: list[tuple[float, Decoded]] = []
        offset = decoded.end
        while decoded.text and len(parts) < MAX_REMAINDERS and guard.stops_early(offset, speech_end(chunk)):
            samples = chunk.samples[int(offset * windows.SAMPLE_RATE) :]
            window = self._windows.decoded(len(samples) / windows.SAMPLE_RATE)
            decoded = self._decode_one(samples, window, options, shortcut=True)
            if not decoded.text or decoded.end <= 0 or guard.is_looped(decoded.text):
                break
            log.debug("decoded what the text stopped short of", extra={"offset_s": offset})
            parts.append((offset, decoded))
            offset += decoded.end
        return parts

    def _languages(self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded]) -> list[tuple[str, float | None]]:
        """Each item's language, and its probability where it was detected: one pass for all of them, and another on the
        full window for those that are in doubt."""
        only = None if self.info.multilingual else self.info.languages[0]
        found: dict[int, tuple[str, float | None]] = {}
        for index, job in enumerate(jobs):
            if code := job.options.language or only:
                found[index] = (code, None)
        unknown = [index for index in range(len(jobs)) if index not in found]
        heard = dict(zip(unknown, self._detect([jobs[i] for i in unknown], [encoded[i] for i in unknown])))
        unsure = [] if self._windows.tails is None else [i for i, (_, p) in heard.items() if p < LANGUAGE_UNSURE]
        whole = self._encoder.encode([jobs[i].chunk.samples for i in unsure], windows.FULL_WINDOW, shortcut=False)
        found |= heard | dict(zip(unsure, self._detect([jobs[i] for i in unsure], whole)))
        return [found[index] for index in range(len(jobs))]

    def _detect(self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded]) -> list[tuple[str, float]]:
        if not jobs:
            return []
        rankings = self._model.detect_language(as_batch(encoded))
        return [choose_language(ranking, job.options.candidate_languages) for ranking, job in zip(rankings, jobs)]

    def _tokenizer(self, options: DecodeOptions) -> Tokenizer:
        multilingual = self._model.is_multilingual
        return Tokenizer(self._whisper.hf_tokenizer, multilingual, options.task, options.language)

    def _request(self, encoded: Encoded, options: DecodeOptions) -> _Request:
        return _Request(encoded, self._tokenizer(options), self._earlier(options), options.word_timestamps)

    def _decode_one(
        self, samples: Samples, window: int, options: DecodeOptions, temperature: float = 0.0, shortcut: bool = False
    ) -> Decoded:
        (encoded,) = self._encoder.encode([samples], window, shortcut=shortcut)
        return self._decode([self._request(encoded, options)], temperature)[0]

    def _decode(self, batch: Sequence[_Request], temperature: float = 0.0) -> list[Decoded]:
        """Decodes a batch of one window and one length of prompt; sampled, without beams, over a temperature of 0."""
        prompts = [prompt_tokens(request.tokenizer, request.earlier) for request in batch]
        longest = max(request.encoded.seconds for request in batch)
        beams = 1 if temperature else self._options.beam_size
        # On a GPU, copying the logits of each token to the host costs more than the aligner's one pass.
        with_logits = beams == 1 and self.info.device == "cpu"
        results = self._model.generate(
            as_batch([request.encoded for request in batch]),
            prompts,
            beam_size=beams,
            max_length=max_length(longest, len(prompts[0])),
            return_no_speech_prob=True,
            return_logits_vocab=with_logits,
            suppress_tokens=self._suppressed,
            sampling_topk=0 if temperature else 1,
            sampling_temperature=temperature,
        )
        segments = [
            split_segments(result.sequences_ids[0], request.tokenizer, request.encoded.seconds)
            for result, request in zip(results, batch)
        ]
        if with_logits:
            logprobs = [
                greedy_logprobs(result.logits[0], result.sequences_ids[0], request.tokenizer.eot)
                for result, request in zip(results, batch)
            ]
        else:
            logprobs = self._aligned_logprobs(batch, [[t for s in own for t in s.tokens] for own in segments])
        return [
            Decoded(
                segments=own,
                logprobs=by_segment(sure, own),
                words=self._words(request, own),
                no_speech_prob=result.no_speech_prob,
                text=request.tokenizer.decode([t for s in own for t in s.tokens]),
            )
            for result, request, own, sure in zip(results, batch, segments, logprobs)
        ]

    def _aligned_logprobs(self, batch: Sequence[_Request], texts: Sequence[list[int]]) -> list[list[float]]:
        """Of every text token; those of one language and task in one pass."""
        found: list[list[float]] = [[] for _ in batch]
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (request, text) in enumerate(zip(batch, texts)):
            if text:
                alike[tuple(request.tokenizer.sot_sequence)].append(index)
        for indices in alike.values():
            outputs = as_batch([batch[i].encoded for i in indices])
            seconds = [batch[i].encoded.seconds for i in indices]
            tokenizer = batch[indices[0]].tokenizer
            sure = aligned_logprobs(self._whisper, outputs, tokenizer, [texts[i] for i in indices], seconds)
            for index, values in zip(indices, sure):
                found[index] = values
        return found

    def _words(self, request: _Request, segments: list[TimedTokens]) -> list[list[Word]]:
        if not request.words or not segments:
            return [[] for _ in segments]
        encoded = request.encoded
        return word_times(self._whisper, as_batch([encoded]), request.tokenizer, segments, encoded.seconds)

    def _segments(self, decoded: Decoded, offset: float) -> list[Segment]:
        """The segments of a decoding, moved by `offset` seconds to their place in the recording."""
        return [
            Segment(
                start=round(offset + segment.start, 3),
                end=round(offset + segment.end, 3),
                text=(text := self._any_language.decode(list(segment.tokens))),
                avg_logprob=sum(logprobs) / len(logprobs),
                no_speech_prob=decoded.no_speech_prob,
                compression_ratio=guard.compression_ratio(text),
                words=tuple(replace(w, start=round(offset + w.start, 3), end=round(offset + w.end, 3)) for w in words),
            )
            for segment, logprobs, words in zip(decoded.segments, decoded.logprobs, decoded.words)
        ]


def _check_wanted(jobs: Sequence[ChunkJob]) -> None:
    """Raises Abandoned if nobody waits for any of some jobs."""
    if not any(job.wanted() for job in jobs):
        raise Abandoned("nobody waits for it any more")
