"""What commands say on a checkout without recordings or models, instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from buildscripts.lib.models.pins import ROOT

INPUTS = {"samples": ROOT / "samples", "starter": ROOT / "models"}
"""Folder that each argument of `buildscripts/models` fetches."""


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command's main function; return its exit status.

    Raises:
        SystemExit: it failed, and a folder of `INPUTS` is missing: one line says what to run first.
    """
    try:
        return main(arguments)
    except Exception as error:
        missing = [name for name, folder in INPUTS.items() if not folder.is_dir()]
        if not missing:
            raise
        command = Path(sys.argv[0]).name
        folders = " and ".join(f"{INPUTS[name].name}/" for name in missing)
        is_or_are = "is" if len(missing) == 1 else "are"
        problem = f"{folders} {is_or_are} missing; run buildscripts/models {' '.join(missing)}"
        sys.exit(f"{command}: {problem}. ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})")
