"""Look up every version of constraints.txt in the database of known vulnerabilities OSV (https://osv.dev)."""

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
VULNERABLE, BROKEN, NOT_CHECKED = 1, 2, 3
"""Exit statuses: vulnerabilities found; pip-audit failed; database not reachable."""

KNOWN_VULNERABILITY = ("jinja2", "2.4.1")
"""A version with vulnerabilities known for years: a database without them is not OSV or a mirror."""

TIMEOUT_S = 10

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)")

_EPILOG = f"""\
Sends names and versions of packages to the database, nothing else.

exit status: 0 no known vulnerability; {VULNERABLE} at least one; {BROKEN} pip-audit failed;
{NOT_CHECKED} database not reachable, nothing was checked
"""


@dataclass(frozen=True)
class Vulnerability:
    package: str
    version: str
    id: str
    fixed_in: tuple[str, ...]
    """First versions without it; empty: none yet."""

    def __str__(self) -> str:
        cure = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fix yet"
        return f"{self.package} {self.version}: {self.id}, {cure}"


class NotCheckedError(Exception):
    """The database gives no usable answer. The message completes a sentence that begins with its address."""


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="audit", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--constraints",
        type=Path,
        default=ROOT / "constraints.txt",
        help="file with the versions; default: constraints.txt",
    )
    parser.add_argument(
        "--osv-url", default=OSV_URL, metavar="URL", help=f"a mirror of the database; default: {OSV_URL}"
    )
    arguments = parser.parse_args(argv)
    pins = list(pins_of(arguments.constraints.read_text()))
    try:
        check_database(arguments.osv_url)
        vulnerabilities = vulnerabilities_in(pins, arguments.osv_url)
    except NotCheckedError as error:
        print(f"audit: nothing was checked: {arguments.osv_url} {error}.", file=sys.stderr)
        print("audit: run it again with access to the database, or name a mirror with --osv-url.", file=sys.stderr)
        return NOT_CHECKED
    except RuntimeError as error:
        print(f"audit: {error}", file=sys.stderr)
        return BROKEN
    for vulnerability in vulnerabilities:
        print(f"audit: {vulnerability}")
    print(f"audit: {len(pins)} versions checked, {len(vulnerabilities)} known vulnerabilities")
    return VULNERABLE if vulnerabilities else 0


def pins_of(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each pin, for all Python versions and systems."""
    for line in text.splitlines():
        if match := _PIN.match(line):
            yield match[1], match[2]


def check_database(url: str) -> None:
    """Look up `KNOWN_VULNERABILITY`, which every copy of the database has.

    Raises:
        NotCheckedError: there is no answer, or not that of the database.
    """
    name, version = KNOWN_VULNERABILITY
    query = json.dumps({"package": {"name": name, "ecosystem": "PyPI"}, "version": version}).encode()
    request = urllib.request.Request(url, query, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            known = json.load(response).get("vulns")
    except urllib.error.HTTPError as error:
        raise NotCheckedError(f"answered with HTTP status {error.code}") from None
    except urllib.error.URLError as error:
        raise NotCheckedError(f"can't be reached ({error.reason})") from None
    except (OSError, ValueError, AttributeError):
        raise NotCheckedError("did not answer with a list of vulnerabilities") from None
    if not known:
        raise NotCheckedError(f"lacks the vulnerabilities of {name} {version}, which have been known for years")


def vulnerabilities_in(pins: Sequence[tuple[str, str]], url: str) -> list[Vulnerability]:
    """Known vulnerabilities of the given versions.

    Raises:
        NotCheckedError: the database stopped answering.
        RuntimeError: pip-audit failed.
    """
    return [vulnerability for layer in _layers(pins) for vulnerability in _vulnerabilities_in_layer(layer, url)]


def _vulnerabilities_in_layer(layer: dict[str, str], url: str) -> Iterator[Vulnerability]:
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
        for vulnerability in package["vulns"]:
            yield Vulnerability(
                package["name"], package["version"], vulnerability["id"], tuple(vulnerability["fix_versions"])
            )


def _layers(pins: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Split the pins so that no part has a package twice: pip-audit accepts only one version of each."""
    layers: list[dict[str, str]] = []
    for name, version in pins:
        for layer in layers:
            if name not in layer:
                layer[name] = version
                break
        else:
            layers.append({name: version})
    return layers
