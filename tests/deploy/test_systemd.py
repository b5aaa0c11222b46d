"""deploy/systemd: the units are valid, end as they should, and are locked down."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stt_server.config import KEYS

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS_TO_DRAIN = float(next(key.default or "0" for key in KEYS if key.name == "DRAIN_TIMEOUT_S"))


def path_of(service: str) -> Path:
    return ROOT / "deploy" / "systemd" / f"stt-{service}.service"


def settings(service: str) -> dict[str, str]:
    """The settings of all sections. No key is there twice, but for the filter: what it lets in, and what not of it."""
    lines = re.findall(r"^([A-Za-z]+)=(.*)$", path_of(service).read_text(), re.MULTILINE)
    found: dict[str, str] = {}
    for key, value in lines:
        assert key not in found or key == "SystemCallFilter", key
        found[key] = f"{found[key]} {value}" if key in found else value
    return found


@pytest.fixture(params=["primary", "fallback"])
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_runs_the_service_with_its_configuration(service: str) -> None:
    unit = settings(service)
    assert unit["ExecStart"] == f"/opt/stt/venv/bin/stt-{service}"
    assert unit["Environment"].split()[0] == f"CONFIG_PATH=/opt/stt/stt_{service}.env"
    assert (unit["User"], unit["Group"]) == ("stt", "stt")


def test_a_reload_has_the_file_read_and_does_not_stop_it(service: str) -> None:
    assert settings(service)["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_it_comes_back_unless_its_configuration_is_wrong(service: str) -> None:
    unit = settings(service)
    assert (unit["Restart"], unit["RestartSec"]) == ("always", "3")
    assert unit["RestartPreventExitStatus"] == "2"


def test_it_has_time_to_drain_and_its_children_are_left_alone(service: str) -> None:
    unit = settings(service)
    assert float(unit["TimeoutStopSec"]) > SECONDS_TO_DRAIN
    assert unit["KillMode"] == "mixed"


def test_the_gpu_stays_visible(service: str) -> None:
    unit = settings(service)
    assert "PrivateDevices" not in unit
    assert unit["DeviceAllow"] == "char-nvidia* rw"


def test_it_may_do_no_more_than_it_needs(service: str) -> None:
    unit = settings(service)
    wanted = {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "SystemCallFilter": "@system-service ~@privileged",
        "UMask": "0077",
        "LimitCORE": "0",
    }
    assert {key: unit.get(key) for key in wanted} == wanted


def test_no_folder_is_writable_but_the_temporary_one(service: str) -> None:
    unit = settings(service)
    assert not {"ReadWritePaths", "StateDirectory", "CacheDirectory", "LogsDirectory"} & set(unit)


def test_the_primary_starts_after_a_fallback_on_the_same_machine() -> None:
    assert "stt-fallback.service" in settings("primary")["After"].split()
    assert "Requires" not in settings("primary")


def test_the_units_differ_only_in_what_they_run() -> None:
    primary, fallback = (
        {key: value.replace("primary", "x").replace("fallback", "x") for key, value in settings(name).items()}
        for name in ("primary", "fallback")
    )
    differing = {key for key in primary if primary[key] != fallback.get(key)}
    assert differing == {"Description", "After"}
    assert set(primary) == set(fallback)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_it_valid_and_little_exposed(service: str, tmp_path: Path) -> None:
    # What it runs isn't installed here; everything else is as it is.
    unit = tmp_path / path_of(service).name
    unit.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", path_of(service).read_text(), flags=re.M))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    exposure = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=16", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert exposure.returncode == 0, exposure.stdout.splitlines()[-1:]  # of 10 it is 1.5 at most
