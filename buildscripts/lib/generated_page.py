"""Command line of the scripts that generate a page of docs/ and check that it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from buildscripts.lib.models.pins import ROOT


def keep_page(description: str, page: str, render: Callable[[], str]) -> None:
    """Write docs/`page`, or with `--check` only report whether it is up to date.

    Args:
        description: of the command, for `--help`.
        render: returns the page's text, in Markdown.

    Raises:
        SystemExit: `--check` was given and the page is stale.
    """
    name = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is stale")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / page, help=f"default: docs/{page}")
    arguments = parser.parse_args()
    fresh = render()
    if arguments.page.exists() and arguments.page.read_text() == fresh:
        print(f"{name}: fresh")
    elif arguments.check:
        sys.exit(f"{name}: {arguments.page.name} is stale. Run buildscripts/{name} and commit what it writes.")
    else:
        arguments.page.write_text(fresh)
        print(f"{name}: wrote {arguments.page.name}")
