"""`buildscripts/audit` with a stand-in for the database of known vulnerabilities."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from buildscripts.lib.audit import KNOWN_VULNERABILITY, pins_of
from stt_server.testing.paths import ROOT


@dataclass
class Database:
    """Content and behaviour of the stand-in, and the versions it was queried for."""

    url: str = ""
    vulnerabilities: dict[tuple[str, str], str] = field(default_factory=lambda: {KNOWN_VULNERABILITY: "PYSEC-OLD"})
    status: int = 200
    answers_left: int = -1
    """Number of answers before it returns 503; -1: no limit."""
    queried: set[tuple[str, str]] = field(default_factory=set)

    def answer(self, query: dict[str, object]) -> tuple[int, dict[str, object]]:
        if self.answers_left == 0 or self.status != 200:
            return max(self.status, 503), {}
        self.answers_left -= 1
        package = query["package"]
        assert isinstance(package, dict)
        version = package["name"], str(query["version"])
        self.queried.add(version)
        if version not in self.vulnerabilities:
            return 200, {}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}]
        vulnerability = {"id": self.vulnerabilities[version], "affected": [{"package": package, "ranges": ranges}]}
        return 200, {"vulns": [vulnerability]}


@contextmanager
def serving(database: Database) -> Iterator[Database]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log of requests."""

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = database.answer(query)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    database.url = f"http://127.0.0.1:{server.server_port}/v1/query"
    try:
        yield database
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def database() -> Iterator[Database]:
    with serving(Database()) as found:
        yield found


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text(
        "# A comment\none==1.0 ; python_full_version < '3.11'\none==2.0 ; python_full_version >= '3.11'\ntwo==3.1\n"
    )
    return path


def audit(url: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "buildscripts" / "audit", "--osv-url", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_pins_for_every_python_version_are_checked(database: Database, constraints: Path) -> None:
    done = audit(database.url, "--constraints", constraints)
    assert (done.returncode, done.stdout) == (0, "audit: 3 versions checked, 0 known vulnerabilities\n"), done.stderr
    assert database.queried == {KNOWN_VULNERABILITY, ("one", "1.0"), ("one", "2.0"), ("two", "3.1")}


def test_vulnerability_fails_and_names_the_fixed_version(database: Database, constraints: Path) -> None:
    database.vulnerabilities["one", "1.0"] = "PYSEC-1"
    done = audit(database.url, "--constraints", constraints)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "audit: one 1.0: PYSEC-1, fixed in 99.1",
        "audit: 3 versions checked, 1 known vulnerabilities",
    ]


def test_own_constraints_can_be_checked(database: Database) -> None:
    done = audit(database.url)
    assert done.returncode == 0, done.stderr
    pins = set(pins_of((ROOT / "constraints.txt").read_text()))
    assert len(pins) > 100
    assert len(database.queried) == len(pins) + 1


def test_unreachable_database_is_reported(constraints: Path) -> None:
    done = audit("http://127.0.0.1:1/v1/query", "--constraints", constraints)
    assert (done.returncode, done.stdout) == (3, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("audit: nothing was checked: http://127.0.0.1:1/v1/query can't be reached")
    assert "--osv-url" in second


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 403}, "answered with HTTP status 503"),
        ({"vulnerabilities": {}}, "lacks the vulnerabilities of jinja2 2.4.1"),
        ({"answers_left": 2}, "stopped answering"),
    ],
)
def test_incomplete_answers_check_nothing(fault: dict[str, object], message: str, constraints: Path) -> None:
    with serving(Database(**fault)) as database:  # type: ignore[arg-type]
        done = audit(database.url, "--constraints", constraints)
    assert (done.returncode, done.stdout) == (3, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
