"""What was built: the version of the package, and the commit that an image or an installation records."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

COMMIT_FILE = "COMMIT"
"""In the virtual environment that the service runs from; the images write it, and docs/deploy.md for systemd."""
UNKNOWN = "unknown"


def version() -> str:
    """Version of the installed package, such as "0.1.0"."""
    try:
        return importlib.metadata.version("stt-pair")
    except importlib.metadata.PackageNotFoundError:  # run from the sources, without an installation
        return UNKNOWN


def commit(prefix: Path | None = None) -> str:
    """The commit that this installation was built from; `UNKNOWN` if it does not say.

    Args:
        prefix: folder of the virtual environment; None: the running one.
    """
    try:
        text = ((prefix or Path(sys.prefix)) / COMMIT_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
    return text if re.fullmatch(r"[ -~]{1,128}", text) else UNKNOWN
