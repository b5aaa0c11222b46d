"""deploy/compose.yaml against the Dockerfiles, the configuration and the files that its containers mount."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stt_server.config import Role
from stt_server.testing.paths import ROOT
from tests.support.config_files import default_of
from tests.support.needs import lacking

DEPLOY = ROOT / "deploy"
OBSERVABILITY = ("prometheus", "alertmanager", "grafana")
ALERTMANAGER = DEPLOY / "prometheus" / "alertmanager.yml"


@pytest.fixture(params=["primary", "fallback"])
def name(request: pytest.FixtureRequest) -> Role:
    return "primary" if request.param == "primary" else "fallback"


@pytest.fixture
def service(name: Role) -> dict[str, Any]:
    found: dict[str, Any] = services()[f"stt-{name}"]
    return found


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def mounted(name: str, path: str) -> Path:
    """File of this repository at a path of a container."""
    for entry in services()[name]["volumes"]:
        source, target = str(entry).split(":")[:2]
        if source.startswith(".") and (path == target or path.startswith(f"{target}/")):
            inside = path.removeprefix(target).lstrip("/")
            return DEPLOY.joinpath(source, inside).resolve()
    raise AssertionError(f"nothing is mounted at {path} of {name}")


def amtool(*arguments: str) -> str:
    tool = shutil.which("amtool")
    if tool is None:
        lacking("amtool is not installed. Run: sudo apt-get install prometheus-alertmanager")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def test_observability_starts_only_with_its_profile() -> None:
    profiles = {name: service.get("profiles", []) for name, service in services().items()}
    assert profiles == {"stt-primary": [], "stt-fallback": [], **{key: ["observability"] for key in OBSERVABILITY}}


@pytest.mark.parametrize("name", OBSERVABILITY)
def test_observability_is_published_to_this_machine_only_and_keeps_its_data(name: str) -> None:
    service = services()[name]
    assert [entry.rpartition(":")[0].rpartition(":")[0] for entry in service["ports"]] == ["127.0.0.1"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert re.fullmatch(r"[a-z-]+/[a-z-]+:v?\d+\.\d+\.\d+", service["image"])
    volumes = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"]
    writable = [entry.split(":")[0] for entry in service["volumes"] if not entry.endswith(":ro")]
    assert writable == [name]
    assert name in volumes


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_named_configuration_is_mounted(name: str) -> None:
    options = dict(option.removeprefix("--").split("=", 1) for option in services()[name]["command"])
    assert mounted(name, options["config.file"]).is_file()


def test_prometheus_finds_rules_services_and_alertmanager() -> None:
    path = mounted("prometheus", "/etc/prometheus/prometheus.yml")
    configuration = yaml.safe_load(path.read_text())
    assert all((path.parent / file).is_file() for file in configuration["rule_files"])
    jobs = [*configuration["scrape_configs"], *configuration["alerting"]["alertmanagers"]]
    found = {name: entry["port"] for job in jobs for entry in job["dns_sd_configs"] for name in entry["names"]}
    published = {name: {int(port.split(":")[-1]) for port in service["ports"]} for name, service in services().items()}
    assert found.keys() == {"stt-primary", "stt-fallback", "alertmanager"}
    assert all(port in published[name] for name, port in found.items())


def test_grafana_has_its_datasource_and_dashboard() -> None:
    provisioning = mounted("grafana", "/etc/grafana/provisioning")
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{services()['prometheus']['ports'][0].split(':')[-1]}"
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "stt.yaml").read_text())["providers"]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"] + "/")
    dashboard = json.loads(mounted("grafana", home).read_text())
    # The panels' variable takes the default datasource of its type.
    (variable,) = (each for each in dashboard["templating"]["list"] if each["type"] == "datasource")
    assert (variable["query"], source["isDefault"]) == (source["type"], True)


def test_alertmanager_takes_its_configuration() -> None:
    amtool("check-config", str(ALERTMANAGER))


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "ticket")])
def test_alerts_are_routed_by_severity(severity: str, receiver: str) -> None:
    routed = amtool("config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}")
    assert routed.split() == [receiver]


def test_inhibited_alerts_exist() -> None:
    alerts = "".join((DEPLOY / "prometheus" / name).read_text() for name in ("alerts.yml", "slo.yml"))
    for rule in yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]:
        names = [re.fullmatch(r'alertname="(\w+)"', rule[side][0]) for side in ("source_matchers", "target_matchers")]
        assert all(name and f"alert: {name[1]}\n" in alerts for name in names)
