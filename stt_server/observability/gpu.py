"""GPU utilization and memory through NVML, read at each scrape. Values that can't be read are absent, never 0."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

# ruff: noqa: N802 -- the protocol uses NVML's function names

MB = 2**20
"""Bytes per MiB, the unit of nvidia-smi, with which operators compare."""

RETRY_S = 60.0
"""Seconds between attempts to initialise NVML: a driver may load late, but an attempt takes time."""

LOCK_S = 0.5
"""Longest wait for a concurrent reading, in seconds: a driver that hangs blocks one thread, not every scrape."""

logger = logging.getLogger(__name__)


class Nvml(Protocol):
    """The functions used of the module `pynvml` (package nvidia-ml-py)."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...


def load_nvml() -> Nvml | None:
    """Import `pynvml`; None if it isn't installed. The driver library is only loaded by the first reading."""
    try:
        import pynvml
    except ImportError:
        return None
    return cast(Nvml, pynvml)


@dataclass(frozen=True)
class GpuReading:
    """Values of one reading; None for each that could not be read."""

    utilization_pct: float | None = None
    """0 to 100."""
    mem_used_mb: float | None = None
    """MiB, of all processes on the device."""
    mem_total_mb: float | None = None
    """MiB."""

    def as_dict(self) -> dict[str, float | None] | None:
        """Values for the JSON snapshot; None if nothing could be read."""
        return None if self == GpuReading() else asdict(self)


class Gpu:
    """Reads the service's device.

    Args:
        nvml: the module `pynvml`; None: not installed.
        device_index: `DEVICE_INDEX`: index among the devices that CUDA shows to the process.
        visible_devices: value of `CUDA_VISIBLE_DEVICES`; None if unset. Its numbers are taken for NVML's (PCI bus
            order). CUDA numbers alike with `CUDA_DEVICE_ORDER=PCI_BUS_ID`, or if all GPUs are equal.
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
        self._logged: set[str] = set()

    def read(self) -> GpuReading:
        """Read the device. Blocks for milliseconds; the first time, while NVML initialises, for some hundred.

        Thread-safe. Raises nothing: values that can't be read are None, and each cause is logged once.
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
            self._log_once("NVML", "pynvml is not installed")
            return None
        if not self._ready and self._clock() >= self._retry_at:
            try:
                self._nvml.nvmlInit()
                self._ready = True
            except self._nvml.NVMLError as error:
                self._retry_at = self._clock() + RETRY_S
                self._log_once("NVML", error)
        return self._nvml if self._ready else None

    def _read(self, nvml: Nvml) -> GpuReading:
        try:
            handle = self._handle(nvml)
        except (nvml.NVMLError, LookupError, ValueError) as error:
            self._log_once("device", error)
            return GpuReading()
        if self._is_mig(nvml, handle):
            # NVML reports the whole board, not this process's slice.
            self._log_once("device", "split by MIG")
            return GpuReading()
        utilization = self._value("utilization", nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = self._value("memory", nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return GpuReading(
            utilization_pct=None if utilization is None else float(utilization.gpu),
            mem_used_mb=None if memory is None else memory.used / MB,
            mem_total_mb=None if memory is None else memory.total / MB,
        )

    def _handle(self, nvml: Nvml) -> Any:
        """NVML's handle of the device.

        Raises:
            LookupError, ValueError: the device is not in `visible_devices`.
            NVMLError: the device is unknown to NVML.
        """
        if self._visible_devices is None:
            return nvml.nvmlDeviceGetHandleByIndex(self._device_index)
        names = [name.strip() for name in self._visible_devices.split(",")]
        name = names[self._device_index]
        if "-1" in names[: self._device_index + 1]:
            # CUDA ignores the list from the first -1 on.
            raise LookupError(f"CUDA_VISIBLE_DEVICES hides device {self._device_index}")
        if not name.startswith("GPU-"):
            return nvml.nvmlDeviceGetHandleByIndex(int(name))
        # CUDA accepts a prefix of a UUID that matches one device only.
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        (match,) = [handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(name)]
        return match

    def _is_mig(self, nvml: Nvml, handle: Any) -> bool:
        try:
            return nvml.nvmlDeviceGetMigMode(handle)[0] == 1
        except nvml.NVMLError:  # "not supported" by boards without MIG
            return False

    def _value(self, what: str, nvml: Nvml, read: Callable[[], Any]) -> Any | None:
        try:
            return read()
        except nvml.NVMLError as error:
            self._log_once(what, error)
            return None

    def _log_once(self, what: str, cause: object) -> None:
        if what not in self._logged:
            self._logged.add(what)
            logger.info("GPU metrics unavailable (%s): %s", what, cause)


class GpuCollector(Collector):
    """Exports the three gauges, leaving out those that can't be read. Register it only if the model runs on a GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def collect(self) -> Iterator[GaugeMetricFamily]:
        reading = self._gpu.read()
        for name, documentation, value in (
            ("stt_gpu_utilization_pct", "GPU utilization, percent.", reading.utilization_pct),
            ("stt_gpu_mem_used_mb", "GPU memory in use by all processes, MiB.", reading.mem_used_mb),
            ("stt_gpu_mem_total_mb", "GPU memory, MiB.", reading.mem_total_mb),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, documentation, value=value)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        # Without this, registering would collect, which initialises NVML.
        return iter(())
