"""The Dockerfiles and buildscripts/images: what they promise, read from the files; the build tool is a stand-in."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from stt_server.config import KEYS, Role

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES: tuple[Role, ...] = ("primary", "fallback")


def text_of(service: str) -> str:
    return (ROOT / f"Dockerfile.{service}").read_text()


def instructions(service: str) -> list[tuple[str, str]]:
    """Name and arguments of each instruction, lines joined and comments left out."""
    lines = [line for line in text_of(service).splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def final_stage(service: str) -> dict[str, str]:
    """The last instruction of each name after the last FROM."""
    found = instructions(service)
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[start:])


def default_of(key: str, service: Role) -> str:
    return next(each.default_for(service) or "" for each in KEYS if each.name == key)


def test_the_two_differ_in_name_and_ports_alone() -> None:
    primary, fallback = (text_of(service).splitlines()[6:] for service in SERVICES)
    same = [line.replace("primary", "fallback").replace("50051", "50052").replace("8081", "8082") for line in primary]
    assert same == fallback


@pytest.mark.parametrize("service", SERVICES)
def test_the_base_image_is_an_argument_with_a_cuda_12_and_cudnn_default(service: Role) -> None:
    found = instructions(service)
    assert found[0][0] == "ARG"
    assert re.fullmatch(r"BASE_IMAGE=nvidia/cuda:12\.\d+\.\d+-cudnn-runtime-ubuntu\d\d\.04", found[0][1])
    assert [rest for name, rest in found if name == "FROM"] == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]


@pytest.mark.parametrize("service", SERVICES)
def test_versions_come_from_the_constraints(service: Role) -> None:
    pip = [rest for name, rest in instructions(service) if name == "RUN" and "pip install" in rest]
    assert '-c constraints.txt ".[server]"' in pip[0]
    assert "--no-deps" in pip[1]


@pytest.mark.parametrize("service", SERVICES)
def test_it_runs_as_a_numbered_user_and_execs_the_service(service: Role) -> None:
    stage = final_stage(service)
    user, _, group = stage["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    # The JSON form: no shell between the runtime's SIGTERM and the service.
    assert json.loads(stage["ENTRYPOINT"]) == [f"/opt/stt/venv/bin/stt-{service}"]
    assert "CMD" not in stage


@pytest.mark.parametrize("service", SERVICES)
def test_ports_and_configuration_are_the_contract_s(service: Role) -> None:
    stage = final_stage(service)
    assert stage["EXPOSE"].split() == [default_of("GRPC_PORT", service), default_of("HTTP_PORT", service)]
    assert f"CONFIG_PATH=/config/stt_{service}.env" in stage["ENV"]
    assert f"stt-{service} = stt_server.{service}:main" in (ROOT / "setup.cfg").read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_the_health_check_is_our_own_code(service: Role) -> None:
    _, _, command = final_stage(service)["HEALTHCHECK"].partition("CMD ")
    assert json.loads(command)[1:] == ["-m", "stt_server.healthcheck", "--service", service]
    assert "curl" not in " ".join(rest for _, rest in instructions(service))


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_exists_and_is_let_through(service: Role) -> None:
    copied = [rest.split()[:-1] for name, rest in instructions(service) if name == "COPY" and "--from" not in rest]
    names = {name for names in copied for name in names}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert names == let_through
    missing = [name for name in names if not (ROOT / name).exists()]
    assert missing == []


STAND_IN = """#!/bin/sh
[ "$1" = info ] && exit {info}
printf '%s\\n' "{name} $*" >> "{log}"
"""


def build(folder: Path, tools: dict[str, int], *args: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs buildscripts/images where only the stand-ins `tools` (name -> status of `info`) are installed."""
    log = folder / "log"
    log.touch()
    for name, info in tools.items():
        tool = folder / name
        tool.write_text(STAND_IN.format(info=info, name=name, log=log))
        tool.chmod(0o755)
    for name in ("bash", "dirname", "git", "sed"):
        found = next(Path(path) / name for path in os.environ["PATH"].split(":") if (Path(path) / name).exists())
        (folder / name).symlink_to(found)
    command = [str(folder / "bash"), str(ROOT / "buildscripts" / "images"), *args]
    done = subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, timeout=30, check=False)
    return done, log.read_text().splitlines()


def test_it_builds_both_with_docker_where_the_daemon_answers(tmp_path: Path) -> None:
    done, calls = build(tmp_path, {"docker": 0, "buildah": 0}, "--tag", "v1")
    assert done.returncode == 0, done.stderr
    assert [re.sub(r"COMMIT=\S+", "COMMIT=x", call) for call in calls] == [
        f"docker build --build-arg COMMIT=x -f Dockerfile.{service} -t stt-{service}:v1 -t stt-{service}:latest ."
        for service in ("fallback", "primary")
    ]


def test_it_takes_buildah_where_the_docker_daemon_does_not_answer(tmp_path: Path) -> None:
    args = ["primary", "--tag", "v1", "--isolation", "chroot", "--base-image", "debian:bookworm-slim"]
    done, calls = build(tmp_path, {"docker": 1, "buildah": 0}, *args)
    assert done.returncode == 0, done.stderr
    (call,) = calls
    assert call.startswith("buildah build ")
    assert "--build-arg BASE_IMAGE=debian:bookworm-slim --format docker --isolation chroot" in call


def test_it_pushes_under_the_registry_s_name(tmp_path: Path) -> None:
    done, calls = build(
        tmp_path,
        {"podman": 0},
        "fallback",
        "--tag",
        "v1",
        "--registry",
        "registry.example.com/stt/",
        "--push",
    )
    assert done.returncode == 0, done.stderr
    assert calls[1:] == [
        "podman push registry.example.com/stt/stt-fallback:v1",
        "podman push registry.example.com/stt/stt-fallback:latest",
    ]


@pytest.mark.parametrize(
    ("tools", "args", "said"),
    [
        ({}, [], "none of docker, podman and buildah works here"),
        ({"docker": 1}, ["--tool", "docker"], "docker does not work here"),
        ({"docker": 0}, ["--isolation", "chroot"], "--isolation is buildah's"),
        ({"docker": 0}, ["secondary"], "unknown argument secondary"),
        ({"docker": 0}, ["--tag"], "--tag takes a value"),
    ],
)
def test_it_fails_with_a_sentence(tmp_path: Path, tools: dict[str, int], args: list[str], said: str) -> None:
    done, calls = build(tmp_path, tools, *args)
    assert done.returncode == 1
    assert said in done.stderr
    assert calls == []


def test_every_file_that_the_code_needs_is_installed_with_it() -> None:
    """An editable install has them all; the images' install has what [options.package_data] names."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    # A pattern is relative to a package's folder, and `*` stays within one folder.
    patterns = [pattern.strip() for pattern in re.split(r"[,\n]", setup["options.package_data"]["*"])]
    roots = [ROOT / name for name in ("protos", "stt_client", "gateway", "stt_server")]
    packages = [file.parent for root in roots for file in root.rglob("__init__.py")]
    installed = {file for package in packages for pattern in patterns if pattern for file in package.glob(pattern)}
    needed = {
        file for root in roots for file in root.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert needed
    assert sorted(str(file.relative_to(ROOT)) for file in needed - installed) == []
