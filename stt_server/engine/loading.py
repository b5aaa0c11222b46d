"""Loading a Whisper model in CTranslate2's format."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
from faster_whisper import WhisperModel
from threadpoolctl import threadpool_limits

from stt_server.engine.windows import WindowRule

_REQUIRED = ("model.bin", "config.json", "tokenizer.json")
"""Without the last one faster-whisper would ask the network for a tokenizer."""

NICENESS = 10
"""More than the process's, for the threads that compute on a processor: those that answer callers need it for moments
only, and would wait for their turn among them. Nine to one, in Linux's weights."""


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
    encoder_window: WindowRule = "adaptive"
    temperatures: tuple[float, ...] = ()
    """Tried in turn, once each, on a text that loops or is hopelessly unsure; none where a larger model is behind."""


def load(options: ModelOptions) -> WhisperModel:
    """The model, its tokenizer and its feature extractor; takes seconds. From then on numpy uses one thread.

    Raises:
        ModelLoadError: there is no usable model, or not for this device.
    """
    for required in _REQUIRED:
        if not (options.path / required).is_file():
            raise ModelLoadError(f"the model folder {options.path} has no {required}; fetch the model again")
    # For features, numpy multiplies matrices so small that its own threads only spin, on cores that the workers need.
    threadpool_limits(limits=1, user_api="blas")
    try:
        # In a thread of its own, since those that CTranslate2 starts are as nice as the one that they come from.
        with ThreadPoolExecutor(1, "loading", _give_way if _computes_here(options) else None) as thread:
            return thread.submit(_model, options).result()
    except (RuntimeError, ValueError, OSError) as error:
        where = f"the model in {options.path} can't be loaded on {options.device}"
        raise ModelLoadError(f"{where}: {_one_line(error)}") from error
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise ModelLoadError(f"the model in {options.path} is damaged: {_one_line(error)}") from error


def _model(options: ModelOptions) -> WhisperModel:
    return WhisperModel(
        str(options.path),
        device=options.device,
        device_index=options.device_index,
        compute_type=options.compute_type,
        cpu_threads=options.cpu_threads,
        num_workers=options.workers,
    )


def _computes_here(options: ModelOptions) -> bool:
    """Whether the processor computes. Threads that only feed a GPU had better not wait."""
    return options.device == "cpu" or (options.device == "auto" and ctranslate2.get_cuda_device_count() == 0)


def _give_way() -> None:
    if sys.platform == "linux":  # where threads have a niceness each
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + NICENESS)


@contextmanager
def reporting_load_errors(options: ModelOptions) -> Iterator[None]:
    """Around the first use of a model: files that can be read may still not belong together.

    Raises:
        ModelLoadError: whatever goes wrong inside.
    """
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(f"the model in {options.path} can't be used: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
