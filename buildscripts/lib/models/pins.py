"""Files known by size and sha256, and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The repository."""

_CHUNK = 1 << 20


class FetchError(Exception):
    """Something could not be fetched or is not what it should be; the message is a sentence for the terminal."""


@dataclass(frozen=True)
class PinnedFile:
    name: str
    """Path within its folder."""
    size: int
    """Bytes."""
    sha256: str


def sha256_of(path: Path) -> str:
    """The file's sha256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def mismatch(folder: Path, files: Sequence[PinnedFile], *, quick: bool = False) -> str:
    """Why `folder` does not hold `files` as pinned; empty if it does.

    Args:
        quick: compare sizes only. Enough to tell what was never fetched, not what was changed since.
    """
    for file in files:
        path = folder / file.name
        if not path.is_file():
            return f"{path} is missing"
        size = path.stat().st_size
        if size != file.size:
            return f"{path} has {size:,} bytes and should have {file.size:,}"
        if not quick and (found := sha256_of(path)) != file.sha256:
            return f"{path} has sha256 {found} and should have {file.sha256}"
    return ""


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` that takes its place when the block ends well, and not when it raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        stage.chmod(0o755)  # mkdtemp's 0700 would keep a service that runs as another user out
        yield stage
        replace_folder(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Renames `source` to `target`; what was there before goes once the new folder is in place."""
    if not target.exists():
        source.rename(target)
        return
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.old.", dir=target.parent) as old:
        target.rename(Path(old) / target.name)
        source.rename(target)


def megabytes(size: int) -> str:
    """`size` in bytes as a reader takes it in: `139 MiB`."""
    return f"{size / (1 << 20):,.0f} MiB"
