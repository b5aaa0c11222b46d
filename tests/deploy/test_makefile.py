"""The Makefile with a stand-in for docker, against deploy/compose.yaml; `smoke` and `bench` on a scripted server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stt_server.testing.paths import ROOT
from tests.support.contract_messages import transcript
from tests.support.contract_script import Script
from tests.support.contract_service import serving
from tests.support.needs import lacking

STAND_IN = """#!/bin/sh
printf '%s\\n' "$*" >> "{log}"
case "$*" in
  inspect*RestartCount*) echo "{restarts} true" ;;
  inspect*Health*) [ -e "{log}.asked" ] && [ {restarts} = 0 ] && echo healthy || echo starting; touch "{log}.asked" ;;
  "network inspect"*) exit {network} ;;
esac
"""


class Machine:
    """A checkout's Makefile and a docker that records its calls.

    Args:
        restarts: of each container, as docker reports them.
        network: exit status of `docker network inspect`.
    """

    def __init__(self, folder: Path, restarts: int = 0, network: int = 1) -> None:
        if shutil.which("make") is None:
            lacking("make is not installed; install the Debian package make")
        self.log = folder / "log"
        self.log.touch()
        docker = folder / "docker"
        docker.write_text(STAND_IN.format(log=self.log, restarts=restarts, network=network))
        docker.chmod(0o755)
        self._path = f"{folder}:{os.environ['PATH']}"

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
        environ = {"PATH": self._path}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    def calls(self, name: str) -> list[str]:
        """Recorded calls of a docker command, without inspections."""
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def options_of(call: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+ [^-]\S*|--[a-z-]+", call))


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_containers_start_as_in_compose(machine: Machine, service: str) -> None:
    done = machine.make("up")
    assert done.returncode == 0, done.stderr
    (call,) = (call for call in machine.calls("run") if f"--name stt-{service} " in call)
    assert call.endswith(f" stt-{service}:latest")
    # Variables have their defaults.
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "deploy" / "compose.yaml").read_text())
    compose: dict[str, Any] = yaml.safe_load(text)["services"][f"stt-{service}"]
    expected = {
        "--detach",
        "--network stt",
        f"--name stt-{service}",
        "--gpus all",
        "--read-only",
        f"--restart {compose['restart']}",
        f"--tmpfs {compose['tmpfs'][0]}",
        f"--cap-drop {compose['cap_drop'][0]}",
        f"--security-opt {compose['security_opt'][0]}",
        f"--pids-limit {compose['pids_limit']}",
        f"--stop-timeout {compose['stop_grace_period'].removesuffix('s')}",
        *(f"--ulimit {name}={value}" for name, value in compose["ulimits"].items()),
        *(f"--publish {port}" for port in compose["ports"]),
        *(f"--volume {(ROOT / 'deploy' / each).resolve()}" for each in compose["volumes"]),
    }
    assert options_of(call) == expected


def test_fallback_is_healthy_before_the_primary_starts(machine: Machine) -> None:
    assert machine.make("up", "GPUS=", "REGISTRY=registry.example.com/x", "TAG=v1").returncode == 0
    lines = machine.log.read_text().splitlines()
    fallback, primary = (
        next(i for i, line in enumerate(lines) if line.startswith("run ") and f"--name stt-{name} " in line)
        for name in ("fallback", "primary")
    )
    assert any("Health" in line and line.endswith("stt-fallback") for line in lines[fallback:primary])
    assert lines[primary].endswith("registry.example.com/x/stt-primary:v1")
    assert "--gpus" not in lines[primary]
    assert machine.calls("network") == ["network inspect stt", "network create stt"]


def test_container_that_restarts_is_reported_with_its_log(tmp_path: Path) -> None:
    machine = Machine(tmp_path, restarts=1)
    done = machine.make("up")
    assert done.returncode != 0
    assert "stt-fallback does not start; its log is above" in done.stderr
    assert machine.calls("logs") == ["logs --tail 20 stt-fallback"]
    assert len(machine.calls("run")) == 1


def test_down_stops_the_primary_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path, network=0)
    assert machine.make("down").returncode == 0
    assert machine.calls("stop") == ["stop stt-primary", "stop stt-fallback"]
    assert machine.calls("rm") == ["rm stt-primary", "rm stt-fallback"]
    assert machine.calls("network")[-1] == "network rm stt"


def test_images_are_built_and_pushed(machine: Machine) -> None:
    done = machine.make(
        "push", "REGISTRY=registry.example.com/x", "TAG=v1", "BASE_IMAGE=debian:bookworm-slim", "SBOM=off"
    )
    assert done.returncode == 0, done.stderr
    assert [call.split()[-1] for call in machine.calls("push")] == [
        f"registry.example.com/x/stt-{service}:{tag}" for service in ("fallback", "primary") for tag in ("v1", "latest")
    ]
    assert all("BASE_IMAGE=debian:bookworm-slim" in call for call in machine.calls("build"))


def test_push_needs_a_registry(machine: Machine) -> None:
    done = machine.make("push")
    assert done.returncode != 0
    assert "REGISTRY is empty" in done.stderr
    assert machine.calls("build") == []


async def test_smoke_and_bench_call_the_server(machine: Machine, tmp_path: Path) -> None:
    script = Script(response=transcript("hello there", model="whisper-small-ct2"), keys={"secret-key"})
    shutil.copy(ROOT / "samples" / "en" / "hello_world.wav", tmp_path)
    async with serving(script) as service:
        settings = (f"SERVER={service.target}", "API_KEY=secret-key", f"RECORDINGS={tmp_path}")
        smoke = await asyncio.to_thread(machine.make, "smoke", *settings)
        assert smoke.returncode == 0, smoke.stdout + smoke.stderr
        sent = len(script.requests)
        bench = await asyncio.to_thread(machine.make, "bench", *settings, "CALLERS=1,3", "SECONDS=1")
        assert bench.returncode == 0, bench.stdout + bench.stderr
        refused = await asyncio.to_thread(machine.make, "smoke", *settings, "API_KEY=wrong")
    assert refused.returncode != 0
    assert len(script.requests) > sent
    assert "secret-key" not in smoke.stdout + bench.stdout


def test_every_target_is_listed(machine: Machine) -> None:
    listed = {line.split()[0] for line in machine.make().stdout.splitlines()}
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(phony.split())
