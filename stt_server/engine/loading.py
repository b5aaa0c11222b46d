"""Loading a Whisper model in CTranslate2's format."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ctranslate2
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from threadpoolctl import threadpool_limits

from stt_server.engine.alignment_heads import amended_files
from stt_server.engine.core_sharing import MAX_THREADS, CoreSharing
from stt_server.engine.parallel_regions import computes_alike, parallel_regions
from stt_server.engine.two_copies import MAX_FILE_BYTES, TwoCopies
from stt_server.engine.windows import WindowRule

_REQUIRED = ("model.bin", "config.json", "tokenizer.json")
"""Without the last one faster-whisper would download a tokenizer."""

NICENESS = 10
"""Added to the process's niceness for threads that compute on the CPU: threads that serve callers mustn't wait
for them: those run only briefly. In Linux's weights, nine to one."""


class ModelLoadError(Exception):
    """The model can't be used as configured. The message is one line: what is wrong and what to change."""


@dataclass(frozen=True)
class ModelOptions:
    """Options for loading and decoding; see the configuration keys of the same names."""

    path: Path
    name: str
    device: str = "auto"
    device_index: int = 0
    compute_type: str = "default"
    cpu_threads: int = 1
    shared_cores: int = 1
    """Cores of a CPU on which inferences of one thread spread while they are few (`core_sharing`); 1: they don't."""
    workers: int = 1
    """Concurrent inferences: CTranslate2's `inter_threads`."""
    beam_size: int = 1
    beam_size_in_doubt: int = 1
    """Hypotheses kept by a second search for texts that the first one leaves in doubt; up to `beam_size`: none."""
    encoder_window: WindowRule = "adaptive"
    encoder_tail: float | None = None
    """Seconds of silence after the audio in a shortened window; None: as measured for the model's width."""
    temperatures: tuple[float, ...] = ()
    """Tried in order, once each, on a text that loops or is too improbable; empty with a fallback behind this model."""


def load(options: ModelOptions) -> tuple[WhisperModel, CoreSharing | None]:
    """Load the model, its tokenizer and its feature extractor. Takes seconds, and limits numpy to one thread.

    Returns:
        The model, and how its inferences share the cores; None if the threads of each are fixed.

    Raises:
        ModelLoadError: the model is missing or damaged, or can't run on this device.
    """
    for required in _REQUIRED:
        if not (options.path / required).is_file():
            raise ModelLoadError(f"the model folder {options.path} has no {required}; fetch the model again")
    # The matrices of the features are so small that numpy's threads only spin, on cores that the workers need.
    threadpool_limits(limits=1, user_api="blas")
    try:
        # In a separate thread: CTranslate2's threads inherit the niceness of the one that starts them.
        with ThreadPoolExecutor(1, "loading", _lower_priority if _computes_on_cpu(options) else None) as thread:
            return thread.submit(_shared_model, options).result()
    except ModelLoadError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        where = f"the model in {options.path} can't be loaded on {options.device}"
        raise ModelLoadError(f"{where}: {_one_line(error)}") from error
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise ModelLoadError(f"the model in {options.path} is damaged: {_one_line(error)}") from error


def supported_languages(whisper: WhisperModel) -> tuple[str, ...]:
    """Codes of the languages that the model has a token for, sorted; just `en` for an English-only model.

    faster-whisper lists all of Whisper's languages, some of which only large-v3 and its descendants have.
    """
    if not whisper.model.is_multilingual:
        return ("en",)
    known = (
        code for code in whisper.supported_languages if whisper.hf_tokenizer.token_to_id(f"<|{code}|>") is not None
    )
    return tuple(sorted(known))


def _shared_model(options: ModelOptions) -> tuple[WhisperModel, CoreSharing | None]:
    """Load the model so that its inferences can share the cores, if they may and it can."""
    threads = min(MAX_THREADS, options.shared_cores)
    if threads == 1 or options.cpu_threads > 1 or not _computes_on_cpu(options):
        return _model(options, options.cpu_threads), None
    regions = parallel_regions()
    may_copy = (options.path / "model.bin").stat().st_size <= MAX_FILE_BYTES
    if regions is None and not may_copy:
        return _model(options, 1), None
    whisper = _model(options, threads)
    if regions is not None:
        with reporting_load_errors(options):
            alike = computes_alike(whisper, regions)
        if alike:
            return whisper, CoreSharing(threads, options.shared_cores, partial(regions.set_narrow, whisper))
    if not may_copy or _threads_may_be_missing():
        del whisper  # before its memory is needed again
        return _model(options, 1), None
    copies = TwoCopies(_model(options, 1).model, whisper.model)
    whisper.model = copies
    return whisper, CoreSharing(threads, options.shared_cores, copies.set_narrow)


def _threads_may_be_missing() -> bool:
    """Whether the environment lets OpenMP start fewer threads than planned for, with which oneDNN computes wrongly."""
    return "OMP_THREAD_LIMIT" in os.environ or os.environ.get("OMP_DYNAMIC", "").strip().lower() in ("true", "1")


def _model(options: ModelOptions, threads: int) -> WhisperModel:
    files = amended_files(options.path)
    try:
        whisper = WhisperModel(
            str(options.path),
            device=options.device,
            device_index=options.device_index,
            compute_type=options.compute_type,
            cpu_threads=threads,
            num_workers=options.workers,
            files=files,
        )
    finally:
        for content in (files or {}).values():
            if not isinstance(content, bytes):
                content.close()
    # faster-whisper takes 80 mel bands if preprocessor_config.json is missing; large-v3 and its descendants have 128.
    if len(whisper.feature_extractor.mel_filters) != whisper.model.n_mels:
        whisper.feature_extractor = FeatureExtractor(feature_size=whisper.model.n_mels)
    return whisper


def _computes_on_cpu(options: ModelOptions) -> bool:
    """Whether the CPU computes. Threads that only feed a GPU keep their priority."""
    return options.device == "cpu" or (options.device == "auto" and ctranslate2.get_cuda_device_count() == 0)


def _lower_priority() -> None:
    if sys.platform == "linux":  # where each thread has its own niceness
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + NICENESS)


@contextmanager
def reporting_load_errors(options: ModelOptions) -> Iterator[None]:
    """Convert errors of the first use of a model: its files may be readable and still not fit together.

    Raises:
        ModelLoadError: for any exception raised in the context.
    """
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(f"the model in {options.path} can't be used: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
