"""Transcripts as files for people: subtitles (SubRip, WebVTT), and text with channels named."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from stt_client.cues import DEFAULT_LAYOUT, SubtitleLayout, cues_of, label
from stt_client.recordings.merging import join_text
from stt_client.results import Segment, Transcript

__all__ = ["DEFAULT_LAYOUT", "SubtitleLayout", "text_lines", "to_srt", "to_vtt"]

_ARROW = re.compile("-{2,}>")


def to_srt(segments: Iterable[Segment], layout: SubtitleLayout = DEFAULT_LAYOUT) -> str:
    """SubRip text; empty for no segments. Segments with words give the best cues."""
    cues = (
        # SubRip has no escapes: an arrow in the text is made one that can't be taken for a time line.
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_ARROW.sub('->', _joined(cue.lines))}\n"
        for number, cue in enumerate(cues_of(segments, layout), 1)
    )
    return "\n".join(cues)


def to_vtt(segments: Iterable[Segment], layout: SubtitleLayout = DEFAULT_LAYOUT) -> str:
    """WebVTT text (https://www.w3.org/TR/webvtt1/); only the header for no segments."""
    cues = (
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_escape(_joined(cue.lines))}\n"
        for cue in cues_of(segments, layout)
    )
    return "WEBVTT\n" + "".join(cues)


def text_lines(transcript: Transcript) -> list[str]:
    """The text; with separate channels a line for each turn of a channel, such as `[1] Hello.`"""
    if not any(segment.channel for segment in transcript.segments):
        return [transcript.text]
    turns = itertools.groupby(transcript.segments, key=lambda segment: segment.channel)
    return [label(channel) + join_text(segment.text for segment in turn) for channel, turn in turns]


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _clock(ms: int, point: str) -> str:
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{point}{ms % 1000:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
