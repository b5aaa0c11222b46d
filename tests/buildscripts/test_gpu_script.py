"""buildscripts/gpu on the CPU: every check with a scripted device, and the whole run with a real model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import pytest

from buildscripts.lib.bench.report import Accuracy
from buildscripts.lib.gpu import run
from buildscripts.lib.gpu.batches import BatchCost, knee, measure_batches, request_mib
from buildscripts.lib.gpu.checks import ComputeType, Recovery, check_compute_types, check_recovery, jobs_of
from buildscripts.lib.gpu.memory import PeakMemory, filled
from buildscripts.lib.gpu.report import ModelReport, report
from buildscripts.lib.gpu.run import NO_GPU, Budget, Device, main
from buildscripts.lib.load.closed_loop import Recording
from stt_server.engine.loading import ModelLoadError
from stt_server.engine.types import ChunkJob, Hypothesis, ModelInfo, Segment
from stt_server.observability.gpu import Gpu
from stt_server.testing.paths import MODELS
from tests.support.nvml import FakeNvml
from tests.support.speech import clip, samples_of

NO_MEMORY = "CUDA failed with error out of memory"


class Speaker:
    """A recognizer with one text for every chunk; fails while `failing` is set."""

    info = ModelInfo("it", "cuda", "float16", ("en",))

    def __init__(self) -> None:
        self.failing = ""
        self.batches: list[int] = []

    def group_of(self, job: ChunkJob) -> int:
        return 8

    def batch_limit(self, group: object) -> int:
        return 32

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        self.batches.append(len(jobs))
        if self.failing:
            raise RuntimeError(self.failing)
        segment = Segment(0.0, 1.0, " red fox", -0.1, 0.0, 1.0)
        return [Hypothesis((segment,), "en", None, (-0.1, -0.1), False) for _ in jobs]


def recordings(count: int = 1) -> list[Recording]:
    pcm = (samples_of(clip("en", "quick_brown_fox")) * 32767).astype("<i2").tobytes()
    return [Recording("a", "en", "red fox", True, pcm)] * count


def jobs() -> list[ChunkJob]:
    return [job for own in jobs_of(recordings(), draft=True) for job in own]


def cost(size: int, seconds: float, peak: float | None = None, window: str = "full") -> BatchCost:
    return BatchCost(window, size, seconds, 3.0 * size, peak)


def test_knee_is_the_smallest_batch_with_nearly_the_best_throughput() -> None:
    assert knee([cost(1, 1.0), cost(2, 1.05), cost(4, 1.2), cost(8, 2.3), cost(16, 4.6)]) == 4
    assert knee([]) is None


def test_memory_per_request_is_the_slope_of_the_peak() -> None:
    assert request_mib([cost(1, 1.0, 1000.0), cost(8, 1.0, 1070.0), cost(32, 1.0, 1310.0)]) == 10.0
    assert request_mib([cost(1, 1.0, None), cost(8, 1.0, 1070.0)]) is None


def test_peak_is_the_highest_value_read_during_the_block() -> None:
    rises = iter([100.0, 900.0])
    seen = threading.Event()

    def used() -> float:
        value = next(rises, 300.0)
        if value == 900.0:
            seen.set()
        return value

    with PeakMemory(used) as peak:
        assert seen.wait(10)
    assert peak.mib == 900.0
    with PeakMemory(lambda: None) as unknown:
        pass
    assert unknown.mib is None


def test_device_is_filled_with_ever_smaller_blocks_and_freed() -> None:
    free = 1024 + 256 + 100
    held: list[int] = []

    def allocate(mib: int) -> object:
        if sum(held) + mib > free:
            raise RuntimeError(NO_MEMORY)
        held.append(mib)
        return mib

    with filled(allocate):
        assert held == [1024, 256, 64, 16, 16]


def test_batches_are_measured_until_time_is_up() -> None:
    recognizer = Speaker()
    turns = iter([True, True, False])
    found = measure_batches(recognizer, "full", jobs(), lambda: 512.0, rounds=2, in_time=lambda: next(turns))
    assert [(one.size, one.peak_mib) for one in found] == [(1, 512.0), (2, 512.0)]
    assert recognizer.batches == [1, 1, 2, 2]
    assert found[1].audio == pytest.approx(2 * found[0].audio)


def test_compute_type_that_fails_is_reported_and_the_others_are_checked() -> None:
    used = Gpu(FakeNvml(), 1)

    def load(name: str) -> Speaker:
        if name == "int16":
            raise ModelLoadError("the model can't be loaded on cuda: int16\nis not supported")
        return Speaker()

    found = check_compute_types(
        ["float16", "int16", "int8"], load, recordings(), lambda: used.read().mem_used_mb, lambda: True
    )
    assert [(one.name, one.error) for one in found] == [
        ("float16", ""),
        ("int16", "the model can't be loaded on cuda: int16 is not supported"),
        ("int8", ""),
    ]
    assert found[0].mib == 0.0
    assert found[0].accuracy == Accuracy(0, 2, 0, 0)


@pytest.mark.parametrize(
    ("failing", "afterwards", "expected"),
    [
        (NO_MEMORY, "", ("out_of_memory", True, True)),
        (NO_MEMORY, "CUDA failed with error unspecified launch failure", ("out_of_memory", False, False)),
        ("", "", ("none", True, False)),
        ("cuBLAS failed with status CUBLAS_STATUS_NOT_SUPPORTED", "", ("device", True, False)),
    ],
)
def test_recovery_needs_the_right_failure_and_the_same_text_afterwards(
    failing: str, afterwards: str, expected: tuple[str, bool, bool]
) -> None:
    recognizer = Speaker()

    @contextmanager
    def fill() -> Iterator[None]:
        recognizer.failing = failing
        yield
        recognizer.failing = afterwards

    found = check_recovery(recognizer, jobs() * 4, fill, lambda: 512.0)
    assert (found.failure, found.recovered, found.passed) == expected
    assert recognizer.batches == [1, 4, 1]


def test_report_has_every_table_and_names_what_failed_or_was_skipped() -> None:
    right = Accuracy(1, 100, 0, 0)
    whole = ModelReport(
        "it",
        [ComputeType("float16", "", 1.5, 300.0, right), ComputeType("int16", "not supported")],
        [
            cost(1, 0.1, 1000.0, "adaptive"),
            cost(1, 0.4, 1000.0),
            cost(2, 0.1, 1010.0, "adaptive"),
            cost(2, 0.6, 1040.0),
        ],
        right,
        Accuracy(2, 100, 0, 0),
        Recovery("out_of_memory", True, 24000.0),
    )
    text = report(["$ buildscripts/gpu"], [whole, ModelReport("other", [ComputeType("int8", "")])])
    assert "| float16 | 1.5 | 300 | 1.0% |" in text
    assert "| int16 | failed: not supported | | |" in text
    assert "| 2 | 0.100 | 60 | 1010 | 0.600 | 10 | 1040 | 6.00 |" in text
    assert "- full: knee at a batch of 2; each further request 40 MiB" in text
    assert "- word error rate: adaptive 1.0%, full 2.0%" in text
    assert "- without free memory: failure `out_of_memory`; afterwards the next batch gave the same text" in text
    assert "- failed: it: compute type int16: not supported" in text
    assert "- no time for: other: batches" in text
    assert "All checks passed" not in text


def test_budget_keeps_a_rest() -> None:
    now = [0.0]
    budget = Budget(2.0, lambda: now[0])
    now[0] = 70.0
    assert budget.left()
    assert not budget.left(1.0)


def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    assert main([]) == NO_GPU
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "CTranslate2 sees 0" in captured.err


@pytest.mark.model
def test_whole_run_on_the_cpu_prints_a_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ROUNDS", 1)
    monkeypatch.setattr(run, "SIZES", (1, 2))
    used = Gpu(FakeNvml(), 1)
    device = Device("cpu", ("int8",), lambda: used.read().mem_used_mb, nullcontext)
    arguments = ["--models", "tiny.en", "--models-dir", str(MODELS), "--clips", "2", "--compute-type", "int8"]
    assert main(arguments, device) == 1
    printed = capsys.readouterr().out
    assert "| int8 |" in printed
    assert "- adaptive: knee at a batch of" in printed
    assert "failure none, expected out_of_memory; recovered" in printed


@pytest.mark.model
def test_missing_model_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    device = Device("cpu", ("int8",), lambda: None, nullcontext)
    assert main(["--models", "none"], device) == 1
    assert "no model none" in capsys.readouterr().err
