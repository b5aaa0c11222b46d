"""An image of the pair that runs as deploy/compose.yaml runs it, and the checks of what it promises."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from buildscripts.lib.image_root import ImageRoot
from buildscripts.lib.models.pins import ROOT
from stt_client import SyncSttClient
from stt_server.config import Role
from stt_server.testing.processes import HOST, STOP_TIMEOUT_S, ChildProcess, free_port
from stt_server.testing.services import MODEL_KEYS, write_config

MODELS: Mapping[Role, str] = {"fallback": "whisper-base-ct2", "primary": "whisper-tiny.en-ct2"}
"""In the order in which they are started."""
RECORDING = ROOT / "samples" / "en" / "quick_brown_fox.wav"
SPOKEN = "quick brown fox"
SBOMS = ROOT / "artifacts" / "sbom"
PACKAGES = ("grpcio", "faster-whisper", "ctranslate2")
"""Python packages that the SBOM must list as they are installed."""
PROGRAM_TIMEOUT_S = 120
CHILDREN_TIMEOUT_S = 5.0
"""Longest time that child processes outlive the service."""

_LABEL = "org.opencontainers.image."
_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


class CheckFailedError(Exception):
    """An image does not do what it promises."""


class RunningImage:
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

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Send SIGTERM. Raises CheckFailedError if the exit status is not 0, or a process is left."""
        self.process.send(signal.SIGTERM)
        try:
            status = f"status {self.process.wait(timeout_s)}"
        except subprocess.TimeoutExpired:
            status = f"runs {timeout_s:g} s later: does its ENTRYPOINT start a shell?"
        self._expect(status == "status 0", "exits with 0 after SIGTERM", status)
        left = ", ".join(self.root.wait_ended(CHILDREN_TIMEOUT_S))
        self._expect(not left, "leaves no process after its exit", left)

    def end(self) -> None:
        """Kill all processes in the image's root, whichever started them. Does nothing if there are none."""
        self.root.kill_processes()
        self.process.kill()

    def _run(self, *program: str) -> subprocess.CompletedProcess[str]:
        command = self.root.command(program, self._mounts)
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROGRAM_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise CheckFailedError(f"stt-{self.role}: {program[0]} did not end in {PROGRAM_TIMEOUT_S} s") from None

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
