"""Cues of subtitles: when each is shown, and its lines.

Breaks are chosen over a whole recording at once, as paragraphs are broken into lines by Knuth and Plass (1981): each
possible cue has a cost, and the cheapest sequence is found by dynamic programming. Limits follow common guidelines for
subtitles (BBC, Netflix): 42 columns, two lines, 1 to 7 s. gateway/static/live/cues.js is the same in JavaScript.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from stt_client.results import Segment
from stt_client.text_units import UNSPACED, ends_clause, ends_sentence, units, width

LINE_WIDTHS = (10, 200)
"""Lowest and highest `max_line_width`, in columns."""
LINE_COUNTS = (1, 10)
"""Lowest and highest `max_line_count`."""

MIN_CUE_MS = 1000
MAX_CUE_MS = 7000
_PAUSE_MS = 300
"""Pause at which a cue may end as at a comma."""
_LONG_PAUSE_MS = 1000
"""Pause over which no cue stays."""

# Costs, relative to each other. The worst is a break in the middle of a phrase.
_PHRASE_BROKEN = 8.0
_CLAUSE_BROKEN = 2.0
_SENTENCES_JOINED = 1.0
_PAUSE_JOINED = 20.0
_TOO_SHORT = 10.0
_FULL = 2.0
_LINE = 1000.0
"""Cost of a line: fewer are always cheaper."""
_UNBALANCED = 10.0


@dataclass(frozen=True)
class SubtitleLayout:
    """Size of a cue."""

    max_line_width: int = 42
    """Columns, 10 to 200; East Asian wide characters take two."""
    max_line_count: int = 2
    """1 to 10."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        for name, (low, high) in (("max_line_width", LINE_WIDTHS), ("max_line_count", LINE_COUNTS)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"invalid {name} {getattr(self, name)}: must be {low} to {high}")


DEFAULT_LAYOUT = SubtitleLayout()


@dataclass(frozen=True)
class Cue:
    """Lines that are shown together."""

    start: int
    """Milliseconds from the start of the recording."""
    end: int
    """After `start`, and not after the start of the next cue."""
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """Text that stays on one line."""

    start: int
    end: int
    text: str
    spaced: bool
    """A space is before it, unless it begins a line."""
    first: bool
    """It begins a segment."""


def cues_of(segments: Iterable[Segment], layout: SubtitleLayout) -> list[Cue]:
    """Cues in order of time. Segments without text are left out.

    Cues of separate channels begin with `[1] ` and so on. Without word times, characters share the time of their
    segment equally.
    """
    by_channel: dict[int, list[Segment]] = {}
    for segment in segments:
        by_channel.setdefault(segment.channel, []).append(segment)
    cues = [cue for channel in sorted(by_channel) for cue in _channel_cues(channel, by_channel[channel], layout)]
    return _scheduled(sorted(cues, key=lambda cue: cue.start))


def label(channel: int) -> str:
    """Prefix of the text of a channel; empty for mixed channels, 0."""
    return f"[{channel}] " if channel > 0 else ""


def _channel_cues(channel: int, segments: Sequence[Segment], layout: SubtitleLayout) -> list[Cue]:
    prefix = label(channel)
    room = max(2, layout.max_line_width - len(prefix))
    stream = _units(segments, room)
    reach = _reach(stream, room, layout.max_line_count)
    capacity = room * layout.max_line_count
    # Computed once: the cost of a cue must not depend on its length, or an hour of speech takes seconds.
    columns = _Columns(stream)
    breaks = [*(_cost_of_breaking(*pair) for pair in itertools.pairwise(stream)), 0.0]
    joins = list(itertools.accumulate((_cost_of_joining(*pair) for pair in itertools.pairwise(stream)), initial=0.0))

    def cost(first: int, end: int) -> float | None:
        start = stream[first].start
        if end > first + 1 and (end > reach[first] or stream[end - 1].end - start > MAX_CUE_MS):
            return None
        shown = min(MIN_CUE_MS, stream[end].start - start) if end < len(stream) else MIN_CUE_MS
        short = _TOO_SHORT * (1 - shown / MIN_CUE_MS)
        full = _FULL * (columns.between(first, end) / capacity) ** 2
        return breaks[end - 1] + joins[end - 1] - joins[first] + short + full

    cues = []
    for first, end in _cheapest(len(stream), cost):
        lines = _lines(stream[first:end], room)
        cues.append(Cue(stream[first].start, stream[end - 1].end, (prefix + lines[0], *lines[1:])))
    return cues


class _Columns:
    """Widths of lines made of a sequence of units."""

    def __init__(self, stream: Sequence[_Unit]) -> None:
        self._stream = stream
        self._sums = list(itertools.accumulate((width(unit.text) + unit.spaced for unit in stream), initial=0))

    def between(self, first: int, end: int) -> int:
        """Columns of the line of units `first` to `end`, which is excluded."""
        return self._sums[end] - self._sums[first] - self._stream[first].spaced


