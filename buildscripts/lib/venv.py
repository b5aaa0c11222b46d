"""Re-execution of commands with the interpreter of .venv."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from buildscripts.lib.models.pins import ROOT


def use_venv() -> None:
    """Replace this process by .venv's Python, unless it runs in a virtual environment.

    Raises:
        SystemExit: there is no .venv.
    """
    if sys.prefix != sys.base_prefix:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{Path(sys.argv[0]).name}: .venv is missing; run buildscripts/setup")
    os.execv(str(python), [str(python), *sys.argv])  # noqa: S606
