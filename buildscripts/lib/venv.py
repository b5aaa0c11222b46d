"""The commands run with the interpreter of .venv, whichever one started them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from buildscripts.lib.models.pins import ROOT


def use_venv() -> None:
    """Starts this command anew with .venv's Python, unless it runs in a virtual environment already.

    Raises:
        SystemExit: there is no .venv.
    """
    if sys.prefix != sys.base_prefix:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{Path(sys.argv[0]).name}: there is no .venv yet: run buildscripts/setup first.")
    os.execv(str(python), [str(python), *sys.argv])  # noqa: S606
