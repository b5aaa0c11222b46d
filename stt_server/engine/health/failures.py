"""Classifies exceptions raised by the model."""

from __future__ import annotations

from typing import Literal

from stt_server.errors import DeviceFailed, EngineBug, EngineError, EngineLost, OutOfMemory

FailureKind = Literal["engine", "device", "out_of_memory", "unexpected", "lost"]

_NO_MEMORY = ("out of memory", "alloc_failed", "bad_alloc", "failed to allocate")
"""Phrases of CUDA, cuBLAS, C++ and MKL."""

_POISON = (
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "device-side assert triggered",
    "misaligned address",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "hardware stack error",
    "uncorrectable ecc error encountered",
    "uncorrectable nvlink error",
    "context is destroyed",
    "driver shutting down",
)
"""Texts of cudaGetErrorString, which CTranslate2 passes on as `CUDA failed with error ...`, for the errors after which
"any further CUDA work will return the same error" and "the process must be terminated and relaunched" (cudaError in the
CUDA Runtime API)."""

_DEVICE = ("cuda failed", "cublas failed", "cudnn failed")
"""Other errors of these libraries may concern one call or all later ones, which only the next call shows. A poisoned
context often shows first as CUBLAS_STATUS_EXECUTION_FAILED."""


def failure_of(error: Exception) -> EngineError:
    """The error to report for a model's exception. The exception's own text is only logged."""
    if isinstance(error, EngineError):
        return error
    text = str(error).lower()
    failure: EngineError
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        failure = OutOfMemory("the device is out of memory; retry, or send shorter audio")
    elif any(sign in text for sign in _POISON):
        return lost(error)
    elif any(sign in text for sign in _DEVICE):
        failure = DeviceFailed("the device failed on this recording; retry")
    elif isinstance(error, RuntimeError):
        failure = EngineError("the model failed on this recording")
    else:
        failure = EngineBug("internal error; report it with the request id")
    failure.__cause__ = error
    return failure


def lost(cause: Exception) -> EngineLost:
    """The error of a model that doesn't work any more."""
    failure = EngineLost("the model failed for good and this server shuts down; retry, or use another server")
    failure.__cause__ = cause
    return failure


def kind_of(failure: EngineError) -> FailureKind:
    """The failure's label in logs and metrics."""
    return next(kind for type_, kind in _KINDS if isinstance(failure, type_))


_KINDS: tuple[tuple[type[EngineError], FailureKind], ...] = (
    (EngineLost, "lost"),
    (OutOfMemory, "out_of_memory"),
    (DeviceFailed, "device"),
    (EngineBug, "unexpected"),
    (EngineError, "engine"),
)
