"""A Whisper model in CTranslate2's format: chunks in, hypotheses out.

The path of a batch: encode, detect languages, decode; then, for each chunk, decode again what isn't acceptable, and
drop hallucinations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
from faster_whisper import WhisperModel

from stt_server.engine import windows
from stt_server.engine.acceptance import (
    RedecodingBudget,
    are_credible,
    evidence_of,
    is_loop,
    needs_resampling,
    plausibility,
    rejection_reason,
)
from stt_server.engine.encoding import Encoded, Encoder
from stt_server.engine.generation import Decoded, TextDecoder
from stt_server.engine.hallucination import hallucination_reason
from stt_server.engine.language import LanguageDetector
from stt_server.engine.language_changes import ChunkPart, joined
from stt_server.engine.loading import ModelOptions, load, supported_languages
from stt_server.engine.repetition import Span, may_miss_repetitions, stretches_after, stretches_of_loop
from stt_server.engine.text_checks import stops_early
from stt_server.engine.types import Chunk, ChunkJob, DecodeOptions, Hypothesis, ModelInfo, Samples, speech_end
from stt_server.errors import Abandoned

log = logging.getLogger(__name__)

MAX_REMAINDERS = 4
"""How often the rest of a chunk is decoded again when the text stops before the speech does."""
CPU_BATCH_SECONDS = 96
"""Most seconds of windows in one batch on a CPU, where long batches save little and delay other chunks by seconds."""


class WhisperRecognizer:
    """The production `Recognizer`. Thread-safe: CTranslate2 queues calls to its workers."""

    def __init__(self, options: ModelOptions, loaded: WhisperModel | None = None) -> None:
        """Load the model, which takes seconds, or use a loaded one. Raises ModelLoadError."""
        self.options = options
        self.whisper = whisper = loaded or load(options)
        languages = supported_languages(whisper)
        self.info = ModelInfo(options.name, whisper.model.device, whisper.model.compute_type, languages)
        self._encoder = Encoder(whisper, options.encoder_window, options.encoder_tail)
        self._windows = self._encoder.windows
        self._detector = LanguageDetector(whisper.model, self._encoder, self.info)
        self._decoder = TextDecoder(whisper, options.beam_size)

    def warm_up(self) -> None:
        """Run every window size once, so that the first request doesn't pay for lazy allocations."""
        silence = np.zeros(windows.SAMPLE_RATE, dtype=np.float32)
        for window in self._windows.sizes:
            self._decode_one(silence, window, DecodeOptions(language=self.info.languages[0]))

    def group_of(self, job: ChunkJob) -> Hashable:
        """The decoder's window and the number of prompt tokens: CTranslate2 needs both to be the same in a batch."""
        window = self._windows.decoded(len(job.chunk.samples) / windows.SAMPLE_RATE)
        return window, len(self._decoder.earlier(job.options))

    def batch_limit(self, group: Hashable) -> int:
        """Unlimited on a GPU; at most `CPU_BATCH_SECONDS` of windows on a CPU."""
        if self.info.device != "cpu" or not isinstance(group, tuple):
            return 2**31
        return max(1, CPU_BATCH_SECONDS // int(group[0]))

    def recognize(self, chunk: Chunk, options: DecodeOptions) -> Hypothesis:
        """Recognize a single chunk. Raises as `recognize_batch` does."""
        return self.recognize_batch([ChunkJob(chunk, options)])[0]

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        """See `Recognizer.recognize_batch`."""
        longest = max(len(job.chunk.samples) for job in jobs) / windows.SAMPLE_RATE
        window = self._windows.decoded(longest)
        encoded: list[Encoded] = []
        added, jobs = jobs, list(jobs)
        while added:
            for step in self._encoder.steps(added):
                _check_wanted(jobs)
                encoded += self._encoder.encode([job.chunk.samples for job in step], window, shortcut=True)
            added = more()
            jobs += added
        _check_wanted(jobs)
        cut = self._detector.parts(jobs, encoded)
        whole = [index for index in range(len(jobs)) if index not in cut]
        found = dict(zip(whole, self._in_one_language([jobs[i] for i in whole], [encoded[i] for i in whole], window)))
        for index, parts in cut.items():
            found[index] = self._in_several_languages(jobs[index], parts)
        return [found[index] for index in range(len(jobs))]

    def _in_one_language(self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded], window: int) -> list[Hypothesis]:
        """Recognize encoded chunks, each in the language that is given or detected."""
        if not jobs:
            return []
        languages = self._detector.languages(jobs, encoded)
        jobs = [replace(job, options=replace(job.options, language=code)) for job, (code, _) in zip(jobs, languages)]
        decoded = self._decoder.decode([self._decoder.input(item, job.options) for item, job in zip(encoded, jobs)])
        hypotheses = []
        for job, first, own, (_, probability) in zip(jobs, decoded, encoded, languages):
            _check_wanted(jobs)  # decoding again may take long
            parts = [first] if job.draft else self._accepted(job, first, own, window)
            hypotheses.append(self._hypothesis(job, parts, probability))
        return hypotheses

    def _in_several_languages(self, job: ChunkJob, parts: Sequence[ChunkPart]) -> Hypothesis:
        """Recognize the parts of a chunk between which its language changes."""
        options = replace(job.options, context="")
        found = [self.recognize_batch([ChunkJob(part, options)])[0] for part in parts]
        return joined(list(zip(parts, found)))

    def _accepted(self, job: ChunkJob, decoded: Decoded, encoded: Encoded, window: int) -> list[Decoded]:
        """The best decoding of a chunk, and those of its parts that the text doesn't reach.

        Args:
            decoded: the first decoding, of `encoded`, on a shortened `window`.
        """
        budget = RedecodingBudget(len(job.chunk.samples) / windows.SAMPLE_RATE, window)
        if is_loop(decoded.text, job.chunk):
            parts = self._decode_stretches(job, stretches_of_loop(decoded.text, job.chunk), budget)
            if are_credible(parts):
                return parts
            window = windows.FULL_WINDOW
        decoded = self._decoded_on_wider_windows(job, decoded, window, budget)
        decoded = self._resampled(job, decoded, budget)
        repeated = self._repetitions(job, decoded, encoded, budget)
        return [decoded, *(repeated or self._remainders(job, decoded, budget))]

    def _repetitions(
        self, job: ChunkJob, decoded: Decoded, encoded: Encoded, budget: RedecodingBudget
    ) -> list[Decoded]:
        """Decode the repetitions that a text lacks: a sentence said twice is often written once."""
        if not may_miss_repetitions(decoded.text, job.chunk):
            return []
        end = self._decoder.text_end(self._decoder.input(encoded, job.options), decoded)
        if not stops_early(end, speech_end(job.chunk)):
            return []
        found = self._decode_stretches(job, stretches_after(end, job.chunk), budget)
        log.debug("decoded the rest of a chunk", extra={"offset_s": end, "parts": len(found)})
        return [part for part in found if are_credible([part])]

    def _decode_stretches(self, job: ChunkJob, spans: Sequence[Span], budget: RedecodingBudget) -> list[Decoded]:
        """Decode stretches of a chunk one by one, in one batch; empty if there is no budget for it."""
        rate = windows.SAMPLE_RATE
        samples = [job.chunk.samples[round(start * rate) : round(end * rate)] for start, end in spans]
        seconds = [len(own) / rate for own in samples]
        window = self._windows.decoded(max(seconds, default=0.0))
        if not samples or not budget.take(sum(self._windows.encoded(own, window) for own in seconds)):
            return []
        encoded = self._encoder.encode(samples, window, shortcut=True)
        # A beam search prefers loops over words as short as "no".
        found = self._decoder.decode([self._decoder.input(item, job.options) for item in encoded], greedy=True)
        return [replace(part, offset=start) for part, (start, _) in zip(found, spans)]

    def _decoded_on_wider_windows(
        self, job: ChunkJob, decoded: Decoded, window: int, budget: RedecodingBudget
    ) -> Decoded:
        """Decode a rejected text again with more encoded silence: the decoder's window first, then the full one.

        The full window costs several times as much.
        """
        if self._windows.tails is None:
            return decoded
        for wider in sorted({window, windows.FULL_WINDOW}):
            reason = rejection_reason(decoded, job.chunk)
            if reason is None or not budget.take(wider):
                break
            log.debug("decoding again on a wider window", extra={"doubt": reason, "window_s": wider})
            decoded = self._decode_one(job.chunk.samples, wider, job.options)
        return decoded

    def _resampled(self, job: ChunkJob, decoded: Decoded, budget: RedecodingBudget) -> Decoded:
        """Sample a looping or improbable text again at rising temperatures until one is neither.

        This is openai/whisper's temperature fallback with one sample for each temperature instead of the best of five,
        which bounds its time. If no text is acceptable, the most plausible one is returned.
        """
        tried = [decoded]
        for temperature in self.options.temperatures:
            if not needs_resampling(tried[-1], job.chunk) or not budget.take(windows.FULL_WINDOW):
                break
            tried.append(self._decode_one(job.chunk.samples, windows.FULL_WINDOW, job.options, temperature))
        if needs_resampling(tried[-1], job.chunk):
            return max(tried, key=lambda each: plausibility(each, job.chunk))
        return tried[-1]

    def _remainders(self, job: ChunkJob, decoded: Decoded, budget: RedecodingBudget) -> list[Decoded]:
        """Decode the rest of a chunk when the text stops early, so that no speech is lost."""
        parts: list[Decoded] = []
        offset = decoded.end
        while decoded.text and len(parts) < MAX_REMAINDERS and stops_early(offset, speech_end(job.chunk)):
            samples = job.chunk.samples[int(offset * windows.SAMPLE_RATE) :]
            window = self._windows.decoded(len(samples) / windows.SAMPLE_RATE)
            if not budget.take(window):
                break
            decoded = self._decode_one(samples, window, job.options, shortcut=True)
            if not decoded.text or decoded.end <= 0 or is_loop(decoded.text, job.chunk):
                break
            log.debug("decoded the rest of a chunk", extra={"offset_s": offset})
            parts.append(replace(decoded, offset=offset))
            offset += decoded.end
        return parts

    def _decode_one(
        self, samples: Samples, window: int, options: DecodeOptions, temperature: float = 0.0, shortcut: bool = False
    ) -> Decoded:
        (encoded,) = self._encoder.encode([samples], window, shortcut=shortcut)
        return self._decoder.decode([self._decoder.input(encoded, options)], temperature)[0]

    def _hypothesis(self, job: ChunkJob, parts: Sequence[Decoded], language_probability: float | None) -> Hypothesis:
        """Join the decoded parts of a chunk; empty if the text is a hallucination."""
        text = "".join(part.text for part in parts)
        logprobs = [logprob for part in parts for logprob in part.token_logprobs]
        looped = is_loop(text, job.chunk)
        reason = hallucination_reason(evidence_of(job.chunk, text, parts[0].no_speech_prob, logprobs))
        if reason is not None:
            log.debug("hallucinated text dropped", extra={"reason": reason, "start_s": job.chunk.start})
            parts, logprobs = [], []
        return Hypothesis(
            segments=tuple(s for part in parts for s in self._decoder.segments(part, job.chunk.start)),
            language=job.options.language or "",
            language_probability=language_probability,
            token_logprobs=tuple(logprobs),
            looped=looped,
            # Where speech is certain, an empty text is a doubt, which the fallback settles.
            suppressed=None if job.chunk.speech_certain else reason,
        )


def _check_wanted(jobs: Sequence[ChunkJob]) -> None:
    """Raise Abandoned if no caller is waiting for any of the jobs."""
    if not any(job.wanted() for job in jobs):
        raise Abandoned("no caller is waiting for the result")
