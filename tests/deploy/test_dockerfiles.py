"""The Dockerfiles against the code, and buildscripts/images with stand-ins for the build tools."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stt_server.config import Role
from stt_server.testing.paths import ROOT
from tests.support.config_files import default_of
from tests.support.images_command import build

SERVICES: tuple[Role, ...] = ("primary", "fallback")


def text_of(service: str) -> str:
    return (ROOT / f"Dockerfile.{service}").read_text()


def instructions(service: str) -> list[tuple[str, str]]:
    """Name and arguments of each instruction, with continued lines joined and comments removed."""
    lines = [line for line in text_of(service).splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def final_stage(service: str) -> dict[str, str]:
    """Last instruction of each name after the last FROM."""
    found = instructions(service)
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[start:])


def test_dockerfiles_differ_only_in_service_and_ports() -> None:
    primary, fallback = (text_of(service).splitlines()[6:] for service in SERVICES)
    same = [line.replace("primary", "fallback").replace("50051", "50052").replace("8081", "8082") for line in primary]
    assert same == fallback


@pytest.mark.parametrize("service", SERVICES)
def test_image_fits_the_service(service: Role) -> None:
    stage = final_stage(service)
    assert stage["EXPOSE"].split() == [default_of("GRPC_PORT", service), default_of("HTTP_PORT", service)]
    # The JSON form: no shell between the runtime's SIGTERM and the service.
    assert json.loads(stage["ENTRYPOINT"]) == [f"/opt/stt/venv/bin/stt-{service}"]
    assert f"stt-{service} = stt_server.{service}:main" in (ROOT / "setup.cfg").read_text()
    _, _, health_check = stage["HEALTHCHECK"].partition("CMD ")
    assert json.loads(health_check)[1:] == ["-m", "stt_server.healthcheck", "--service", service]
    assert 0 not in map(int, stage["USER"].split(":")), "the service must not run as root"


@pytest.mark.parametrize("service", SERVICES)
def test_copied_files_exist_and_pass_dockerignore(service: Role) -> None:
    copied = [rest.split()[:-1] for name, rest in instructions(service) if name == "COPY" and "--from" not in rest]
    names = {name for names in copied for name in names}
    passed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert names == passed
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_docker_builds_both_images(tmp_path: Path) -> None:
    done, calls = build(tmp_path, {"docker": 0, "buildah": 0}, "--tag", "v1")
    assert done.returncode == 0, done.stderr
    assert [re.sub(r" --build-arg [A-Z]+=\S*", "", call) for call in calls] == [
        f"docker build -f Dockerfile.{service} --tag=stt-{service}:v1 --tag=stt-{service}:latest ."
        for service in ("fallback", "primary")
    ]


def test_build_is_recorded_in_the_image(tmp_path: Path) -> None:
    done, (call,) = build(tmp_path, {"docker": 0}, "primary", SOURCE_DATE_EPOCH="1000000000")
    assert done.returncode == 0, done.stderr
    given = dict(re.findall(r"--build-arg ([A-Z]+)=(\S*)", call))
    assert re.fullmatch(r"[0-9a-f]{12}(-changed)?", given["COMMIT"])
    assert f"\nversion = {given['VERSION']}\n" in (ROOT / "setup.cfg").read_text()
    assert given["CREATED"] == "2001-09-09T01:46:40Z"
    assert "@" not in given["SOURCE"], "a remote's user name or password"
    declared = {rest.partition("=")[0] for name, rest in instructions("primary") if name == "ARG"}
    assert set(given) == declared - {"BASE_IMAGE"}
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="\$\{(\w+)\}"', text_of("primary")))
    assert labels == {"version": "VERSION", "revision": "COMMIT", "created": "CREATED", "source": "SOURCE"}


def test_release_is_tagged_with_its_version(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "buildscripts").mkdir(parents=True)
    shutil.copy(ROOT / "buildscripts" / "images", checkout / "buildscripts")
    (checkout / "setup.cfg").write_text("version = 1.2.3\n")
    author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    for step in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "Release"), ("tag", "v1.2.3")):
        subprocess.run(["git", *step], cwd=checkout, check=True, timeout=30)
    done, (call,) = build(tmp_path, {"docker": 0}, "primary", "--tag", "t", root=checkout)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"--tag=(\S+)", call) == ["stt-primary:t", "stt-primary:latest", "stt-primary:1.2.3"]

    (checkout / "setup.cfg").write_text("version = 1.2.3\nchanged = yes\n")
    done, (_, call) = build(tmp_path, {}, "primary", "--tag", "t", root=checkout)
    assert "-changed" in call
    assert re.findall(r"--tag=(\S+)", call) == ["stt-primary:t", "stt-primary:latest"]


def test_buildah_is_used_if_the_docker_daemon_is_down(tmp_path: Path) -> None:
    args = ["primary", "--tag", "v1", "--isolation", "chroot", "--base-image", "debian:bookworm-slim"]
    done, calls = build(tmp_path, {"docker": 1, "buildah": 0}, *args)
    assert done.returncode == 0, done.stderr
    (call,) = calls
    assert call.startswith("buildah build ")
    assert "--build-arg BASE_IMAGE=debian:bookworm-slim --format docker --isolation chroot" in call


def test_images_are_pushed_to_the_registry(tmp_path: Path) -> None:
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


def test_other_platforms_image_has_only_the_given_tag(tmp_path: Path) -> None:
    done, (call,) = build(tmp_path, {"docker": 0}, "primary", "--platform", "linux/arm64", "--tag", "v1-arm64")
    assert done.returncode == 0, done.stderr
    assert " --platform linux/arm64 " in call
    assert re.findall(r"--tag=(\S+)", call) == ["stt-primary:v1-arm64"]


@pytest.mark.parametrize(
    ("tools", "args", "message"),
    [
        ({}, [], "docker, podman and buildah don't work here"),
        ({"docker": 1}, ["--tool", "docker"], "docker does not work here"),
        ({"docker": 0}, ["--isolation", "chroot"], "--isolation works only with buildah"),
        ({"docker": 0}, ["secondary"], "unknown argument secondary"),
        ({"docker": 0}, ["--tag"], "--tag requires a value"),
        ({"docker": 0}, ["--platform", "linux/arm64"], "--platform requires --tag, such as --tag v1-arm64"),
    ],
)
def test_unusable_arguments_are_reported(tmp_path: Path, tools: dict[str, int], args: list[str], message: str) -> None:
    done, calls = build(tmp_path, tools, *args)
    assert done.returncode == 1
    assert message in done.stderr
    assert calls == []


def test_package_data_names_every_data_file() -> None:
    """An editable install has all files; the images have those that [options.package_data] names."""
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
