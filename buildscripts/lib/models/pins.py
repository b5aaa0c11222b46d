"""Files pinned by size and sha256, and folders that are replaced atomically."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""Root of the repository."""

_CHUNK = 1 << 20


class FetchError(Exception):
    """A download or verification failed; the message is for the terminal."""


@dataclass(frozen=True)
class PinnedFile:
    name: str
    """Path within its folder."""
    size: int
    """Bytes."""
    sha256: str


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def mismatch(folder: Path, files: Sequence[PinnedFile], *, quick: bool = False) -> str:
    """First difference between `folder` and the pinned files; empty if there is none.

    Args:
        quick: compare sizes only. Finds missing files, not modified ones.
    """
    for file in files:
        path = folder / file.name
        if not path.is_file():
            return f"{path} is missing"
        size = path.stat().st_size
        if size != file.size:
            return f"{path} has {size:,} bytes, expected {file.size:,}"
        if not quick and (found := sha256_of(path)) != file.sha256:
            return f"{path} has sha256 {found}, expected {file.sha256}"
    return ""


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """New folder beside `target` that replaces it if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        stage.chmod(0o755)  # mkdtemp's 0700 would exclude a service that runs as another user
        yield stage
        replace_folder(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target`; an existing `target` is deleted after that."""
    if not target.exists():
        source.rename(target)
        return
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.old.", dir=target.parent) as old:
        target.rename(Path(old) / target.name)
        source.rename(target)


def megabytes(size: int) -> str:
    """Format a number of bytes, such as `139 MiB`."""
    return f"{size / (1 << 20):,.0f} MiB"
