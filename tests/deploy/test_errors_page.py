"""docs/errors.md says what the error table says, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from protos.stt.v1.errors import ERRORS, FALLBACK_CODES
from stt_server.testing.paths import ROOT

PAGE = ROOT / "docs" / "errors.md"
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if line[:1] == "|"]


def errors(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "buildscripts" / "errors", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rows_of(name: str) -> list[list[str]]:
    """All rows that begin with a name, as plain text."""
    return [[cell.replace("`", "") for cell in row] for row in ROWS if row[0] == f"`{name}`"]


def test_the_page_is_fresh() -> None:
    done = errors("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "errors: fresh\n", "")


def test_a_stale_page_is_noticed_and_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "errors.md"
    page.write_text(PAGE.read_text().replace("| 429 |", "| 420 |"))
    done = errors("--check", "--page", page)
    assert done.returncode == 1
    assert "stale. Run buildscripts/errors" in done.stderr
    assert errors("--page", page).stdout == "errors: wrote errors.md\n"
    assert page.read_text() == PAGE.read_text()


@pytest.mark.parametrize("type_", ERRORS)
def test_a_row_of_the_table_is_on_the_page(type_: str) -> None:
    kind = ERRORS[type_]
    table, todo = rows_of(type_)[:2]
    assert table[1:3] == [kind.status or "-", str(kind.http)]
    assert table[3].startswith({"no": "no", "after": "yes, after", "elsewhere": "elsewhere"}[kind.retry])
    assert ("not by itself" in table[3]) == kind.pushed_back
    assert table[4] == ("-" if kind.retry_after_s is None else f"{kind.retry_after_s:g} s")
    assert todo[1:] == [kind.advice, kind.operator]


@pytest.mark.parametrize("code", FALLBACK_CODES)
def test_a_reason_why_the_fallback_failed_is_on_the_page(code: str) -> None:
    assert rows_of(code)[-1][1:] == [FALLBACK_CODES[code].meaning, FALLBACK_CODES[code].operator]


def test_the_page_names_nothing_that_the_table_lacks() -> None:
    named = {row[0].strip("`") for row in ROWS if re.fullmatch(r"`\w+`", row[0])}
    assert named == set(ERRORS) | set(FALLBACK_CODES)


def test_the_readme_and_the_runbooks_lead_to_it() -> None:
    assert "(docs/errors.md)" in (ROOT / "README.md").read_text()
    assert "(errors.md)" in (ROOT / "docs" / "runbooks.md").read_text()
