"""Decodes a chunk again, wholly or in parts, until its text is acceptable and says all of its speech."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

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
from stt_server.engine.chunk_parts import ChunkPart, Span, part_of
from stt_server.engine.coverage import adds_text, extent_of, inserted, is_apart, is_slow, uncovered
from stt_server.engine.encoding import Encoded, Encoder
from stt_server.engine.generation import Decoded, TextDecoder
from stt_server.engine.hallucination import hallucination_reason
from stt_server.engine.language import LanguageDetector
from stt_server.engine.language_choice import Reading
from stt_server.engine.repetition import ended, may_miss_repetitions, stretches_after, stretches_of_loop
from stt_server.engine.text_checks import stops_early
from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis, Samples, speech_end

log = logging.getLogger(__name__)

MAX_REMAINDERS = 4
"""How often the rest of a chunk is decoded again when the text stops before the speech does."""


class Redecoder:
    """Makes hypotheses of first decodings. Thread-safe, as the model is."""

    def __init__(
        self, encoder: Encoder, decoder: TextDecoder, detector: LanguageDetector, temperatures: Sequence[float]
    ) -> None:
        self._encoder = encoder
        self._windows = encoder.windows
        self._decoder = decoder
        self._detector = detector
        self._temperatures = temperatures

    def draft(self, first: Reading) -> Hypothesis:
        """The hypothesis of a first decoding, however good it is."""
        return self._hypothesis(first.job, [first.decoded], first.language_probability)

    def hypothesis(self, first: Reading, budget: RedecodingBudget) -> Hypothesis:
        """The hypothesis of a chunk, decoded again where that is needed.

        Args:
            first: the first decoding, on a shortened window.
            budget: what remains of it for the chunk.
        """
        job, encoded = first.job, first.input.encoded
        parts = self._accepted(job, first.decoded, encoded, budget)
        found = self._hypothesis(job, parts, first.language_probability)
        found = self._filled(job, found, self._covered(job, encoded, parts, found), budget)
        return replace(found, redecoded_seconds=budget.spent)

    def _accepted(self, job: ChunkJob, decoded: Decoded, encoded: Encoded, budget: RedecodingBudget) -> list[Decoded]:
        """The best decoding of a chunk, and those of its parts that the text doesn't reach."""
        window = len(encoded.output) // windows.POSITIONS_PER_SECOND
        if is_loop(decoded.text, job.chunk):
            parts = self._stretches(job, stretches_of_loop(decoded.text, job.chunk), budget)
            if are_credible(parts):
                return parts
            window = windows.FULL_WINDOW
        decoded = self._decoded_on_wider_windows(job, decoded, window, budget)
        decoded = self._resampled(job, decoded, budget)
        repeated = self._repetitions(job, decoded, encoded, budget)
        return repeated or [decoded, *self._remainders(job, decoded, budget)]

    def _repetitions(
        self, job: ChunkJob, decoded: Decoded, encoded: Encoded, budget: RedecodingBudget
    ) -> list[Decoded]:
        """A text that lacks repetitions, and these: a sentence said twice is often written once. Empty without them."""
        if not may_miss_repetitions(decoded.text, job.chunk):
            return []
        words = self._decoder.words(self._decoder.input(encoded, job.options), decoded.segments)
        end = max((word.end for own in words for word in own), default=0.0)
        if not stops_early(end, speech_end(job.chunk)):
            return []
        found = self._stretches(job, stretches_after(end, job.chunk), budget)
        parts = [part for part in found if are_credible([part])]
        log.debug("decoded repetitions", extra={"offset_s": end, "parts": len(parts)})
        return [ended(decoded, end), *parts] if parts else []

    def _stretches(self, job: ChunkJob, spans: Sequence[Span], budget: RedecodingBudget) -> list[Decoded]:
        """Decode stretches of a chunk one by one, in one batch; empty if there is no budget for it."""
        rate = windows.SAMPLE_RATE
        samples = [job.chunk.samples[round(start * rate) : round(end * rate)] for start, end in spans]
        seconds = [len(own) / rate for own in samples]
        window = self._windows.decoded(max(seconds, default=0.0))
        if not samples or not budget.take(sum(self._windows.encoded(own, window) for own in seconds)):
            return []
        encoded = self._encoder.encode(samples, window, shortcut=True)
        # A beam search prefers loops over words as short as "no".
        found = self._decoder.decode([self._decoder.input(item, job.options) for item in encoded], beams=1)
        return [replace(budget.charge(part), offset=start) for part, (start, _) in zip(found, spans)]

    def _decoded_on_wider_windows(
        self, job: ChunkJob, decoded: Decoded, window: int, budget: RedecodingBudget
    ) -> Decoded:
        """Decode a rejected text again with more encoded silence: the decoder's window first, then the full one.

        The full window costs several times as much. Where both are too much, the full one is worth more.
        """
        if self._windows.tails is None:
            return decoded
        for wider in sorted({window, windows.FULL_WINDOW}):
            reason = rejection_reason(decoded, job.chunk)
            if wider + windows.FULL_WINDOW > budget.left >= windows.FULL_WINDOW > wider:
                continue
            if reason is None or not budget.take(wider):
                break
            log.debug("decoding again on a wider window", extra={"doubt": reason, "window_s": wider})
            decoded = budget.charge(self.decode_one(job.chunk.samples, wider, job.options))
        return decoded

    def _resampled(self, job: ChunkJob, decoded: Decoded, budget: RedecodingBudget) -> Decoded:
        """Sample a looping or improbable text again at rising temperatures until one is neither.

        This is openai/whisper's temperature fallback with one sample for each temperature instead of the best of five,
        which bounds its time. If no text is acceptable, the most plausible one is returned.
        """
        tried = [decoded]
        for temperature in self._temperatures:
            if not needs_resampling(tried[-1], job.chunk) or not budget.take(windows.FULL_WINDOW):
                break
            sampled = self.decode_one(job.chunk.samples, windows.FULL_WINDOW, job.options, temperature)
            tried.append(budget.charge(sampled))
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
            decoded = budget.charge(self.decode_one(samples, window, job.options, shortcut=True))
            if not decoded.text or decoded.end <= 0 or is_loop(decoded.text, job.chunk):
                break
            log.debug("decoded the rest of a chunk", extra={"offset_s": offset})
            parts.append(replace(decoded, offset=offset))
            offset += decoded.end
        return parts

    def _covered(self, job: ChunkJob, encoded: Encoded, parts: Sequence[Decoded], found: Hypothesis) -> list[Span]:
        """What the segments of a chunk cover, by their times, and by those of their words where the text is short."""
        spans = [(part.offset + s.start, part.offset + s.end) for part in parts for s in part.segments]
        if not any(is_slow(segment.text, job.chunk, span) for segment, span in zip(found.segments, spans)):
            return spans
        first = parts[0].segments
        words = self._decoder.words(self._decoder.input(encoded, job.options), first)
        return [*(extent_of(span, own) for span, own in zip(spans, words)), *spans[len(first) :]]

    def _filled(
        self, job: ChunkJob, found: Hypothesis, covered: Sequence[Span], budget: RedecodingBudget
    ) -> Hypothesis:
        """Add the text of certain speech that no segment covers."""
        if not found.segments or not job.chunk.speech_certain:
            return found
        for index, gap in sorted(uncovered(job.chunk, covered).items(), reverse=True):
            # Strict with it: music between sentences can pass for a voice.
            part = replace(part_of(job.chunk, gap), speech_certain=False)
            window = self._windows.decoded(len(part.samples) / windows.SAMPLE_RATE)
            if not budget.take(window):
                break
            added = self._gap(job, part, window, budget)
            adds = adds_text(added, found, index, apart=is_apart(job.chunk, gap))
            log.debug("decoded a gap of a chunk", extra={"gap_s": gap, "added": adds})
            if adds:
                found = inserted(added, found, index)
        return found

    def _gap(self, job: ChunkJob, part: ChunkPart, window: int, budget: RedecodingBudget) -> Hypothesis:
        """Recognize a part of a chunk that its text left out, maybe since it is in another language."""
        given = None if job.may_change_language else job.options.language
        own = ChunkJob(
            part,
            replace(job.options, language=given, context=""),
            expected_language=job.options.language or "",
            wanted=job.wanted,
        )
        encoded = self._encoder.encode([part.samples], window, shortcut=True)
        (language,) = self._detector.languages([own], encoded)
        own = replace(own, options=replace(own.options, language=language.code))
        first = budget.charge(self._decoder.decode([self._decoder.input(encoded[0], own.options)])[0])
        return self._hypothesis(own, self._accepted(own, first, encoded[0], budget), language.probability)

    def decode_one(
        self, samples: Samples, window: int, options: DecodeOptions, temperature: float = 0.0, shortcut: bool = False
    ) -> Decoded:
        """Decode samples in a window of this many seconds."""
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
