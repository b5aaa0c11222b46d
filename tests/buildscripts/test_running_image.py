"""buildscripts/images --check on images whose ENTRYPOINT starts a shell: reported, and nothing is left running."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildscripts.lib import image_check, running_image
from buildscripts.lib.image_root import ImageRoot
from buildscripts.lib.running_image import CheckFailedError, RunningImage
from stt_server.testing.processes import HOST
from tests.support import scripted_buildah
from tests.support.needs import lacking

SERVICE = "/usr/bin/tail -f /dev/null >/dev/null"
"""Runs until a signal ends it."""
READY = f"echo ready service=primary grpc={HOST}:1 http={HOST}:2"
DIES_ALONE = f"{SERVICE} & {READY}; wait"
EXITS_WITH_0 = f"trap 'exit 0' TERM; /usr/bin/setsid {SERVICE} & {READY}; wait"
IGNORES_SIGTERM = f"trap '' TERM; {SERVICE} & {READY}; wait"


def copy_program(name: str, image: Path) -> None:
    """Copy a program of this machine and its libraries to the same paths of an image."""
    program = f"/usr/bin/{name}"
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in (program, *re.findall(r"/\S+", libraries)):
        target = image / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with the file system of an image in `image`, and with what the check needs of the repository."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        lacking("mount namespaces need root; run the test as root")
    tmp_path.chmod(0o755)
    for name in ("sh", "tail", "setsid", "touch"):
        copy_program(name, tmp_path / "image")
    for name in ("proc", "dev", "tmp", "config", "models", "bin", "opt/stt"):
        (tmp_path / "image" / name).mkdir(parents=True)
    (tmp_path / "image" / "bin" / "sh").symlink_to("/usr/bin/sh")
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(running_image, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def images() -> Iterator[list[RunningImage]]:
    """Images whose processes are killed after the test, passed or failed."""
    started: list[RunningImage] = []
    yield started
    for image in started:
        image.end()


def image_of(folder: Path, script: str) -> RunningImage:
    """Image whose ENTRYPOINT is a shell that runs `script`."""
    root = ImageRoot(folder / "image", "10001:10001", {"PATH": "/usr/bin"}, ("/usr/bin/sh", "-c", script))
    return RunningImage("primary", root, folder, 1, {})


@pytest.mark.parametrize(
    ("script", "timeout_s", "message"),
    [
        pytest.param(DIES_ALONE, 60, r"not true that it exits with 0 after SIGTERM \(status -15\)", id="dies-alone"),
        pytest.param(EXITS_WITH_0, 60, r"not true that it leaves no process after its exit \(.+\)", id="exits-with-0"),
        pytest.param(IGNORES_SIGTERM, 0.1, "SIGTERM .*ENTRYPOINT start a shell", id="ignores-sigterm"),
    ],
)
def test_shell_that_leaves_the_service_running_is_reported_and_all_is_ended(
    folder: Path,
    images: list[RunningImage],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    timeout_s: float,
    message: str,
) -> None:
    monkeypatch.setattr(running_image, "CHILDREN_TIMEOUT_S", 0.1)
    image = image_of(folder, script)
    images.append(image)
    image.start()
    with pytest.raises(CheckFailedError, match=message):
        image.stop(timeout_s)
    assert image.root.wait_ended(0)

    image.end()
    assert image.root.wait_ended(0) == []
    assert not image.process.running


def install_tools(folder: Path, entrypoint: str) -> None:
    """Write scripted tools, which build images of the folder's `image` with packages of their own."""
    source = Path(scripted_buildah.__file__).read_text()
    write_program(folder / "buildah", f"#!{sys.executable}\n{source}")
    (folder / "entrypoint").write_text(json.dumps(["/usr/bin/sh", "-c", entrypoint]))
    sbom = json.dumps({"components": [{"type": "library", "name": "python3", "version": "3.11"}]})
    write_program(folder / "syft", f"#!/bin/sh\nfor last; do :; done; echo '{sbom}' >${{last#cyclonedx-json=}}\n")
    write_program(folder / "image" / "usr" / "bin" / "python", "#!/bin/sh\necho '{}'\n")
    write_program(folder / "image" / "usr" / "bin" / "dpkg-query", "#!/bin/sh\nprintf 3.11\n")


def test_check_of_a_service_in_a_shell_fails_and_ends_it_before_the_image_is_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_tools(folder, DIES_ALONE)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for module in (image_check, running_image):
        monkeypatch.setattr(module, "SBOMS", folder / "sboms")
    monkeypatch.setattr(image_check, "RECORDING", folder)
    monkeypatch.setattr(image_check, "MODELS", {})

    assert image_check.main(["--base-image", "base"]) == 1
    output = capsys.readouterr()
    assert "images: stt-fallback is ready" in output.out
    assert "images: can't reach" in output.err
    assert (folder / "removed").read_text().split() == ["0", "0"]
