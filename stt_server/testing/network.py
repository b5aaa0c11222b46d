"""Network namespaces for services: one whose network can be cut, or several on a bridge, as machines on a switch."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

LINKS = IPv4Network("10.231.0.0/16")
"""Each link takes a /30 of these."""
BRIDGES = IPv4Network("10.232.0.0/16")
"""Each bridge takes a /24 of these."""


def connections(pid: int, port: int) -> int:
    """Number of established connections of process `pid` to a TCP port."""
    own = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))  # gRPC's sockets may be of either
    table = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    established = [row for row in table if row[3] == "01" and row[2].endswith(f":{port:04X}")]
    return sum(f"socket:[{row[9]}]" in own for row in established)


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)  # noqa: S603, S607


def _unused(networks: IPv4Network, prefix_length: int) -> IPv4Network:
    """One of `networks`, the first address of which no interface here has.

    Two links of the same network would take each other's packets: another run may be going on, and one that was killed
    leaves its link behind.
    """
    used = _ip("-o", "-4", "addr").stdout
    free = [network for network in networks.subnets(new_prefix=prefix_length) if f" {network[1]}/" not in used]
    # At random: two runs that start together seldom choose the same.
    return random.choice(free)  # noqa: S311


def namespaces_unavailable() -> str:
    """Why namespaces can't be created here; empty if they can."""
    if shutil.which("ip") is None:
        return "the command `ip` is missing (Debian has it in iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"stt-try-{os.getpid()}"
    made = _ip("netns", "add", name, check=False)
    _ip("netns", "del", name, check=False)
    return "" if made.returncode == 0 else f"can't create network namespaces: {made.stderr.strip()}"


@dataclass(frozen=True)
class NamespaceLink:
    """A namespace and its network connection."""

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
        _ip("-n", self.namespace, "route", "add", "blackhole", f"{self.near_host}/32")

    def mend(self) -> None:
        _ip("-n", self.namespace, "route", "del", "blackhole", f"{self.near_host}/32")


@contextmanager
def namespace_link() -> Iterator[NamespaceLink]:
    """Create a namespace and its veth pair for the duration of the context. Needs root."""
    number, network = os.getpid(), _unused(LINKS, 30)
    ours, theirs = str(network[1]), str(network[2])
    namespace, near, far = f"stt-{number}", f"stta{number}", f"sttb{number}"
    _ip("netns", "add", namespace)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        _ip("addr", "add", f"{ours}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", namespace, "addr", "add", f"{theirs}/30", "dev", far)
        _ip("-n", namespace, "link", "set", far, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        yield NamespaceLink(namespace, theirs, ours)
    finally:
        _ip("netns", "del", namespace)


@contextmanager
def bridged_namespaces(count: int) -> Iterator[list[NamespaceLink]]:
    """Create namespaces on one bridge for the duration of the context. Needs root.

    They reach each other and this side, each at an address of its own.

    Args:
        count: 1 to 253.
    """
    number, network = os.getpid(), _unused(BRIDGES, 24)
    bridge, ours, *others = f"sttc{number}", *map(str, network.hosts())
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{ours}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        links = [NamespaceLink(f"stt-{number}-{n}", host, ours) for n, host in enumerate(others[:count])]
        for n, link in enumerate(links):
            _ip("netns", "add", link.namespace)
            stack.callback(_ip, "netns", "del", link.namespace)
            _add_to_bridge(bridge, link, f"sttd{number}-{n}")
        yield links


def _add_to_bridge(bridge: str, link: NamespaceLink, near: str) -> None:
    """Connect a namespace with a bridge by a veth pair, whose end on this side is `near`."""
    _ip("link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", link.namespace)
    _ip("link", "set", near, "master", bridge, "up")
    _ip("-n", link.namespace, "addr", "add", f"{link.host}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip("-n", link.namespace, "link", "set", device, "up")
