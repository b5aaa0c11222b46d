"""Programs in the file system of an image as a container runs them, without a container engine."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ENTER = """
set -e
root=$1 user=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
while [ "$1" != -- ]; do
  mount --rbind "$1" "$root$2"
  # Devices stay as they are: a read-only /dev/null can still be written to, but not every kernel permits the remount.
  case "$2" in /dev | /proc) ;; *) mount -o remount,bind,ro "$root$2" ;; esac
  shift 2
done
shift
mount -t tmpfs -o mode=1777,size=512m tmpfs "$root/tmp"
exec setpriv --no-new-privs env -i "$@"
"""
"""In a mount namespace of its own: root read-only, mounts read-only, /tmp writable, as in deploy/compose.yaml. All
commands replace the shell, so that the process that was started is the program."""


@dataclass(frozen=True)
class ImageRoot:
    """Where and how an image's programs run. Needs root."""

    path: Path
    """Its file system."""
    user: str
    """USER: `UID:GID`."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """ENV, and nothing else."""
    entrypoint: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    """Command of HEALTHCHECK."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """LABEL."""

    def command(self, program: tuple[str, ...], mounts: Mapping[str, Path], **environ: str) -> list[str]:
        """Command that runs a program of the image.

        Args:
            program: name and arguments.
            mounts: folders of this machine by their path in the image, where they are read-only.
            environ: in addition to the image's.
        """
        everything = {"/proc": Path("/proc"), "/dev": Path("/dev"), **mounts}
        pairs = [part for target, source in everything.items() for part in (str(source), target)]
        variables = [f"{name}={value}" for name, value in {**self.environ, **environ}.items()]
        inside = ["/usr/sbin/chroot", f"--userspec={self.user}", str(self.path), *program]
        unshare = ["unshare", "--mount", "sh", "-c", _ENTER, "sh"]
        return [*unshare, str(self.path), self.user, *pairs, "--", *variables, *inside]

    def wait_ended(self, timeout_s: float) -> list[str]:
        """Wait until the image has no process; return the commands of those that still run after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        for pid in self._processes():
            with suppress(ProcessLookupError), _pidfd(pid) as ended:
                select.select([ended], [], [], max(0.0, deadline - time.monotonic()))
        return [_command_line(pid) for pid in self._processes()]

    def kill_processes(self) -> None:
        """Send SIGKILL to all processes of the image, and wait for their end."""
        while pids := self._processes():  # until it forked none in the meantime
            for pid in pids:
                with suppress(ProcessLookupError), _pidfd(pid) as ended:
                    signal.pidfd_send_signal(ended, signal.SIGKILL)
                    select.select([ended], [], [])

    def _processes(self) -> list[int]:
        """Ids of the processes with this root, in process groups and sessions of their own too."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if (process / "root").samefile(self.path):
                    found.append(int(process.name))
        return found


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    """File descriptor of a process, readable once it has ended. Raises ProcessLookupError."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _command_line(pid: int) -> str:
    """Command of a process; empty if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def image_root(path: Path, inspected: Mapping[str, Any]) -> ImageRoot:
    """Root of an image.

    Args:
        path: its file system.
        inspected: what `buildah inspect --type image` prints.
    """
    config = inspected["Docker"]["config"]
    return ImageRoot(
        path,
        config["User"],
        dict(entry.split("=", 1) for entry in config["Env"]),
        tuple(config["Entrypoint"]),
        tuple(config["Healthcheck"]["Test"][1:]),
        config["Labels"],
    )


@contextmanager
def mounted_image(name: str) -> Iterator[ImageRoot]:
    """Mount an image of buildah's store. Raises subprocess.CalledProcessError."""
    inspected = json.loads(buildah("inspect", "--type", "image", name))
    container = buildah("from", "--pull-never", name)
    try:
        yield image_root(Path(buildah("mount", container)), inspected)
    finally:
        buildah("rm", container)


def buildah(*arguments: str) -> str:
    """Standard output of a buildah command. Raises subprocess.CalledProcessError."""
    done = subprocess.run(["buildah", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()
