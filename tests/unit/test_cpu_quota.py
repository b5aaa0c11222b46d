"""Processor time that control groups allow, as containers and systemd set it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from stt_server.lifecycle import process_limits
from stt_server.lifecycle.process_limits import cpu_quota, usable_cores


def system(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, math.inf),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/"}, math.inf),
        (
            {
                "proc/self/cgroup": "0::/system.slice/stt-primary.service",
                "sys/fs/cgroup/system.slice/stt-primary.service/cpu.max": "max 100000",
                "sys/fs/cgroup/system.slice/cpu.max": "400000 100000",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/0af3\n1:name=systemd:/docker/0af3\n0::/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            math.inf,
        ),
        ({"proc/self/cgroup": "nothing\n\n0::/", "sys/fs/cgroup/cpu.max": "150000 0"}, math.inf),
        ({"proc/self/cgroup": "short\n0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
    ],
    ids=[
        "no groups",
        "no limit",
        "docker",
        "no file",
        "a slice above",
        "version 1 in docker",
        "version 1, no limit",
        "no period",
        "short line",
    ],
)
def test_quota_is_that_of_the_tightest_group(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    assert cpu_quota(system(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (16.0, 8), (1.5, 2), (0.5, 1)])
def test_usable_cores_are_within_the_quota(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(process_limits, "cpu_quota", lambda: quota)
    assert usable_cores() == cores
