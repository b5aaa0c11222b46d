"""GPU utilization and memory through NVML: read at each scrape, absent where they can't be read, never 0."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

# ruff: noqa: N802 -- the protocol bears the names of NVML's own functions

MB = 2**20
"""Bytes. NVML's own tools count memory in MiB, and operators compare with nvidia-smi."""

RETRY_S = 60.0
"""Seconds before NVML is initialised again after it could not be: a driver may come up late, but a try costs time."""

LOCK_S = 0.5
"""Seconds that a reader waits for another one. A driver that hangs costs one thread, not every scrape."""

logger = logging.getLogger(__name__)


class Nvml(Protocol):
    """What is used of the module `pynvml`, which nvidia-ml-py brings."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...


def load_nvml() -> Nvml | None:
    """The module `pynvml`; None where it isn't installed. Loads no driver library: the first reading does."""
    try:
        import pynvml
    except ImportError:
        return None
    return cast(Nvml, pynvml)


@dataclass(frozen=True)
class GpuReading:
    """One look at the device; None for what it doesn't tell."""

    utilization_pct: float | None = None
    """0 to 100."""
    mem_used_mb: float | None = None
    """MiB, of all processes on the device."""
    mem_total_mb: float | None = None
    """MiB."""

    def as_dict(self) -> dict[str, float | None] | None:
        """For the JSON snapshot; None where nothing could be read."""
        return None if self == GpuReading() else asdict(self)


class Gpu:
    """Reads the service's device.

    Args:
        nvml: the module `pynvml`, or None where there is none.
        device_index: `DEVICE_INDEX`, which counts the devices that CUDA shows to the process.
        visible_devices: the value of `CUDA_VISIBLE_DEVICES`; None if it isn't set. Its numbers are taken as NVML's
            (PCI bus order), which CUDA's are with `CUDA_DEVICE_ORDER=PCI_BUS_ID` and on machines with equal GPUs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        nvml: Nvml | None,
        device_index: int = 0,
        visible_devices: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._device_index = device_index
        self._visible_devices = visible_devices
        self._clock = clock
        self._lock = threading.Lock()
        self._ready = False
        self._retry_at = float("-inf")
        self._told: set[str] = set()

    def read(self) -> GpuReading:
        """What the device says now; blocks for milliseconds, at the first reading perhaps for some hundred.

        Thread-safe. Raises nothing: what can't be read is None, and the log says so once.
        """
        if not self._lock.acquire(timeout=LOCK_S):
            return GpuReading()
        try:
            nvml = self._initialised()
            return GpuReading() if nvml is None else self._read(nvml)
        finally:
            self._lock.release()

    def _initialised(self) -> Nvml | None:
        if self._nvml is None:
            self._tell_once("NVML", "pynvml isn't installed")
            return None
        if not self._ready and self._clock() >= self._retry_at:
            try:
                self._nvml.nvmlInit()
                self._ready = True
            except self._nvml.NVMLError as error:
                self._retry_at = self._clock() + RETRY_S
                self._tell_once("NVML", error)
        return self._nvml if self._ready else None

    def _read(self, nvml: Nvml) -> GpuReading:
        try:
            handle = self._handle(nvml)
        except (nvml.NVMLError, LookupError, ValueError) as error:
            self._tell_once("device", error)
            return GpuReading()
        if self._is_mig(nvml, handle):
            # What NVML tells here is about the whole board, not about this process's slice of it.
            self._tell_once("device", "it is split by MIG")
            return GpuReading()
        utilization = self._ask("utilization", nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = self._ask("memory", nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return GpuReading(
            utilization_pct=None if utilization is None else float(utilization.gpu),
            mem_used_mb=None if memory is None else memory.used / MB,
            mem_total_mb=None if memory is None else memory.total / MB,
        )

    def _handle(self, nvml: Nvml) -> Any:
        """The device's handle.

        Raises:
            LookupError, ValueError: `visible_devices` shows no such device.
            NVMLError: NVML doesn't know it.
        """
        if self._visible_devices is None:
            return nvml.nvmlDeviceGetHandleByIndex(self._device_index)
        names = [name.strip() for name in self._visible_devices.split(",")]
        name = names[self._device_index]
        if "-1" in names[: self._device_index + 1]:
            # CUDA hides the devices from the first -1 on.
            raise LookupError(f"CUDA_VISIBLE_DEVICES hides device {self._device_index}")
        if not name.startswith("GPU-"):
            return nvml.nvmlDeviceGetHandleByIndex(int(name))
        # CUDA takes the beginning of a UUID for the whole where only one device matches.
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        (found,) = [handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(name)]
        return found

    def _is_mig(self, nvml: Nvml, handle: Any) -> bool:
        try:
            return nvml.nvmlDeviceGetMigMode(handle)[0] == 1
        except nvml.NVMLError:  # boards that can't be split say "not supported"
            return False

    def _ask(self, what: str, nvml: Nvml, question: Callable[[], Any]) -> Any | None:
        try:
            return question()
        except nvml.NVMLError as error:
            self._tell_once(what, error)
            return None

    def _tell_once(self, what: str, why: object) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.info("GPU metrics are left out (%s): %s", what, why)


class GpuCollector(Collector):
    """The three gauges, each only in the scrapes that could read it. Register it where the model runs on a GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def collect(self) -> Iterator[GaugeMetricFamily]:
        reading = self._gpu.read()
        for name, meaning, value in (
            ("stt_gpu_utilization_pct", "GPU utilization, percent.", reading.utilization_pct),
            ("stt_gpu_mem_used_mb", "GPU memory in use by all processes, MiB.", reading.mem_used_mb),
            ("stt_gpu_mem_total_mb", "GPU memory, MiB.", reading.mem_total_mb),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, meaning, value=value)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        # Without this, registering would collect, and so initialise NVML.
        return iter(())
