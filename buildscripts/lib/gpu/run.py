"""`buildscripts/gpu`: checks and measures the engine on a GPU, and prints a report for docs/engine.md.

For each model: every compute type that CTranslate2 supports on the device loads and transcribes; batches of 1 to 32
chunks on shortened and on full windows, with the knee and the memory per request as NVML reads it; word error rates of
both windows; and whether the engine reports a device without free memory as that, and works again afterwards. Parts
that --minutes leaves no time for are skipped and named. Nothing else should use the GPU meanwhile.

Exit status: 0 all checks passed, 1 a check failed, 3 no GPU is usable.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from buildscripts.lib.bench.report import accuracy
from buildscripts.lib.gpu.batches import SIZES, measure_batches
from buildscripts.lib.gpu.checks import check_compute_types, check_recovery, jobs_of, transcribe
from buildscripts.lib.gpu.memory import UsedMib, filled_device
from buildscripts.lib.gpu.report import ModelReport, report
from buildscripts.lib.load.closed_loop import Recording
from buildscripts.lib.load.corpus import CorpusError, load
from buildscripts.lib.models.measure import folder_of
from buildscripts.lib.models.pins import ROOT, FetchError
from stt_server.engine.loading import ModelLoadError, ModelOptions
from stt_server.engine.types import ChunkJob
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.observability.gpu import Gpu, load_nvml

NO_GPU = 3
"""Exit status without a usable GPU."""
ROUNDS = 5
"""Batches of each size; their median counts."""
OVERSIZE = 4
"""The batch that is to run out of memory, in largest batches: it must not fit what earlier batches left allocated."""
SHORT_SECONDS = 6.0
"""Longest recording that batches are made of: all have the same window."""


@dataclass(frozen=True)
class Device:
    """What is measured; tests replace parts of it."""

    name: str
    """`cuda`, or `cpu` in tests."""
    compute_types: tuple[str, ...]
    used_mib: UsedMib
    fill: Callable[[], AbstractContextManager[None]]


def gpu_device(index: int) -> Device | str:
    """The GPU, or a one-line reason why none can be used."""
    import ctranslate2

    try:
        count = ctranslate2.get_cuda_device_count()
        if not index < count:
            return f"no GPU {index}: CTranslate2 sees {count}; it needs NVIDIA's driver and CUDA 12 (docs/deploy.md)"
        types = tuple(sorted(ctranslate2.get_supported_compute_types("cuda", index)))
    except RuntimeError as error:
        return f"no usable GPU: {' '.join(str(error).split())}"
    gpu = Gpu(load_nvml(), index, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return Device("cuda", types, lambda: gpu.read().mem_used_mb, filled_device)


class Budget:
    """Time for the whole run."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + 60 * minutes

    def left(self, share: float = 0.0) -> bool:
        """Whether there is time left, before the last `share` of a minute."""
        return self._clock() < self._end - 60 * share


def check_model(
    folder: Path, device: Device, recordings: Sequence[Recording], budget: Budget, options: ModelOptions
) -> ModelReport:
    """Run all checks of one model.

    Raises:
        ModelLoadError: the model can't be loaded with any compute type.
    """
    found = ModelReport(folder.name)
    found.compute_types = check_compute_types(
        device.compute_types,
        lambda name: WhisperRecognizer(replace(options, compute_type=name)),
        recordings[:4],
        device.used_mib,
        budget.left,
    )
    adaptive = WhisperRecognizer(options)
    adaptive.warm_up()
    full = WhisperRecognizer(replace(options, encoder_window="full"), adaptive.whisper)
    full.warm_up()
    short = [r for r in recordings if r.seconds <= SHORT_SECONDS - 1] or recordings
    jobs = _one_group(adaptive, [job for own in jobs_of(short, draft=True) for job in own])
    for kind, recognizer in (("adaptive", adaptive), ("full", full)):
        found.batches += measure_batches(
            recognizer, kind, jobs, device.used_mib, rounds=ROUNDS, in_time=lambda: budget.left(1.0), sizes=SIZES
        )
    if budget.left(0.5):
        found.adaptive, found.full = (
            accuracy(recordings, [transcribe(recognizer, recordings)], lambda language: True)
            for recognizer in (adaptive, full)
        )
    if budget.left(0.5):
        many = [jobs[i % len(jobs)] for i in range(OVERSIZE * SIZES[-1])]
        found.recovery = check_recovery(full, many, device.fill, device.used_mib)
    return found


def _one_group(recognizer: WhisperRecognizer, jobs: Sequence[ChunkJob]) -> list[ChunkJob]:
    """The jobs of the largest group."""
    groups: dict[object, list[ChunkJob]] = {}
    for job in jobs:
        groups.setdefault(recognizer.group_of(job), []).append(job)
    return max(groups.values(), key=len)


def main(argv: Sequence[str], device: Device | None = None) -> int:
    """Print the report; return the exit status.

    Args:
        device: replaces the GPU in tests.
    """
    args = _arguments(argv)
    found = device or gpu_device(args.device_index)
    if isinstance(found, str):
        print(f"gpu: {found}", file=sys.stderr)
        return NO_GPU
    budget = Budget(args.minutes)
    models = []
    try:
        folders = [folder_of(name, args.models_dir) for name in args.models]
        for folder in folders:
            english = ".en" in folder.name
            clips = [clip for clip in load(args.corpus) if clip.language == "en" or not english]
            recordings = [Recording.of(clip) for clip in clips[: args.clips]]
            options = ModelOptions(folder, folder.name, found.name, args.device_index, args.compute_type)
            models.append(check_model(folder, found, recordings, budget, options))
    except (FetchError, CorpusError, ModelLoadError) as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 1
    print(report(_head(argv), models))
    return 1 if any(model.failed for model in models) else 0


def _head(argv: Sequence[str]) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("faster-whisper", "ctranslate2"))
    return [
        f"$ buildscripts/gpu {' '.join(argv)}".rstrip(),
        f"{versions}, {', '.join(_boards()) or 'no NVML'}",
        platform.platform(),
    ]


def _boards() -> list[str]:
    """Names of the boards, as NVML reports them."""
    nvml = load_nvml()
    if nvml is None:
        return []
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
    except nvml.NVMLError:
        return []


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["base"], metavar="NAME", help="names or folders; default: base")
    parser.add_argument("--models-dir", type=Path, default=ROOT / "models", help="default: models/ of the repository")
    parser.add_argument(
        "--corpus", type=Path, default=ROOT / "samples", help="recordings with their texts; default: samples/"
    )
    parser.add_argument("--clips", type=int, default=64, help="most recordings; default: 64")
    parser.add_argument("--device-index", type=int, default=0)
    parser.add_argument("--compute-type", default="float16", help="for batches and memory; default: float16")
    parser.add_argument("--minutes", type=float, default=9.0, help="for the whole run; default: 9")
    return parser.parse_args(argv)
