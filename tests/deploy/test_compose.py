"""deploy/compose.yaml: both services as hardened as docs/deploy.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stt_server.config import KEYS, Role

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES: tuple[Role, ...] = ("primary", "fallback")
SECONDS_TO_DRAIN = float(next(key.default or "0" for key in KEYS if key.name == "DRAIN_TIMEOUT_S"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    return loaded


@pytest.fixture(params=SERVICES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service(compose: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"][f"stt-{name}"]
    return found


def test_there_are_two_services(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"stt-primary", "stt-fallback"}


def test_it_builds_the_service_s_own_dockerfile(service: dict[str, Any], name: str) -> None:
    context = (ROOT / "deploy" / service["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / service["build"]["dockerfile"]).name == f"Dockerfile.{name}"
    assert (context / service["build"]["dockerfile"]).exists()


def test_it_may_do_no_more_than_it_needs(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"] == "10001:10001"
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["ulimits"]["core"] == 0
    assert 512 <= service["pids_limit"] <= 4096
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(service)


def test_configuration_and_models_are_mounted_read_only(service: dict[str, Any], name: str) -> None:
    mounts = [entry.split(":") for entry in service["volumes"]]
    assert {(target, mode) for _, target, mode in mounts} == {("/config", "ro"), ("/models", "ro")}
    assert service["environment"] == {"CONFIG_PATH": f"/config/stt_{name}.env"}
    assert {(ROOT / "deploy" / source).resolve() for source, _, _ in mounts} == {
        ROOT / "configs",
        ROOT / "models",
    }


def test_a_gpu_is_reserved(service: dict[str, Any]) -> None:
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_there_is_time_to_drain(service: dict[str, Any]) -> None:
    assert float(service["stop_grace_period"].removesuffix("s")) > SECONDS_TO_DRAIN


def test_the_health_check_is_the_image_s(service: dict[str, Any], name: str) -> None:
    *_, module, option, whose = service["healthcheck"]["test"]
    assert (module, option, whose) == ("stt_server.healthcheck", "--service", name)
    dockerfile = (ROOT / f"Dockerfile.{name}").read_text()
    assert f"--interval={service['healthcheck']['interval']} " in dockerfile
    assert f"--start-period={service['healthcheck']['start_period']} " in dockerfile


def test_only_the_primary_is_reachable_from_other_machines(compose: dict[str, Any]) -> None:
    assert compose["services"]["stt-primary"]["ports"] == ["50051:50051", "8081:8081"]
    assert compose["services"]["stt-fallback"]["ports"] == ["127.0.0.1:8082:8082"]


def test_the_fallback_starts_first(compose: dict[str, Any]) -> None:
    assert compose["services"]["stt-primary"]["depends_on"] == {"stt-fallback": {"condition": "service_healthy"}}
