"""A network that can be cut: a network namespace for one service, connected by a veth pair."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

NETWORKS = IPv4Network("10.231.0.0/16")
"""Each link takes a /30 of these."""


def connections(pid: int, port: int) -> int:
    """Number of established connections of process `pid` to a TCP port."""
    own = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))  # gRPC's sockets may be of either
    table = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    established = [row for row in table if row[3] == "01" and row[2].endswith(f":{port:04X}")]
    return sum(f"socket:[{row[9]}]" in own for row in established)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _unused_addresses() -> tuple[str, str]:
    """Two addresses of one /30 that no interface here has.

    Two links of the same network would take each other's packets: another run may be going on, and one that was killed
    leaves its link behind.
    """
    used = _run("ip", "-o", "-4", "addr")
    networks = [net for net in NETWORKS.subnets(new_prefix=30) if f" {net[1]}/" not in used]
    chosen = random.choice(networks)  # at random: two runs that start together seldom choose the same
    return str(chosen[1]), str(chosen[2])


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
    host: str
    """Address of a service in the namespace, as seen from here."""
    near_host: str
    """Address of this side, as seen from the namespace."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """Command prefix that runs a command in the namespace."""
        return ("ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        """Drop all packets from the namespace silently: no connection is reset or refused.

        They are dropped inside the namespace: on this side the kernel would report that there is no route.
        """
        _run("ip", "-n", self.namespace, "route", "add", "blackhole", f"{self.near_host}/32")

    def mend(self) -> None:
        _run("ip", "-n", self.namespace, "route", "del", "blackhole", f"{self.near_host}/32")


@contextmanager
def namespace_link() -> Iterator[NamespaceLink]:
    """Create a namespace and its veth pair for the duration of the context. Needs root."""
    number = os.getpid()
    ours, theirs = _unused_addresses()
    namespace, near, far = f"stt-{number}", f"stta{number}", f"sttb{number}"
    _run("ip", "netns", "add", namespace)
    try:
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        _run("ip", "addr", "add", f"{ours}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run("ip", "-n", namespace, "addr", "add", f"{theirs}/30", "dev", far)
        _run("ip", "-n", namespace, "link", "set", far, "up")
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        yield NamespaceLink(namespace, theirs, ours)
    finally:
        _run("ip", "netns", "del", namespace)
