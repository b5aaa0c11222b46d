"""Detects changes of files by their content, once they have settled.

Modification times and inodes are ignored: they mislead when Kubernetes swaps a symbolic link of a parent folder, on
NFS, and when a file is written twice within a second.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from stt_server.config.load import MAX_FILE_BYTES

SETTLE_S = 0.4
"""Seconds without a change before a file is read: a program that writes it in place may have paused."""
TRUNCATED_SETTLE_S = 1.2
"""The same for a file whose last line has no newline, as in a half-written one. Changes must be applied within 2 s."""


class FileView:
    """Contents of files at one time. Each file is read once, on first use, which blocks."""

    def __init__(self) -> None:
        self._contents: dict[Path, bytes | OSError] = {}

    def read(self, path: Path) -> bytes:
        """Content of a file, cut off after `MAX_FILE_BYTES` + 1. Raises the same OSError every time."""
        if path not in self._contents:
            self._contents[path] = _read(path)
        content = self._contents[path]
        if isinstance(content, OSError):
            raise content
        return content

    def preload(self, paths: Collection[Path]) -> None:
        """Read files. Those that can't be read don't raise here."""
        for path in paths:
            self._contents.setdefault(path, _read(path))

    def lacks_final_newline(self, path: Path) -> bool:
        """Whether the file was read and its last line has no newline."""
        content = self._contents.get(path)
        return isinstance(content, bytes) and not content.endswith((b"\n", b"\r"))

    def digests(self) -> dict[Path, str]:
        """A digest of each file that was read. Content is not kept: it may be secret."""
        return {path: _digest(content) for path, content in self._contents.items()}


def _read(path: Path) -> bytes | OSError:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return error


def _digest(content: bytes | OSError) -> str:
    return f"errno {content.errno}" if isinstance(content, OSError) else hashlib.sha256(content).hexdigest()


class ChangeDetector:
    """Reports a change of a set of files once it has settled.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accepted: Mapping[Path, str] = {}
        self._seen: Mapping[Path, str] = {}
        self._since = clock()

    @property
    def paths(self) -> Collection[Path]:
        """The watched files: those of the last `accept`."""
        return self._accepted.keys()

    def accept(self, digests: Mapping[Path, str]) -> None:
        """Make `digests` the state that later ones are compared with."""
        self._accepted = self._seen = digests

    def is_accepted(self, digests: Mapping[Path, str]) -> bool:
        """Whether nothing has changed."""
        return digests == self._accepted

    def due(self, digests: Mapping[Path, str], *, truncated: bool = False) -> bool:
        """Whether there is a change that has settled.

        Args:
            digests: current digests of the files at `paths`.
            truncated: whether one of them may be half-written; it gets longer to settle.
        """
        if digests != self._seen:
            self._seen, self._since = digests, self._clock()
        settled = self._clock() - self._since >= (TRUNCATED_SETTLE_S if truncated else SETTLE_S)
        return digests != self._accepted and settled
