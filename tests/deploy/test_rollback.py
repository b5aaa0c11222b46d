"""The commands of docs/rollout.md that bring an earlier release back: its code and its configuration."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from stt_client import SyncSttClient
from stt_server.config import Role
from stt_server.testing.paths import ROOT
from stt_server.testing.processes import HOST, ChildProcess, installed_command
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import MODEL_KEYS, make_model_folder, running, write_config
from tests.support.needs import lacking

PAGE = (ROOT / "docs" / "rollout.md").read_text()
SERVICES: tuple[Role, ...] = ("primary", "fallback")
OLD, NEW = "0.1.0", "0.2.0"
SLOTS = {OLD: 1, NEW: 2}
"""MAX_CONCURRENCY of each release's configuration."""
ENGINE = """#!/bin/sh
printf '%s\\n' "$*" >> "{log}"
case "$1" in
  --version) echo "podman version 5.4.0" ;;
  inspect) exit 1 ;;
  ps) echo "[]" ;;
esac
"""
"""Stand-in for podman that has no images and no containers."""

Documents = dict[tuple[str, str], dict[str, Any]]


def blocks(section: str) -> list[str]:
    """Code blocks of a section of the page."""
    text = PAGE.split(f"\n### {section}\n", 1)[1].split("\n## ")[0].split("\n### ")[0]
    return re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def stand_in(folder: Path, name: str, script: str) -> Path:
    """Put a program into `folder`; return the file to which it writes its arguments."""
    log = folder / f"{name}.log"
    log.touch()
    program = folder / name
    program.write_text(script.format(log=log))
    program.chmod(0o755)
    return log


@pytest.mark.parametrize("release", [OLD, NEW])
def test_compose_starts_image_and_configuration_of_the_release(tmp_path: Path, release: str) -> None:
    release_file, command = blocks("Roll back with Compose")
    assert NEW in release_file
    assert OLD in command
    for folder in ("deploy", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "releases").mkdir()
    for each in (OLD, NEW):
        (tmp_path / "releases" / f"{each}.env").write_text(release_file.replace(NEW, each))
    log = stand_in(tmp_path, "podman", ENGINE)
    program, compose, *arguments = shlex.split(command.replace(OLD, release))
    assert (program, compose) == ("docker", "compose")
    done = subprocess.run(
        [installed_command("podman-compose"), *arguments],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    calls = [line.split() for line in log.read_text().splitlines()]
    assert [call for call in calls if call[0] == "build"] == [], "the checkout's code under the release's tag"
    for service in SERVICES:
        (created,) = (call for call in calls if call[0] in ("create", "run") and f"stt-{service}:{release}" in call)
        assert f"/opt/stt/releases/{release}:/config:ro" in created


class Machine:
    """/opt/stt below a scratch folder, with a stand-in for systemctl."""

    def __init__(self, folder: Path) -> None:
        self.opt = folder / "opt" / "stt"
        self.opt.mkdir(parents=True)
        self._folder = folder
        self._systemctl = stand_in(folder, "systemctl", '#!/bin/sh\nprintf \'%s\\n\' "$*" >> "{log}"\n')
        Script(text="hello").write(folder / "script.json")

    def install(self, release: str) -> None:
        """Make a release with a scripted model, with its name as its commit."""
        folder = self.opt / "releases" / release
        venv.create(folder / "venv", symlinks=True)
        (folder / "venv" / "COMMIT").write_text(release)
        (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (packages / "all.pth").write_text(
            "\n".join([str(ROOT), *(path for path in sys.path if "site-packages" in path)])
        )
        for service in SERVICES:
            script = folder / "venv" / "bin" / f"stt-{service}"
            script.write_text(
                f"#!{folder}/venv/bin/python\nimport sys\nfrom stt_server.testing.scripted_service import main\n"
                f"sys.argv.insert(1, {service!r})\nsys.exit(main())\n"
            )
            script.chmod(0o755)
            keys = {MODEL_KEYS[service]: make_model_folder(self.opt / "models" / "any"), "HOST": HOST}
            keys |= {"GRPC_PORT": 0, "HTTP_PORT": "off", "DEVICE": "cpu", "MAX_CONCURRENCY": SLOTS[release]}
            write_config(folder / f"stt_{service}.env", keys)

    def switch(self, release: str) -> list[str]:
        """Run the page's commands; return the calls of systemctl."""
        (commands,) = blocks("Roll back with systemd")
        assert OLD in commands
        here = commands.replace("/opt/stt", str(self.opt)).replace(OLD, release)
        environ = {"PATH": f"{self._folder}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-euc", here], cwd=self._folder, env=environ, check=True, timeout=30)
        calls = self._systemctl.read_text().splitlines()
        self._systemctl.write_text("")
        return calls

    def process(self, service: Role) -> ChildProcess:
        """The service as its unit starts it."""
        text = (ROOT / "deploy" / "systemd" / f"stt-{service}.service").read_text().replace("/opt/stt", str(self.opt))
        unit = dict(re.findall(r"^(ExecStart|Environment|WorkingDirectory)=(.*)$", text, re.MULTILINE))
        environ = dict(pair.split("=", 1) for pair in shlex.split(unit["Environment"]))
        environ |= {"STT_SCRIPT": str(self._folder / "script.json")}
        log = self._folder / f"{service}.log"
        command, cwd = shlex.split(unit["ExecStart"]), Path(unit["WorkingDirectory"])
        return ChildProcess(service, command, log, environ=environ, cwd=cwd)


def test_systemd_starts_code_and_configuration_of_the_release(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for release in (OLD, NEW):
        machine.install(release)
    for release in (OLD, NEW, OLD):
        assert machine.switch(release) == ["restart stt-fallback stt-primary"]
        processes = [machine.process(service) for service in SERVICES]
        with running(*processes):
            for process in processes:
                target = f"{HOST}:{process.wait_ready().grpc_port}"
                with SyncSttClient(target) as client:
                    status = client.status()
                assert (status.server_commit, status.limits.max_concurrency) == (release, SLOTS[release])
                assert process.stop() == 0


def test_kubernetes_keeps_the_configuration_of_the_release(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        lacking("kubectl is not installed; buildscripts/test unpacks it from npm")
    (name,) = re.findall(r"`kubectl -n stt rollout undo deployment/(\S+)`", PAGE)
    shutil.copytree(ROOT / "deploy" / "kubernetes", tmp_path / "kubernetes")
    first = rendered(tmp_path / "kubernetes" / "base")
    with (tmp_path / "kubernetes" / "base" / "config" / "stt_primary.env").open("a") as file:
        file.write("MAX_QUEUE=5\n")
    second = rendered(tmp_path / "kubernetes" / "base")
    deployment = first["Deployment", name]
    assert deployment["metadata"]["namespace"] == "stt"
    assert deployment["spec"].get("revisionHistoryLimit", 10) > 0, "without old ReplicaSets nothing can be undone"
    named_first, named_second = (configuration(each["Deployment", name]) for each in (first, second))
    assert ("ConfigMap", named_first) in first
    assert ("ConfigMap", named_second) in second
    assert ("ConfigMap", named_first) not in second, "the new release overwrites the old one's configuration"


def rendered(folder: Path) -> Documents:
    """Documents of a kustomization by kind and name."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True, timeout=60)
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout) if each}


def configuration(deployment: dict[str, Any]) -> str:
    """Name of the ConfigMap that a Deployment mounts."""
    (volume,) = (each for each in deployment["spec"]["template"]["spec"]["volumes"] if each["name"] == "config")
    name: str = volume["configMap"]["name"]
    return name
