"""From the command line's FILE, DIR and `-` to the recordings to transcribe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import cast

from stt_client.cli.connection import UsageError

STDIN = "-"
AUDIO_SUFFIXES = frozenset(
    (
        ".wav",
        ".flac",
        ".mp3",
        ".ogg",
        ".oga",
        ".opus",
        ".m4a",
        ".m4b",
        ".mp4",
        ".mov",
        ".aac",
        ".webm",
        ".mka",
        ".mkv",
    )
)
RAW_SUFFIXES = frozenset((".raw", ".pcm", ".s16le", ".ul", ".ulaw", ".mulaw"))

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Recording:
    name: str
    """As the user is told of it."""
    audio: Path | bytes = field(repr=False)
    """A file, or what standard input held."""
    inside: Path
    """Where it lies under the folder that was given; a file's name otherwise."""


@dataclass
class Found:
    recordings: list[Recording] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Folders that give nothing, each a line for the user."""
    labelled: bool = False
    """More than one file was asked for, so that each result needs its name."""


def find(names: Sequence[str], *, raw: bool) -> Found:
    """The recordings that `names` stand for, in that order; folders are walked, in sorted order.

    Args:
        names: files, folders, or `-` for standard input, which is read here.
        raw: look for headerless files in folders.

    Raises:
        UsageError: standard input is a terminal.
    """
    found = Found(labelled=len(dict.fromkeys(names)) > 1)
    suffixes = RAW_SUFFIXES if raw else AUDIO_SUFFIXES
    for name in dict.fromkeys(names):
        path = Path(name)
        if name == STDIN:
            found.recordings.append(Recording("stdin", _standard_input(), Path("stdin")))
        elif path.is_dir():
            found.labelled = True
            inside = list(_walk(path, suffixes, found.problems))
            found.recordings += [Recording(str(file), file, file.relative_to(path)) for file in inside]
            if not inside:
                found.problems.append(f"{name}: no recording in it; looked for {' '.join(sorted(suffixes))}")
        else:
            found.recordings.append(Recording(name, path, Path(path.name)))
    return found


def _walk(folder: Path, suffixes: frozenset[str], problems: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # Hidden files: some systems keep a `._x.wav` beside each x.wav, which holds no audio.
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield Path(where, name)


def _standard_input() -> bytes:
    if sys.stdin.isatty():
        raise UsageError("- reads a recording from standard input, but that is a terminal; pipe one in")
    # In pieces: one read of it all would stay deaf to a Ctrl-C that falls between two of its system calls.
    source = cast(BufferedReader, sys.stdin.buffer)
    return b"".join(iter(lambda: source.read1(_PIECE_BYTES), b""))