def _units(segments: Iterable[Segment], widest: int) -> list[_Unit]:
    """Units of all segments; none starts before the one before it."""
    found: list[_Unit] = []
    for segment in segments:
        words = segment.text.split()
        times = _character_times(segment, "".join(words))
        at, first = 0, True
        for word in words:
            for number, text in enumerate(units(word, widest)):
                start, end = times[at][0], times[at + len(text) - 1][1]
                spaced = number == 0 and not (first and _without_space(found, text))
                start = max(start, found[-1].start if found else 0)
                found.append(_Unit(start, max(start, end), text, spaced, first))
                at, first = at + len(text), False
    return found


def _without_space(before: Sequence[_Unit], text: str) -> bool:
    """Whether a segment that begins with `text` follows the one before it without a space."""
    return bool(before and UNSPACED.match(before[-1].text[-1]) and UNSPACED.match(text[0]))


def _character_times(segment: Segment, characters: str) -> list[tuple[int, int]]:
    """Start and end of each character in milliseconds: from the words, or else in proportion."""
    spoken = [("".join(word.text.split()), word.start, word.end) for word in segment.words]
    if "".join(text for text, _, _ in spoken) != characters:
        spoken = [(characters, segment.start, segment.end)]
    times = []
    for text, start_s, end_s in spoken:
        start = milliseconds(start_s)
        span = max(0, milliseconds(end_s) - start)
        count = len(text)
        times += [(start + span * k // count, start + span * (k + 1) // count) for k in range(count)]
    end = milliseconds(segment.end)
    if times and 0 < end - times[-1][1] < _LONG_PAUSE_MS:
        times[-1] = (times[-1][0], end)  # The sound of the last word fades until there.
    return times


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least 0; halves are rounded up."""
    return math.floor(max(0.0, seconds) * 1000 + 0.5)


def _reach(stream: Sequence[_Unit], room: int, lines: int) -> list[int]:
    """For each unit, the unit that no longer fits on `lines` lines that begin with it."""
    columns = _Columns(stream)
    ends, end = [], 0
    for first in range(len(stream)):
        end = max(end, first + 1)
        while end < len(stream) and columns.between(first, end + 1) <= room:
            end += 1
        ends.append(end)
    ends.append(len(stream))
    reach = ends
    for _ in range(lines - 1):
        reach = [ends[end] for end in reach]
    return reach


def _cost_of_joining(last: _Unit, following: _Unit) -> float:
    if following.start - last.end >= _LONG_PAUSE_MS:
        return _PAUSE_JOINED
    return _SENTENCES_JOINED if following.first or ends_sentence(last.text) else 0.0


def _cost_of_breaking(last: _Unit, following: _Unit) -> float:
    if following.first or ends_sentence(last.text):
        return 0.0
    if following.start - last.end >= _PAUSE_MS or ends_clause(last.text):
        return _CLAUSE_BROKEN
    return _PHRASE_BROKEN


def _lines(cue: Sequence[_Unit], room: int) -> list[str]:
    """The fewest lines, of about equal width, that break at punctuation if they can."""
    columns = _Columns(cue)
    total = columns.between(0, len(cue))

    def cost(first: int, end: int) -> float | None:
        line = columns.between(first, end)
        if end > first + 1 and line > room:
            return None
        broken = 0.0 if end == len(cue) else _cost_of_breaking(cue[end - 1], cue[end]) / 4
        return _LINE + broken + _UNBALANCED * (line / total) ** 2

    return [_text(cue[first:end]) for first, end in _cheapest(len(cue), cost)]


def _text(line: Sequence[_Unit]) -> str:
    return line[0].text + "".join(" " * unit.spaced + unit.text for unit in line[1:])


def _cheapest(count: int, cost: Callable[[int, int], float | None]) -> list[tuple[int, int]]:
    """Divide `count` items into runs, `(first, end)`, of the least total cost.

    Args:
        cost: of a run; None: the run is too long, and so are longer ones. Runs of one item have a cost.
    """
    totals, begins = [0.0] + [math.inf] * count, [0] * (count + 1)
    for first in range(count):
        for end in range(first + 1, count + 1):
            own = cost(first, end)
            if own is None:
                break
            if totals[first] + own < totals[end]:
                totals[end], begins[end] = totals[first] + own, first
    runs, end = [], count
    while end:
        runs.append((begins[end], end))
        end = begins[end]
    return runs[::-1]


def _scheduled(cues: Iterable[Cue]) -> list[Cue]:
    """Cues that don't overlap, up to 7 s, and at least 1 s long where there is room.

    Where channels overlap, the later cue waits until the earlier one has been shown for a second.
    """
    shown: list[Cue] = []
    least = 0
    for cue in cues:
        start = max(cue.start, least)
        if shown:
            before = shown[-1]
            shown[-1] = replace(before, end=min(max(before.end, before.start + MIN_CUE_MS), start))
        needed = min(MIN_CUE_MS, max(1, cue.end - cue.start))
        shown.append(Cue(start, min(max(cue.end, start + needed), start + MAX_CUE_MS), cue.lines))
        least = start + needed
    if shown:
        shown[-1] = replace(shown[-1], end=max(shown[-1].end, shown[-1].start + MIN_CUE_MS))
    return shown
