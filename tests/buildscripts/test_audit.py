"""`buildscripts/audit` against a stand-in for the database of known holes."""

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

from buildscripts.lib.audit import KNOWN_HOLE, pins_of
from stt_server.testing.paths import ROOT


@dataclass
class Database:
    """What the stand-in knows, and what it was asked."""

    url: str = ""
    holes: dict[tuple[str, str], str] = field(default_factory=lambda: {KNOWN_HOLE: "PYSEC-OLD"})
    status: int = 200
    answers_left: int = -1
    """After so many it says 503; -1: never."""
    asked: set[tuple[str, str]] = field(default_factory=set)

    def answer(self, query: dict[str, object]) -> tuple[int, dict[str, object]]:
        if self.answers_left == 0 or self.status != 200:
            return max(self.status, 503), {}
        self.answers_left -= 1
        package = query["package"]
        assert isinstance(package, dict)
        version = package["name"], str(query["version"])
        self.asked.add(version)
        if version not in self.holes:
            return 200, {}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}]
        hole = {"id": self.holes[version], "affected": [{"package": package, "ranges": ranges}]}
        return 200, {"vulns": [hole]}


@contextmanager
def serving(database: Database) -> Iterator[Database]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keeps the test's output clean."""

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


def test_every_pin_is_asked_for_whatever_python_it_is_for(database: Database, constraints: Path) -> None:
    done = audit(database.url, "--constraints", constraints)
    assert (done.returncode, done.stdout) == (0, "audit: 3 versions asked for, 0 known holes\n"), done.stderr
    assert database.asked == {KNOWN_HOLE, ("one", "1.0"), ("one", "2.0"), ("two", "3.1")}


def test_a_hole_is_named_with_its_cure_and_fails(database: Database, constraints: Path) -> None:
    database.holes["one", "1.0"] = "PYSEC-1"
    done = audit(database.url, "--constraints", constraints)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "audit: one 1.0: PYSEC-1, fixed in 99.1",
        "audit: 3 versions asked for, 1 known holes",
    ]


def test_the_repositorys_own_pins_can_be_asked_for(database: Database) -> None:
    done = audit(database.url)
    assert done.returncode == 0, done.stderr
    pins = set(pins_of((ROOT / "constraints.txt").read_text()))
    assert len(pins) > 100
    assert len(database.asked) == len(pins) + 1


def test_a_database_that_cannot_be_reached_is_said_to_be_so(constraints: Path) -> None:
    done = audit("http://127.0.0.1:1/v1/query", "--constraints", constraints)
    assert (done.returncode, done.stdout) == (3, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("audit: nothing was checked: http://127.0.0.1:1/v1/query can't be reached")
    assert "--osv-url" in second


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 403}, "answers 503"),
        ({"holes": {}}, "doesn't know the holes of jinja2 2.4.1"),
        ({"answers_left": 2}, "stopped answering"),
    ],
)
def test_half_an_answer_is_none(fault: dict[str, object], said: str, constraints: Path) -> None:
    with serving(Database(**fault)) as database:  # type: ignore[arg-type]
        done = audit(database.url, "--constraints", constraints)
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
