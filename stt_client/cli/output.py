"""Transcripts as text, JSON or subtitles, on standard output or in files."""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stt_client.cli.errors import UsageError
from stt_client.cli.recordings import Recording
from stt_client.results import Transcript
from stt_client.subtitles import DEFAULT_LAYOUT, SubtitleLayout, text_lines, to_srt, to_vtt


@dataclass(frozen=True)
class Style:
    """How transcripts are shown."""

    layout: SubtitleLayout = DEFAULT_LAYOUT
    words: bool = False
    """Include words in JSON. Subtitles use them in any case."""

    def fields_of(self, transcript: Transcript) -> dict[str, Any]:
        """Return the transcript as JSON-serializable values."""
        if not self.words:
            segments = tuple(replace(segment, words=()) for segment in transcript.segments)
            transcript = replace(transcript, segments=segments)
        return transcript.as_dict()


RENDER: Mapping[str, Callable[[Transcript, Style], str]] = {
    "txt": lambda transcript, _: "".join(f"{line}\n" for line in text_lines(transcript)),
    "json": lambda transcript, style: json.dumps(style.fields_of(transcript), ensure_ascii=False, indent=2) + "\n",
    "srt": lambda transcript, style: to_srt(transcript.segments, style.layout),
    "vtt": lambda transcript, style: to_vtt(transcript.segments, style.layout),
}
"""Formats, by file suffix."""


def for_stdout(transcript: Transcript, format_: str, name: str | None, style: Style) -> str:
    """Format a transcript for standard output. `name`: of the recording, if there are several."""
    if name is None:
        return RENDER[format_](transcript, style)
    if format_ == "txt":
        return "".join(f"{name}: {line}\n" for line in text_lines(transcript))
    if format_ == "json":
        # JSON Lines: one object per line.
        return json.dumps({"file": name, **style.fields_of(transcript)}, ensure_ascii=False) + "\n"
    return f"==> {name} <==\n{RENDER[format_](transcript, style)}\n"


def plan(recordings: Sequence[Recording], folder: Path | None, formats: Sequence[str]) -> list[list[Path]]:
    """Choose the output files of each recording, one path per format.

    `talk.wav` gives `talk.txt`, or `talk.wav.txt` if `talk.mp3` gives `talk.txt` as well or an input has that name.

    Args:
        folder: output folder, which mirrors the input folder; None: write beside each recording.

    Raises:
        UsageError: two recordings have the same output file.
    """
    whole = [_output_folder(recording, folder) / recording.inside.name for recording in recordings]
    short = [path.with_name(path.stem) for path in whole]
    stems = Counter(short)
    inputs = {recording.audio for recording in recordings if isinstance(recording.audio, Path)}

    def paths(base: Path) -> list[Path]:
        return [base.with_name(f"{base.name}.{format_}") for format_ in formats]

    planned = [
        paths(brief) if stems[brief] == 1 and inputs.isdisjoint(paths(brief)) else paths(full)
        for brief, full in zip(short, whole, strict=True)
    ]
    for path, times in Counter(path for each in planned for path in each).items():
        if times > 1:
            raise UsageError(f"{times} recordings have the same output file {path}; transcribe them separately")
    return planned


def write(transcript: Transcript, paths: Sequence[Path], style: Style) -> None:
    """Write each path in the format of its suffix. Raises OSError."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, RENDER[path.suffix[1:]](transcript, style))


def _output_folder(recording: Recording, folder: Path | None) -> Path:
    if folder is not None:
        return folder / recording.inside.parent
    return recording.audio.parent if isinstance(recording.audio, Path) else Path()


def _write_atomically(path: Path, text: str) -> None:
    """Replace the file atomically, so that an interruption leaves no partial file."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(part, path)  # noqa: PTH105 - documented as atomic, unlike Path.rename
    except BaseException:
        part.unlink(missing_ok=True)
        raise
