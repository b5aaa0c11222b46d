"""buildscripts/images --check: programs run in a read-only root, as the image's user, with its environment only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from buildscripts.lib import image_check
from buildscripts.lib.image_root import ImageRoot, image_root
from tests.support.needs import lacking

INSPECTED = {
    "Docker": {
        "config": {
            "User": "10001:10001",
            "Env": ["PATH=/opt/stt/venv/bin:/usr/bin", "CONFIG_PATH=/config/stt_primary.env", "A=b=c"],
            "Entrypoint": ["/opt/stt/venv/bin/stt-primary"],
            "Healthcheck": {"Test": ["CMD", "python", "-m", "stt_server.healthcheck"]},
            "Labels": {"org.opencontainers.image.version": "1.2.3"},
        }
    }
}
"""The part of buildah's output that is read."""


@pytest.fixture
def root(tmp_path: Path) -> ImageRoot:
    """File system with this machine's programs."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        lacking("mount namespaces need root; run the test as root")
    tmp_path.chmod(0o755)
    for name in ("usr", "proc", "dev", "tmp", "config"):
        (tmp_path / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (tmp_path / name).symlink_to(f"usr/{name}")
    return ImageRoot(tmp_path, "10001:10001", {"PATH": "/usr/bin"})


def run(root: ImageRoot, *program: str) -> subprocess.CompletedProcess[str]:
    mounts = {"/usr": Path("/usr"), "/config": root.path / "config"}
    command = root.command(program, mounts, EXTRA="x")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_program_runs_as_the_images_user_with_its_environment_only(root: ImageRoot) -> None:
    done = run(root, "/usr/bin/sh", "-c", "id -u; id -g; env")
    assert done.returncode == 0, done.stderr
    uid, gid, *variables = done.stdout.split()
    assert (uid, gid) == ("10001", "10001")
    assert {each for each in variables if not each.startswith(("PWD=", "_=", "SHLVL="))} == {"PATH=/usr/bin", "EXTRA=x"}


@pytest.mark.parametrize("path", ["/written", "/config/written", "/usr/written"])
def test_only_tmp_is_writable(root: ImageRoot, path: str) -> None:
    for each in (root.path, root.path / "config"):
        each.chmod(0o777)  # not the permissions keep it from writing
    refused = run(root, "/usr/bin/touch", path)
    assert "Read-only file system" in refused.stderr
    assert run(root, "/usr/bin/touch", "/tmp/written").returncode == 0
    assert not (root.path / "tmp" / "written").exists()


def test_process_that_was_started_is_the_program(root: ImageRoot) -> None:
    command = root.command(("/usr/bin/cat",), {"/usr": Path("/usr")})
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
        assert Path(f"/proc/{process.pid}/comm").read_text() == "cat\n"
        process.terminate()
    assert process.returncode == -15


def test_root_of_an_image_is_what_its_build_recorded(tmp_path: Path) -> None:
    root = image_root(tmp_path, INSPECTED)
    assert root.user == "10001:10001"
    assert root.environ["A"] == "b=c"
    assert root.entrypoint == ("/opt/stt/venv/bin/stt-primary",)
    assert root.labels == {"org.opencontainers.image.version": "1.2.3"}
    assert root.healthcheck == ("python", "-m", "stt_server.healthcheck")


def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert image_check.main([]) == 2
    assert "debootstrap not installed. Run: sudo apt-get install" in capsys.readouterr().err
