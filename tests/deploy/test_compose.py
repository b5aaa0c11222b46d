"""deploy/compose.yaml against the Dockerfiles and the configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from stt_server.config import Role
from stt_server.testing.paths import ROOT
from tests.support.config_files import default_of


@pytest.fixture(params=["primary", "fallback"])
def name(request: pytest.FixtureRequest) -> Role:
    return "primary" if request.param == "primary" else "fallback"


@pytest.fixture
def service(name: Role) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"][f"stt-{name}"]
    return found


def test_named_files_exist(service: dict[str, Any], name: Role) -> None:
    context = (ROOT / "deploy" / service["build"]["context"]).resolve()
    assert (context / service["build"]["dockerfile"]) == ROOT / f"Dockerfile.{name}"
    # `${NAME:-default}` is Compose's syntax of a variable with a default.
    volumes = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", entry) for entry in service["volumes"]]
    mounts = [entry.split(":") for entry in volumes]
    assert {(ROOT / "deploy" / source).resolve() for source, _, _ in mounts} == {ROOT / "configs", ROOT / "models"}
    config = service["environment"]["CONFIG_PATH"]
    assert (ROOT / "configs" / config.removeprefix("/config/")).exists()


def test_published_ports_are_the_defaults(service: dict[str, Any], name: Role) -> None:
    published = {entry.split(":")[-1] for entry in service["ports"]}
    assert published <= {default_of("GRPC_PORT", name), default_of("HTTP_PORT", name)}


def test_container_is_hardened(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {entry.rpartition(":")[2] for entry in service["volumes"]} == {"ro"}
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(service)


def test_grace_period_exceeds_the_drain_timeout(service: dict[str, Any], name: Role) -> None:
    assert float(service["stop_grace_period"].removesuffix("s")) > float(default_of("DRAIN_TIMEOUT_S", name))


def test_health_check_is_that_of_the_image(service: dict[str, Any], name: Role) -> None:
    assert service["healthcheck"]["test"][-3:] == ["stt_server.healthcheck", "--service", name]
    dockerfile = (ROOT / f"Dockerfile.{name}").read_text()
    assert f"--interval={service['healthcheck']['interval']} " in dockerfile
    assert f"--start-period={service['healthcheck']['start_period']} " in dockerfile
