"""Turns the parallel regions of CTranslate2's OpenMP on and off while inferences run."""

from __future__ import annotations

import ctypes
import platform
import threading
from functools import cache
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from threadpoolctl import ThreadpoolController

from stt_server.engine.windows import FloatArray

_NARROW, _WIDE = 0, 1
"""Nested parallel regions that may be active: none, which leaves each region to the thread that reaches it, or one."""

_CHECKED_FRAMES = 1000
"""Frames of noise on which both ways must agree: 10 s."""

_TOLERANCE = 0.01
"""Largest difference of their outputs, relative to the largest value. Equal sums of another order differ by less."""


class ParallelRegions:
    """Whether the parallel regions of this process run on one thread or on as many as their model was loaded for.

    Takes effect at the next region, so within a step of the decoder. Source: `omp_set_max_active_levels`, OpenMP 4.5,
    section 3.2.15. In GNU's OpenMP up to GCC 11, which CTranslate2's wheels carry, the setting is one for the process.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """
        Args:
            library: GNU's OpenMP, as CTranslate2 uses it.
        """
        self._library = library
        self._lock = threading.Lock()
        self._narrow: set[object] = set()

    def set_narrow(self, model: object, narrow: bool) -> None:
        """Keep all regions of the process narrow while at least one model needs it."""
        with self._lock:
            if narrow:
                self._narrow.add(model)
            else:
                self._narrow.discard(model)
            self._library.omp_set_max_active_levels(_NARROW if self._narrow else _WIDE)

    def is_process_wide(self) -> bool:
        """Whether the setting of one thread holds in the others. In newer versions each thread has its own."""
        seen: list[int] = []
        before = self._library.omp_get_max_active_levels()
        reader = threading.Thread(target=lambda: seen.append(self._library.omp_get_max_active_levels()))
        self._library.omp_set_max_active_levels(_NARROW)
        try:
            reader.start()
            reader.join()
        finally:
            self._library.omp_set_max_active_levels(before)
        return seen == [_NARROW]


@cache
def parallel_regions() -> ParallelRegions | None:
    """Those of CTranslate2's wheel for Linux on x86-64; None where they can't be controlled this way.

    On ARM the wheel has OpenBLAS, which waits forever for threads that it planned for and didn't get.
    """
    if platform.machine() != "x86_64":
        return None
    bundled = Path(ctranslate2.__file__).resolve().parent.parent / "ctranslate2.libs"
    for library in ThreadpoolController().lib_controllers:
        path = Path(library.filepath)
        if path.parent == bundled and path.name.startswith("libgomp"):
            regions = ParallelRegions(library.dynlib)
            return regions if regions.is_process_wide() else None
    return None


def computes_alike(whisper: WhisperModel, regions: ParallelRegions) -> bool:
    """Whether the model's encoder and decoder compute the same in narrow regions as in wide ones.

    oneDNN, which CTranslate2 uses on processors of other makers than Intel, divides its matrix products by the number
    of threads that it expects: with fewer, most of the product is missing. Intel's MKL is right with any number.

    All regions of the process are narrow for a moment: no other model may compute meanwhile.
    """
    wide = _outputs(whisper)
    regions.set_narrow(whisper, True)
    try:
        narrow = _outputs(whisper)
    finally:
        regions.set_narrow(whisper, False)
    return all(float(np.abs(a - b).max()) <= _TOLERANCE * float(np.abs(a).max()) for a, b in zip(wide, narrow))


def _outputs(whisper: WhisperModel) -> list[FloatArray]:
    """The encoder's output for noise, and the decoder's logits after it."""
    noise = np.random.default_rng(0).standard_normal((1, whisper.model.n_mels, _CHECKED_FRAMES), dtype=np.float32)
    encoded = whisper.model.encode(ctranslate2.StorageView.from_array(noise), to_cpu=True)
    start = whisper.hf_tokenizer.token_to_id("<|startoftranscript|>")
    (found,) = whisper.model.generate(encoded, [[start]], beam_size=1, max_length=2, return_logits_vocab=True)
    logits = [np.asarray(step, dtype=np.float32) for step in found.logits[0]]
    return [np.asarray(encoded, dtype=np.float32), *logits]
