"""A network that can be cut: a network namespace for one service, connected by a veth pair."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OURS, THEIRS = "10.231.77.1", "10.231.77.2"
"""Addresses of the veth pair: this side, and inside the namespace."""


def connections(pid: int, port: int) -> int:
    """Number of established connections of process `pid` to a TCP port."""
    own = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))  # gRPC's sockets may be of either
    table = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    established = [row for row in table if row[3] == "01" and row[2].endswith(f":{port:04X}")]
    return sum(f"socket:[{row[9]}]" in own for row in established)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def namespaces_unavailable() -> str:
    """Why namespaces can't be created here; empty if they can."""
    if shutil.which("ip") is None:
        return "the command `ip` is missing (Debian has it in iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"stt-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return "" if made.returncode == 0 else f"can't create network namespaces: {made.stderr.strip()}"


@dataclass(frozen=True)
class NamespaceLink:
    """The network connection of a namespace."""

    namespace: str
    host = THEIRS
    """Address of a service in the namespace, as seen from here."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """Command prefix that runs a command in the namespace."""
        return ("ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        """Drop all packets from the namespace silently: no connection is reset or refused.

        They are dropped inside the namespace: on this side the kernel would report that there is no route.
        """
        _run("ip", "-n", self.namespace, "route", "add", "blackhole", f"{OURS}/32")

    def mend(self) -> None:
        _run("ip", "-n", self.namespace, "route", "del", "blackhole", f"{OURS}/32")


@contextmanager
def namespace_link() -> Iterator[NamespaceLink]:
    """Create a namespace and its veth pair for the duration of the context. Needs root."""
    number = os.getpid() % 100000
    namespace, near, far = f"stt-{number}", f"stta{number}", f"sttb{number}"
    _run("ip", "netns", "add", namespace)
    try:
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        _run("ip", "addr", "add", f"{OURS}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run("ip", "-n", namespace, "addr", "add", f"{THEIRS}/30", "dev", far)
        _run("ip", "-n", namespace, "link", "set", far, "up")
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        yield NamespaceLink(namespace)
    finally:
        _run("ip", "netns", "del", namespace)
