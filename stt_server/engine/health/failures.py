"""What an exception of a model means: for its caller, and for the model itself."""

from __future__ import annotations

from typing import Literal

from stt_server.errors import DeviceFailed, EngineBug, EngineError, EngineLost, OutOfMemory

FailureKind = Literal["engine", "device", "out_of_memory", "unexpected", "lost"]

_NO_MEMORY = ("out of memory", "alloc_failed", "bad_alloc", "failed to allocate")
"""CUDA, cuBLAS, C++ and MKL each say it in their own words."""

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
"""The errors after which CUDA says that "any further CUDA work will return the same error" and "the process must be
terminated and relaunched" (cudaError in the CUDA Runtime API), in the words of cudaGetErrorString, which CTranslate2
passes on: `CUDA failed with error ...`."""

_DEVICE = ("cuda failed", "cublas failed", "cudnn failed")
"""Other errors of these can be of one call, or of all from now on; what comes next tells. A cuBLAS that can't execute
(CUBLAS_STATUS_EXECUTION_FAILED) is often the first to meet a poisoned context."""


def failure_of(error: Exception) -> EngineError:
    """What callers and the service are told of an exception of a model; its text goes no further than the log."""
    if isinstance(error, EngineError):
        return error
    text = str(error).lower()
    failure: EngineError
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        failure = OutOfMemory("the device is out of memory; try again, or send shorter audio")
    elif any(sign in text for sign in _POISON):
        return lost(error)
    elif any(sign in text for sign in _DEVICE):
        failure = DeviceFailed("the device failed on this recording; try again")
    elif isinstance(error, RuntimeError):
        failure = EngineError("the model failed on this recording")
    else:
        failure = EngineBug("something went wrong inside; report it with the request id")
    failure.__cause__ = error
    return failure


def lost(cause: Exception) -> EngineLost:
    """The failure of a model that works no more, for this reason."""
    failure = EngineLost("the service has lost its model, and ends; try again, or another one")
    failure.__cause__ = cause
    return failure


def kind_of(failure: EngineError) -> FailureKind:
    """Its label in logs and metrics."""
    return next(kind for type_, kind in _KINDS if isinstance(failure, type_))


_KINDS: tuple[tuple[type[EngineError], FailureKind], ...] = (
    (EngineLost, "lost"),
    (OutOfMemory, "out_of_memory"),
    (DeviceFailed, "device"),
    (EngineBug, "unexpected"),
    (EngineError, "engine"),
)
