"""Subtitles from segments: SubRip (SRT) and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stt_client.results import Segment


def to_srt(segments: Iterable[Segment]) -> str:
    """SubRip text; empty for no segments. Each cue is one line."""
    cues = (
        # SubRip has no escapes: an arrow in the text is made one that can't be taken for a time line.
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text.replace('-->', '->')}\n"
        for number, (start, end, text) in enumerate(_cues(segments), 1)
    )
    return "\n".join(cues)


def to_vtt(segments: Iterable[Segment]) -> str:
    """WebVTT text (https://www.w3.org/TR/webvtt1/); only the header for no segments. Each cue is one line."""
    cues = (f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n{_escape(text)}\n" for start, end, text in _cues(segments))
    return "WEBVTT\n" + "".join(cues)


def _cues(segments: Iterable[Segment]) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, and the text on one line; segments without text are left out."""
    for segment in segments:
        text = " ".join(segment.text.split())
        if text:
            start = round(max(0.0, segment.start) * 1000)
            # A cue has to end after it starts.
            yield start, max(round(segment.end * 1000), start + 1), text


def _clock(ms: int, point: str) -> str:
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{point}{ms % 1000:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
