from __future__ import annotations

import logging
import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stt_server.observability.gpu import RETRY_S, Gpu, GpuCollector, GpuReading, load_nvml
from tests.support.nvml import FakeNvml


def scrape(gpu: Gpu) -> str:
    registry = CollectorRegistry()
    registry.register(GpuCollector(gpu))
    return generate_latest(registry).decode()


def test_values_are_percent_and_mebibytes() -> None:
    text = scrape(Gpu(FakeNvml(), device_index=2))
    assert "stt_gpu_utilization_pct 20.0\n" in text
    assert "stt_gpu_mem_used_mb 512.0\n" in text
    assert "stt_gpu_mem_total_mb 24564.0\n" in text


def test_an_idle_gpu_reads_as_zero() -> None:
    assert "stt_gpu_utilization_pct 0.0\n" in scrape(Gpu(FakeNvml(), device_index=0))


def test_gauges_are_absent_without_nvml() -> None:
    assert scrape(Gpu(None)) == ""
    assert scrape(Gpu(FakeNvml(failing={"nvmlInit"}))) == ""


def test_gauges_are_absent_for_an_unknown_device() -> None:
    assert scrape(Gpu(FakeNvml(), device_index=7)) == ""


def test_gauges_are_absent_for_a_board_split_by_mig() -> None:
    assert scrape(Gpu(FakeNvml(mig=True))) == ""
    assert scrape(Gpu(FakeNvml(), visible_devices="MIG-aaaa")) == ""


def test_a_board_without_mig_is_read() -> None:
    assert "stt_gpu_mem_used_mb" in scrape(Gpu(FakeNvml(failing={"nvmlDeviceGetMigMode"})))


def test_one_unreadable_value_leaves_the_others() -> None:
    text = scrape(Gpu(FakeNvml(failing={"nvmlDeviceGetUtilizationRates"})))
    assert "stt_gpu_utilization_pct" not in text
    assert "stt_gpu_mem_used_mb 512.0\n" in text
    text = scrape(Gpu(FakeNvml(failing={"nvmlDeviceGetMemoryInfo"}), device_index=1))
    assert "stt_gpu_utilization_pct 10.0\n" in text
    assert "mem" not in text


def test_gauges_of_a_lost_device_return_with_it() -> None:
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
        ("GPU-aab", 0, 10.0),  # CUDA accepts a prefix of a UUID
        ("GPU-aa", 0, None),  # prefix of two boards
        ("GPU-dddd", 0, None),
        ("", 0, None),
        ("-1", 0, None),
        ("1", 1, None),
        ("NoDevFiles", 0, None),
    ],
)
def test_device_index_counts_visible_devices(visible: str | None, index: int, utilization: float | None) -> None:
    assert Gpu(FakeNvml(), index, visible).read().utilization_pct == utilization


def test_devices_after_a_hidden_one_are_hidden() -> None:
    assert Gpu(FakeNvml(), 2, "0,-1,1").read() == GpuReading()


def test_an_empty_reading_is_null_in_the_snapshot() -> None:
    assert GpuReading().as_dict() is None
    assert GpuReading(mem_used_mb=1.0).as_dict() == {
        "utilization_pct": None,
        "mem_used_mb": 1.0,
        "mem_total_mb": None,
    }


def test_registering_loads_no_driver() -> None:
    nvml = FakeNvml()
    CollectorRegistry().register(GpuCollector(Gpu(nvml)))
    assert nvml.calls == []


def test_initialising_nvml_is_retried_after_a_failure() -> None:
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


def test_a_hanging_driver_does_not_block_other_readers() -> None:
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


def test_the_installed_nvml_module_has_the_functions_used() -> None:
    nvml = load_nvml()
    assert nvml is not None
    for name in FakeNvml.__dict__:
        if name.startswith("nvml"):
            assert callable(getattr(nvml, name))
    reading = Gpu(nvml).read()
    assert reading.mem_total_mb is None or reading.mem_total_mb > 0
