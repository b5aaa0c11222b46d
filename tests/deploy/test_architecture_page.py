"""docs/architecture.md: every function of the two request paths exists in the file that the page names."""

from __future__ import annotations

import ast
import re

import pytest

from stt_server.testing.paths import ROOT
from tests.deploy.import_rules import parse

PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROWS = re.findall(
    r"^\| [^|]+ \| ([^|]*`[^|]*) \| ([^|]*`[^|]*) \|$", PAGE.split("## The path of an upload")[1], re.MULTILINE
)


def defined(place: str) -> set[str]:
    """`function`, `Class` and `Class.method` for all definitions in a file, or in a folder's files."""
    path = ROOT / "stt_server" / place
    names = set()
    for file in [path] if path.is_file() else path.glob("*.py"):
        for node in parse(file.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name")}
    return names


@pytest.mark.parametrize(("functions", "places"), ROWS)
def test_named_functions_exist(functions: str, places: str) -> None:
    known = set().union(*(defined(place) for place in re.findall(r"`([^`]+)`", places)))
    assert set(re.findall(r"`([^`]+)`", functions)) - known == set()


def test_both_paths_are_listed() -> None:
    assert len(ROWS) > 20
