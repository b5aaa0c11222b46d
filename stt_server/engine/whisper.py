"""A Whisper model in CTranslate2's format: chunks in, hypotheses out.

The path of a batch: encode, detect languages, decode; then, for each chunk, decode again what isn't acceptable, and
drop hallucinations.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from faster_whisper import WhisperModel

from stt_server.engine import windows
from stt_server.engine.acceptance import RedecodingBudget
from stt_server.engine.chunk_parts import ChunkPart
from stt_server.engine.core_sharing import CoreSharing
from stt_server.engine.encoding import Encoded, Encoder
from stt_server.engine.generation import TextDecoder
from stt_server.engine.language import Language, LanguageDetector
from stt_server.engine.language_changes import joined
from stt_server.engine.language_choice import LanguageChoice, Reading
from stt_server.engine.loading import ModelOptions, load, supported_languages
from stt_server.engine.redecoding import Redecoder
from stt_server.engine.second_look import SecondLook
from stt_server.engine.sentence_edges import SentenceEdges
from stt_server.engine.types import Chunk, ChunkJob, DecodeOptions, Hypothesis, ModelInfo
from stt_server.errors import Abandoned

CPU_BATCH_SECONDS = 96
"""Most seconds of windows in one batch on a CPU, where long batches save little and delay other chunks by seconds."""


class WhisperRecognizer:
    """The production `Recognizer`. Thread-safe: CTranslate2 queues calls to its workers."""

    def __init__(self, options: ModelOptions, loaded: WhisperModel | None = None) -> None:
        """Load the model, which takes seconds, or use a loaded one. Raises ModelLoadError."""
        self.options = options
        self.sharing: CoreSharing | None = None
        """How inferences share the cores; None: the threads of each are fixed."""
        if loaded is None:
            loaded, self.sharing = load(options)
        self.whisper = whisper = loaded
        languages = supported_languages(whisper)
        self.info = ModelInfo(options.name, whisper.model.device, whisper.model.compute_type, languages)
        self._encoder = Encoder(whisper, options.encoder_window, options.encoder_tail)
        self._windows = self._encoder.windows
        self._detector = LanguageDetector(whisper.model, self.info)
        self._decoder = TextDecoder(whisper, options.beam_size)
        self._language_choice = LanguageChoice(self._decoder)
        self._second_look = SecondLook(self._decoder, options.beam_size_in_doubt)
        self._sentence_edges = SentenceEdges(self._decoder)
        self._redecoder = Redecoder(self._encoder, self._decoder, self._detector, options.temperatures)

    def warm_up(self) -> None:
        """Run every window size once, so that the first request doesn't pay for lazy allocations."""
        silence = np.zeros(windows.SAMPLE_RATE, dtype=np.float32)
        for window in self._windows.sizes:
            self._redecoder.decode_one(silence, window, DecodeOptions(language=self.info.languages[0]))

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
        if self.sharing is None:
            return self._recognize(jobs, more)
        with self.sharing.inference(draft=all(job.draft for job in jobs)):
            return self._recognize(jobs, more)

    def _recognize(self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]]) -> list[Hypothesis]:
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
        survey = self._detector.survey(jobs, encoded)
        for index, code in survey.expected.items():
            jobs[index] = replace(jobs[index], options=replace(jobs[index].options, language=code))
        whole = [index for index in range(len(jobs)) if index not in survey.parts]
        known = {place: survey.sure[i] for place, i in enumerate(whole) if i in survey.sure}
        texts = self._in_one_language([jobs[i] for i in whole], [encoded[i] for i in whole], known, window)
        found = dict(zip(whole, texts))
        for index, parts in survey.parts.items():
            found[index] = self._in_several_languages(jobs[index], parts)
        return [found[index] for index in range(len(jobs))]

    def _in_one_language(
        self, jobs: Sequence[ChunkJob], encoded: Sequence[Encoded], known: Mapping[int, Language], window: int
    ) -> list[Hypothesis]:
        """Recognize encoded chunks, each in the language that is given, known by its index, or detected."""
        if not jobs:
            return []
        budgets = [RedecodingBudget(len(job.chunk.samples) / windows.SAMPLE_RATE, window) for job in jobs]
        languages = self._detector.languages(jobs, encoded, known)
        jobs = [replace(job, options=replace(job.options, language=own.code)) for job, own in zip(jobs, languages)]
        inputs = [self._decoder.input(item, job.options) for item, job in zip(encoded, jobs)]
        readings = [
            Reading(job, item, decoded, own.probability)
            for job, item, decoded, own in zip(jobs, inputs, self._decoder.decode(inputs), languages)
        ]
        readings = self._language_choice.settled(readings, languages, budgets)
        readings = self._second_look.improved(readings, budgets)
        readings = self._sentence_edges.completed(readings)
        hypotheses = []
        for reading, budget in zip(readings, budgets):
            _check_wanted(jobs)  # decoding again may take long
            if reading.job.draft:
                hypotheses.append(self._redecoder.draft(reading))
            else:
                hypotheses.append(self._redecoder.hypothesis(reading, budget))
        return hypotheses

    def _in_several_languages(self, job: ChunkJob, parts: Sequence[ChunkPart]) -> Hypothesis:
        """Recognize the parts of a chunk between which its language changes."""
        options = replace(job.options, context="")
        jobs = [ChunkJob(part, options, begins=job.begins and part is parts[0]) for part in parts]
        found = [self._recognize([own], tuple)[0] for own in jobs]
        return joined(list(zip(parts, found)))


def _check_wanted(jobs: Sequence[ChunkJob]) -> None:
    """Raise Abandoned if no caller is waiting for any of the jobs."""
    if not any(job.wanted() for job in jobs):
        raise Abandoned("no caller is waiting for the result")
