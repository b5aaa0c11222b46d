"""Options of subtitles, for all commands that write them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from stt_client.cues import DEFAULT_LAYOUT, LINE_COUNTS, LINE_WIDTHS, SubtitleLayout


def add_subtitles(parser: argparse.ArgumentParser) -> None:
    """Add `--max-line-width` and `--max-line-count`."""
    group = parser.add_argument_group("subtitles")
    group.add_argument(
        "--max-line-width",
        type=_within(LINE_WIDTHS),
        default=DEFAULT_LAYOUT.max_line_width,
        metavar="COLUMNS",
        help=f"columns of a line, of which wide characters take two (default: {DEFAULT_LAYOUT.max_line_width})",
    )
    group.add_argument(
        "--max-line-count",
        type=_within(LINE_COUNTS),
        default=DEFAULT_LAYOUT.max_line_count,
        metavar="LINES",
        help=f"lines of a cue (default: {DEFAULT_LAYOUT.max_line_count})",
    )


def layout_of(arguments: argparse.Namespace) -> SubtitleLayout:
    """Return the layout of the subtitles."""
    return SubtitleLayout(arguments.max_line_width, arguments.max_line_count)


def _within(limits: tuple[int, int]) -> Callable[[str], int]:
    low, high = limits

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text[:9]) <= high or len(text) > 9:
            raise argparse.ArgumentTypeError(f"invalid number {text}: must be {low} to {high}")
        return int(text)

    return number
