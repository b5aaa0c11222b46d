from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stt_server.observability.gpu import RETRY_S, Gpu, GpuCollector, GpuReading, load_nvml


class ScriptedError(Exception):
    """Stands for `pynvml.NVMLError`."""


@dataclass
class FakeNvml:
    """Boards by index, each with its own numbers; any call can be made to fail."""

    NVMLError: type[Exception] = ScriptedError
    uuids: tuple[str, ...] = ("GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3")
    failing: set[str] = field(default_factory=set)
    mig: bool = False
    calls: list[str] = field(default_factory=list)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise ScriptedError(f"{name}: Not Supported")

    def nvmlInit(self) -> None:
        self._called("nvmlInit")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if not 0 <= index < len(self.uuids):
            raise ScriptedError("Invalid Argument")
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.uuids[handle]

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        self._called("nvmlDeviceGetMigMode")
        return [int(self.mig), int(self.mig)]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._called("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=10 * handle, memory=1)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        self._called("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=512 * 2**20, total=24564 * 2**20, free=0)


def scrape(gpu: Gpu) -> str:
    registry = CollectorRegistry()
    registry.register(GpuCollector(gpu))
    return generate_latest(registry).decode()


def test_reads_the_device_in_percent_and_mebibytes() -> None:
    text = scrape(Gpu(FakeNvml(), device_index=2))
    assert "stt_gpu_utilization_pct 20.0\n" in text
    assert "stt_gpu_mem_used_mb 512.0\n" in text
    assert "stt_gpu_mem_total_mb 24564.0\n" in text


def test_an_idle_gpu_shows_a_zero_that_was_read() -> None:
    assert "stt_gpu_utilization_pct 0.0\n" in scrape(Gpu(FakeNvml(), device_index=0))


def test_gauges_are_absent_without_nvml() -> None:
    assert scrape(Gpu(None)) == ""
    assert scrape(Gpu(FakeNvml(failing={"nvmlInit"}))) == ""


def test_gauges_are_absent_for_a_device_that_does_not_exist() -> None:
    assert scrape(Gpu(FakeNvml(), device_index=7)) == ""


def test_gauges_are_absent_where_mig_splits_the_board() -> None:
    assert scrape(Gpu(FakeNvml(mig=True))) == ""
    assert scrape(Gpu(FakeNvml(), visible_devices="MIG-aaaa")) == ""


def test_a_board_that_knows_no_mig_is_read() -> None:
    assert "stt_gpu_mem_used_mb" in scrape(Gpu(FakeNvml(failing={"nvmlDeviceGetMigMode"})))


def test_one_unreadable_value_leaves_the_others() -> None:
    text = scrape(Gpu(FakeNvml(failing={"nvmlDeviceGetUtilizationRates"})))
    assert "stt_gpu_utilization_pct" not in text
    assert "stt_gpu_mem_used_mb 512.0\n" in text
    text = scrape(Gpu(FakeNvml(failing={"nvmlDeviceGetMemoryInfo"}), device_index=1))
    assert "stt_gpu_utilization_pct 10.0\n" in text
    assert "mem" not in text


def test_a_device_lost_at_run_time_disappears_and_comes_back() -> None:
    nvml = FakeNvml()
    gpu = Gpu(nvml)
    assert gpu.read().mem_used_mb == 512
    nvml.failing = {"nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo"}
    assert gpu.read() == GpuReading()
    nvml.failing = set()
    assert gpu.read().mem_used_mb == 512


@pytest.mark.parametrize(
    ("visible", "index", "utilization"),
    [
        (None, 1, 10.0),
        ("2,0", 0, 20.0),
        ("2, 0", 1, 0.0),
        ("GPU-cccc-3", 0, 20.0),
        ("GPU-aab", 0, 10.0),  # CUDA takes the beginning of a UUID
        ("GPU-aa", 0, None),  # two boards begin so
        ("GPU-dddd", 0, None),
        ("", 0, None),
        ("-1", 0, None),
        ("1", 1, None),
        ("NoDevFiles", 0, None),
    ],
)
def test_device_index_counts_what_cuda_shows(visible: str | None, index: int, utilization: float | None) -> None:
    assert Gpu(FakeNvml(), index, visible).read().utilization_pct == utilization


def test_a_device_after_a_hidden_one_is_hidden_too() -> None:
    assert Gpu(FakeNvml(), 2, "0,-1,1").read() == GpuReading()


def test_a_reading_is_null_in_the_snapshot_only_where_nothing_was_read() -> None:
    assert GpuReading().as_dict() is None
    assert GpuReading(mem_used_mb=1.0).as_dict() == {
        "utilization_pct": None,
        "mem_used_mb": 1.0,
        "mem_total_mb": None,
    }


def test_registering_touches_no_driver() -> None:
    nvml = FakeNvml()
    CollectorRegistry().register(GpuCollector(Gpu(nvml)))
    assert nvml.calls == []


def test_nvml_is_initialised_once_and_a_failure_is_retried_after_a_while() -> None:
    now = [0.0]
    nvml = FakeNvml(failing={"nvmlInit"})
    gpu = Gpu(nvml, clock=lambda: now[0])
    gpu.read()
    gpu.read()
    assert nvml.calls.count("nvmlInit") == 1
    nvml.failing = set()
    now[0] = RETRY_S
    assert gpu.read().mem_used_mb == 512
    gpu.read()
    assert nvml.calls.count("nvmlInit") == 2


def test_each_cause_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gpu = Gpu(FakeNvml(failing={"nvmlDeviceGetUtilizationRates"}))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            gpu.read()
    assert [record.getMessage() for record in caplog.records] == [
        "GPU metrics unavailable (utilization): nvmlDeviceGetUtilizationRates: Not Supported"
    ]


def test_a_reader_does_not_wait_for_a_driver_that_hangs() -> None:
    hanging, release = threading.Event(), threading.Event()

    class Hanging(FakeNvml):
        def nvmlInit(self) -> None:
            hanging.set()
            release.wait(30)

    gpu = Gpu(Hanging())
    first = threading.Thread(target=gpu.read)
    first.start()
    try:
        assert hanging.wait(10)
        assert gpu.read() == GpuReading()
        assert first.is_alive()
    finally:
        release.set()
        first.join()


def test_the_real_module_gives_a_reading_or_nothing_on_any_machine() -> None:
    nvml = load_nvml()
    assert nvml is not None
    for name in FakeNvml.__dict__:
        if name.startswith("nvml"):
            assert callable(getattr(nvml, name))
    reading = Gpu(nvml).read()
    assert reading.mem_total_mb is None or reading.mem_total_mb > 0
