"""Recordings named on the command line: FILE, DIR and `-`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import cast

from stt_client.cli.errors import UsageError
from stt_client.recordings.sniffing import is_audio_file

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
        ".gsm",
        ".g722",
        ".g726",
        ".g723",
    )
)
"""Endings of recordings. Files of other names are recordings if their first bytes say so; GSM and so on have none."""
RAW_SUFFIXES = frozenset((".raw", ".pcm", ".s16le", ".ul", ".ulaw", ".mulaw", ".al", ".alaw", ".al", ".alaw"))

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Recording:
    """One recording to transcribe."""

    name: str
    """Name in messages and results."""
    audio: Path | bytes = field(repr=False)
    """File, or the bytes of standard input."""
    inside: Path
    """Path relative to the folder given; the file's name if none was."""


@dataclass
class Found:
    """Recordings that were found, and problems on the way."""

    recordings: list[Recording] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One line for each folder that is unreadable or has no recordings."""
    labelled: bool = False
    """Whether results need the names of their recordings."""


def find(names: Sequence[str], *, raw: bool) -> Found:
    """Find the recordings, in the order of `names`; folders are searched recursively, in sorted order.

    Args:
        names: files, folders, or `-` for standard input, which is read here.
        raw: search folders for headerless files.

    Raises:
        UsageError: standard input is a terminal.
    """
    found = Found(labelled=len(dict.fromkeys(names)) > 1)
    for name in dict.fromkeys(names):
        path = Path(name)
        if name == STDIN:
            found.recordings.append(Recording("stdin", _standard_input(), Path("stdin")))
        elif path.is_dir():
            found.labelled = True
            inside = list(_walk(path, lambda file: _is_recording(file, raw=raw), found.problems))
            found.recordings += [Recording(str(file), file, file.relative_to(path)) for file in inside]
            if not inside:
                looked = f"searched for {' '.join(sorted(RAW_SUFFIXES))}" if raw else "looked into all files"
                found.problems.append(f"{name}: no recordings found; {looked}")
        else:
            found.recordings.append(Recording(name, path, Path(path.name)))
    return found


def _is_recording(file: Path, *, raw: bool) -> bool:
    """Whether a file of a folder is to be transcribed. A damaged one, which only its name tells, is: it is reported."""
    suffix = file.suffix.lower()
    if raw:
        return suffix in RAW_SUFFIXES
    return suffix in AUDIO_SUFFIXES or (file.is_file() and is_audio_file(file))


def _walk(folder: Path, takes: Callable[[Path], bool], problems: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # Hidden files such as macOS's `._x.wav` contain no audio.
            if not name.startswith(".") and takes(Path(where, name)):
                yield Path(where, name)


def _standard_input() -> bytes:
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal; pipe a recording into it, or give a FILE")
    # In pieces: a single read() would ignore Ctrl-C between two of its system calls.
    source = cast(BufferedReader, sys.stdin.buffer)
    return b"".join(iter(lambda: source.read1(_PIECE_BYTES), b""))
