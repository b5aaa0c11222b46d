"""deploy/systemd: units that systemd accepts and that fit the services."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stt_server.config import Role
from stt_server.testing.paths import ROOT
from tests.support.config_files import default_of

# systemd-analyze rates the exposure from 0 (none) to 100; the units have 15.
MAX_EXPOSURE = 16


def path_of(service: Role) -> Path:
    return ROOT / "deploy" / "systemd" / f"stt-{service}.service"


def settings(service: Role) -> dict[str, str]:
    """Settings of all sections; the values of a repeated key are joined."""
    found: dict[str, str] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", path_of(service).read_text(), re.MULTILINE):
        found[key] = f"{found[key]} {value}" if key in found else value
    return found


@pytest.fixture(params=["primary", "fallback"])
def service(request: pytest.FixtureRequest) -> Role:
    return "primary" if request.param == "primary" else "fallback"


def test_unit_fits_the_service(service: Role) -> None:
    unit = settings(service)
    assert unit["ExecStart"] == f"/opt/stt/venv/bin/stt-{service}"
    assert f"stt-{service} = stt_server.{service}:main" in (ROOT / "setup.cfg").read_text()
    assert float(unit["TimeoutStopSec"]) > float(default_of("DRAIN_TIMEOUT_S", service))
    assert unit["RestartPreventExitStatus"] == "2", "the exit status for an invalid configuration"


def test_units_differ_only_in_the_service() -> None:
    roles: tuple[Role, Role] = ("primary", "fallback")
    primary, fallback = (
        {key: value.replace("primary", "x").replace("fallback", "x") for key, value in settings(role).items()}
        for role in roles
    )
    assert set(primary) == set(fallback)
    assert {key for key in primary if primary[key] != fallback[key]} == {"Description", "After"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit_and_rates_its_exposure_low(service: Role, tmp_path: Path) -> None:
    unit = tmp_path / path_of(service).name
    # The command of ExecStart is not installed here.
    unit.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", path_of(service).read_text(), flags=re.M))
    verified = _analyze("verify", "--man=no", str(unit))
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = _analyze("security", "--offline=true", "--no-pager", f"--threshold={MAX_EXPOSURE}", str(unit))
    assert rated.returncode == 0, rated.stdout.splitlines()[-1:]


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
