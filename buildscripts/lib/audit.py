"""Known holes in what constraints.txt pins, as pip-audit finds them in the database of OSV (https://osv.dev)."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildscripts.lib.models.pins import ROOT

OSV_URL = "https://api.osv.dev/v1/query"
HOLES, BROKEN, NOT_CHECKED = 1, 2, 3
"""Exit statuses: something is known; the command itself failed; the database can't be asked."""

KNOWN_HOLE = ("jinja2", "2.4.1")
"""A version whose holes have been known for years: who doesn't know them can't be asked for newer ones."""

TIMEOUT_S = 10

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)")

_EPILOG = f"""\
Names and versions of packages are sent to the database, nothing else.

exit status: 0 nothing is known; {HOLES} something is; {BROKEN} pip-audit failed; {NOT_CHECKED} the database can't be
reached, and nothing was checked
"""


@dataclass(frozen=True)
class Hole:
    package: str
    version: str
    id: str
    fixed_in: tuple[str, ...]
    """The first versions without it; empty: none yet."""

    def __str__(self) -> str:
        cure = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fix yet"
        return f"{self.package} {self.version}: {self.id}, {cure}"


class NotCheckedError(Exception):
    """The database can't be asked; the message is the end of a sentence."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="audit", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt", help="default: constraints.txt")
    parser.add_argument("--osv-url", default=OSV_URL, metavar="URL", help=f"a mirror of the database; {OSV_URL}")
    arguments = parser.parse_args(argv)
    pins = list(pins_of(arguments.constraints.read_text()))
    try:
        ask_known_hole(arguments.osv_url)
        holes = holes_in(pins, arguments.osv_url)
    except NotCheckedError as error:
        print(f"audit: nothing was checked: {arguments.osv_url} {error}.", file=sys.stderr)
        print("audit: run this again where it can be reached, or give a mirror by --osv-url.", file=sys.stderr)
        return NOT_CHECKED
    except RuntimeError as error:
        print(f"audit: {error}", file=sys.stderr)
        return BROKEN
    for hole in holes:
        print(f"audit: {hole}")
    print(f"audit: {len(pins)} versions asked for, {len(holes)} known holes")
    return HOLES if holes else 0


def pins_of(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each pin, for whichever Python or system it is."""
    for line in text.splitlines():
        if match := _PIN.match(line):
            yield match[1], match[2]


def ask_known_hole(url: str) -> None:
    """Asks for a hole that every copy of the database has.

    Raises:
        NotCheckedError: nobody answers, or it isn't the database who does.
    """
    name, version = KNOWN_HOLE
    query = json.dumps({"package": {"name": name, "ecosystem": "PyPI"}, "version": version}).encode()
    request = urllib.request.Request(url, query, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            known = json.load(response).get("vulns")
    except urllib.error.HTTPError as error:
        raise NotCheckedError(f"answers {error.code}") from None
    except urllib.error.URLError as error:
        raise NotCheckedError(f"can't be reached ({error.reason})") from None
    except (OSError, ValueError, AttributeError):
        raise NotCheckedError("gives no answer that is one") from None
    if not known:
        raise NotCheckedError(f"doesn't know the holes of {name} {version}, which are years old")


def holes_in(pins: Sequence[tuple[str, str]], url: str) -> list[Hole]:
    """What is known of these versions.

    Raises:
        NotCheckedError: the database stopped answering.
        RuntimeError: pip-audit failed.
    """
    return [hole for layer in _layers(pins) for hole in _holes_in_layer(layer, url)]


def _holes_in_layer(layer: dict[str, str], url: str) -> Iterator[Hole]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "constraints.txt"
        file.write_text("".join(f"{name}=={version}\n" for name, version in layer.items()))
        command = [sys.executable, "-m", "pip_audit", "-s", "osv", "--osv-url", url, "--timeout", str(TIMEOUT_S)]
        command += ["--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
        command += ["--cache-dir", scratch, "-r", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        if "ConnectionError" in last or "Timeout" in last or "HTTPError" in done.stderr:
            raise NotCheckedError("stopped answering") from None
        raise RuntimeError(f"pip-audit failed: {last}") from None
    for package in found:
        for hole in package["vulns"]:
            yield Hole(package["name"], package["version"], hole["id"], tuple(hole["fix_versions"]))


def _layers(pins: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """The pins in parts in which no package is twice: pip-audit takes no two versions of one."""
    layers: list[dict[str, str]] = []
    for name, version in pins:
        for layer in layers:
            if name not in layer:
                layer[name] = version
                break
        else:
            layers.append({name: version})
    return layers
