"""Classification of model exceptions, with the real texts of CTranslate2, CUDA, cuBLAS and cuDNN; model health."""

from __future__ import annotations

import pytest

from stt_server.engine.health.failures import failure_of, kind_of
from stt_server.engine.health.model_health import FAILURES_BEFORE_PROBE, ModelHealth
from stt_server.errors import DeviceFailed, EngineBug, EngineError, EngineLost, OutOfMemory


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("parallel_for failed: cudaErrorMemoryAllocation: out of memory"),
        RuntimeError("mkl_malloc: failed to allocate memory"),
        RuntimeError("std::bad_alloc"),
        MemoryError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_recognized_in_any_wording(error: Exception) -> None:
    assert type(failure_of(error)) is OutOfMemory


@pytest.mark.parametrize(
    "text",
    [
        "an illegal memory access was encountered",
        "an illegal instruction was encountered",
        "unspecified launch failure",
        "the launch timed out and was terminated",
        "device-side assert triggered",
        "misaligned address",
        "invalid program counter",
        "hardware stack error",
        "uncorrectable ECC error encountered",
        "uncorrectable NVLink error detected during the execution",
        "driver shutting down",
    ],
)
def test_poisoned_cuda_context_loses_the_model(text: str) -> None:
    assert type(failure_of(RuntimeError(f"CUDA failed with error {text}"))) is EngineLost


@pytest.mark.parametrize(
    ("error", "type_", "kind"),
    [
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), DeviceFailed, "device"),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_NOT_SUPPORTED"), DeviceFailed, "device"),
        (RuntimeError("cuDNN failed with status CUDNN_STATUS_EXECUTION_FAILED"), DeviceFailed, "device"),
        (RuntimeError("CUDA failed with error unknown error"), DeviceFailed, "device"),
        (RuntimeError("CUDA failed with error invalid argument"), DeviceFailed, "device"),
        (RuntimeError("Invalid features shape"), EngineError, "engine"),
        (ZeroDivisionError("a bug"), EngineBug, "unexpected"),
        (ValueError("a bug at /some/path"), EngineBug, "unexpected"),
    ],
)
def test_other_exceptions_are_classified(error: Exception, type_: type[EngineError], kind: str) -> None:
    failure = failure_of(error)
    assert type(failure) is type_
    assert kind_of(failure) == kind
    assert failure.__cause__ is error
    assert str(error) not in failure.message, "the device's text must not reach callers"


def test_engine_error_is_kept() -> None:
    known = OutOfMemory("the device is full")
    assert failure_of(known) is known


def test_consecutive_failures_request_a_probe() -> None:
    kinds: list[str] = []
    health = ModelHealth(on_failure=kinds.append)
    failure = failure_of(RuntimeError("no"))
    assert not any(health.record_failure(failure) for _ in range(FAILURES_BEFORE_PROBE - 1))
    health.record_success()
    assert [health.record_failure(failure) for _ in range(FAILURES_BEFORE_PROBE)] == [False] * (
        FAILURES_BEFORE_PROBE - 1
    ) + [True]
    assert not health.record_failure(failure), "the count starts again after a probe"
    assert kinds == ["engine"] * 2 * FAILURES_BEFORE_PROBE


def test_device_failure_requests_a_probe_at_once() -> None:
    assert ModelHealth().record_failure(DeviceFailed("it failed"))


def test_lost_model_is_reported_once() -> None:
    lost: list[EngineLost] = []
    health = ModelHealth(on_lost=lost.append)
    for _ in range(3):
        assert not health.record_failure(failure_of(RuntimeError("CUDA failed with error misaligned address")))
    assert len(lost) == 1
    assert health.error is lost[0]
