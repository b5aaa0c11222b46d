"""Keeps what an interrupted run has transcribed, so that another run continues it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stt_client.recordings.reading import Source
from stt_client.results import Routing, Segment, Timings, Transcript, Word

VERSION = 1
"""Of the files' content. Files of other versions are not read."""
KEPT_S = 30 * 86_400.0
"""Files that nobody has continued for this long are deleted. Seconds."""

_HEAD_BYTES = 64 * 1024
_WHOLE = "whole"


class Journal:
    """Transcripts of one recording's parts, in a file of one line of JSON per part.

    A line is written when its part is complete; an incomplete last line, after a crash, is ignored. Only the owner
    can read the file. Without permission to write it, or on a full disk, nothing is kept.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """
        Args:
            resume: continue an earlier run; False: forget it.
        """
        self._path = path
        self._kept: dict[str, Transcript] = dict(_read(path)) if resume else {}
        if not resume:
            self.delete()

    def whole(self) -> Transcript | None:
        """Transcript of the whole recording; None if it isn't complete."""
        return self._kept.get(_WHOLE)

    def part(self, start: int, frames: int) -> Transcript | None:
        """Transcript of the part at these frames; None if it isn't complete."""
        return self._kept.get(f"{start}+{frames}")

    @property
    def is_partial(self) -> bool:
        """Whether parts are kept, and not the whole."""
        return bool(self._kept) and self.whole() is None

    def keep_whole(self, transcript: Transcript) -> None:
        self._append(_WHOLE, transcript)

    def keep_part(self, start: int, frames: int, transcript: Transcript) -> None:
        self._append(f"{start}+{frames}", transcript)

    def delete(self) -> None:
        """Forget everything."""
        self._kept.clear()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _append(self, name: str, transcript: Transcript) -> None:
        self._kept[name] = transcript
        line = json.dumps({"version": VERSION, "part": name, "transcript": _as_json(transcript)})
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                # A line break first: an incomplete line may precede.
                file.write(f"\n{line}".encode())


class JournalFolder:
    """Journals of a user's recordings.

    Args:
        folder: None: `stt` in `$XDG_CACHE_HOME`, or in `~/.cache`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._folder = folder or Path(cache, "stt", "transcribe")

    def open(self, source: Source, options: Mapping[str, Any], *, resume: bool) -> Journal | None:
        """Open the journal of a recording: of this path, size, time of change, beginning, and these options.

        None for audio that is no file, and for a file that can't be read.
        """
        if not isinstance(source.audio, Path):
            return None
        try:
            status = source.audio.stat()
            with source.audio.open("rb") as file:
                head = file.read(_HEAD_BYTES)
        except OSError:
            return None
        key = hashlib.sha256(head)
        key.update(repr((str(source.audio.resolve()), status.st_size, status.st_mtime_ns, source.raw)).encode())
        key.update(repr(sorted(options.items())).encode())
        return Journal(self._folder / f"{key.hexdigest()[:32]}.jsonl", resume=resume)

    def prune(self) -> None:
        """Delete the journals of runs that nobody has continued within `KEPT_S`."""
        oldest = time.time() - KEPT_S
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.jsonl"):
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)


def _read(path: Path) -> Iterator[tuple[str, Transcript]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        # An incomplete line, or one of another version.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if entry["version"] == VERSION:
                yield entry["part"], _from_json(entry["transcript"])


def _as_json(transcript: Transcript) -> dict[str, Any]:
    return {**asdict(transcript), "metadata": dict(transcript.metadata)}


def _from_json(fields: dict[str, Any]) -> Transcript:
    segments = (
        Segment(**{**segment, "words": tuple(Word(**word) for word in segment["words"])})
        for segment in fields["segments"]
    )
    return Transcript(
        **{
            **fields,
            "segments": tuple(segments),
            "routing": Routing(**{**fields["routing"], "reasons": tuple(fields["routing"]["reasons"])}),
            "timings": Timings(**fields["timings"]),
        }
    )
