"""Whether files have changed: judged by what they hold, and told once they stand still.

Content is all that counts. Times and inodes say nothing about a file that Kubernetes swaps by turning a link of a
folder above it, one on NFS, or one that is written twice within a second.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from stt_server.config.load import LARGEST_FILE

STILL_S = 0.4
"""Seconds without a change until a file is read: whoever writes it in place may have stopped half-way."""
TORN_STILL_S = 1.2
"""The same where the file ends within a line, as one half-written does. A change is to be taken up within 2 s."""


class Look:
    """What files held at one time. Each is read once, when it is asked for; blocks for as long as that takes."""

    def __init__(self) -> None:
        self._held: dict[Path, bytes | OSError] = {}

    def read(self, path: Path) -> bytes:
        """What the file holds, of a huge one the beginning. Raises OSError, the same each time."""
        if path not in self._held:
            self._held[path] = _read(path)
        held = self._held[path]
        if isinstance(held, OSError):
            raise held
        return held

    def glance(self, paths: Collection[Path]) -> None:
        """Reads the files at `paths`, whether they can be read or not."""
        for path in paths:
            self._held.setdefault(path, _read(path))

    def ends_within_a_line(self, path: Path) -> bool:
        """Whether the file was read, and its last line has no end."""
        held = self._held.get(path)
        return isinstance(held, bytes) and not held.endswith((b"\n", b"\r"))

    def digests(self) -> dict[Path, str]:
        """What tells each file that was read from what it held before; not its content, which may be secret."""
        return {path: _digest(held) for path, held in self._held.items()}


def _read(path: Path) -> bytes | OSError:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        return error


def _digest(held: bytes | OSError) -> str:
    return f"errno {held.errno}" if isinstance(held, OSError) else hashlib.sha256(held).hexdigest()


class Settling:
    """Tells a change once it has stood still."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: seconds, never going back.
        """
        self._clock = clock
        self._taken: Mapping[Path, str] = {}
        self._seen: Mapping[Path, str] = {}
        self._since = clock()

    @property
    def paths(self) -> Collection[Path]:
        """The files that are watched: those that were looked at when the last change was taken."""
        return self._taken.keys()

    def take(self, digests: Mapping[Path, str]) -> None:
        """From now on a change is what differs from this."""
        self._taken = self._seen = digests

    def is_taken(self, digests: Mapping[Path, str]) -> bool:
        """Whether nothing differs."""
        return digests == self._taken

    def due(self, digests: Mapping[Path, str], *, torn: bool = False) -> bool:
        """Whether there is a change that may be read.

        Args:
            digests: of the files at `paths`, as they are now.
            torn: one of them looks as if it were half-written.
        """
        if digests != self._seen:
            self._seen, self._since = digests, self._clock()
        still = self._clock() - self._since >= (TORN_STILL_S if torn else STILL_S)
        return digests != self._taken and still
