"""Commands that the client's installation has, too, although it lacks what they import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("protos", "stt_client", "stt_server", "gateway")


@contextmanager
def needs_extra(command: str, extra: str) -> Iterator[None]:
    """Exit with status 1 and one line that names the extra if an import in this context finds no package.

    Args:
        extra: of setup.cfg.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OURS:
            raise
        sys.exit(f"{command}: the package {package!r} is not installed; run: pip install 'stt-pair[{extra}]'")
