"""Output of `stt stream`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from stt_client.results import Segment, Transcript
from stt_client.streaming.results import Final, Interim, SpeechEvent, StreamEvent
from stt_client.subtitles import DEFAULT_LAYOUT, SubtitleLayout, to_srt, to_vtt

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SUBTITLES: Mapping[str, Callable[[list[Segment], SubtitleLayout], str]] = {"srt": to_srt, "vtt": to_vtt}
_LIVE_LINES = 4
"""Lines of an interim that are shown; of a longer one, the end."""


class View:
    """Prints results to standard output, and shows interims if standard output or error is a terminal.

    Args:
        format_: `txt`: one line per final; `json`: one line per event; `srt`, `vtt`: subtitles at the end.
        layout: of subtitles.
    """

    def __init__(self, format_: str, layout: SubtitleLayout = DEFAULT_LAYOUT) -> None:
        self._format = format_
        self._layout = layout
        self._segments: list[Segment] = []
        self._on_terminal = sys.stdout.isatty()
        self._screen: Screen | None = None
        if format_ == "txt" and self._on_terminal:
            self._screen = _screen(sys.stdout)
        elif format_ != "json" or not self._on_terminal:  # JSON lines would scroll interims away
            self._screen = _screen(sys.stderr)

    def __enter__(self) -> View:
        if self._screen:
            self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen:
            self._screen.stop()
        if self._format in SUBTITLES and kind is None:
            sys.stdout.write(SUBTITLES[self._format](self._segments, self._layout))

    def show(self, event: StreamEvent) -> None:
        """Show an event of the stream."""
        if self._screen:
            self._screen.show(event)
        if isinstance(event, Final):
            self._segments += event.result.segments
        if self._format == "json":
            print(json.dumps(event.as_dict(), ensure_ascii=False), flush=True)
        elif self._format == "txt" and not self._on_terminal and isinstance(event, Final) and event.result.text:
            print(event.result.text, flush=True)

    def note(self, text: str) -> None:
        """Print a note to standard error, or above the interims."""
        if self._screen:
            self._screen.note(text)
        else:
            print(f"stt: {text}", file=sys.stderr)


class Screen:
    """Terminal with one line per final, and the interim below: bold where stable, dim where unstable."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live(
            self._line("listening"),
            console=console,
            auto_refresh=False,
            transient=True,
            # Standard output may be a file or a pipe.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def start(self) -> None:
        """Start to show interims."""
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Remove the interim."""
        self._live.stop()

    def show(self, event: StreamEvent) -> None:
        """Show an event of the stream."""
        if isinstance(event, Interim):
            self._live.update(self._interim(event), refresh=True)
        elif isinstance(event, SpeechEvent):
            if event.type == "started":
                self._live.update(self._line("..."), refresh=True)
        else:
            # First: printing redraws the line below.
            self._live.update(self._line("listening"), refresh=True)
            if event.result.text:
                self._console.print(self._final(event))

    def note(self, text: str) -> None:
        """Print a note above the interim."""
        self._console.print(self._line(f"stt: {text}"))

    def _line(self, text: str) -> Text:
        from rich.text import Text

        return Text(text, style="dim")

    def _interim(self, event: Interim) -> Text:
        from rich.text import Text

        text = Text(event.stable_text, style="bold")
        text.append(event.unstable_text, style="dim not bold")
        # Text that is taller than the terminal can't be erased: show its end.
        surplus = len(text) - self._console.width * _LIVE_LINES + 3
        return Text("...", style="dim") + text[surplus:] if surplus > 0 else text

    def _final(self, event: Final) -> Text:
        from rich.text import Text

        result = event.result
        start = result.segments[0].start if result.segments else event.audio_processed
        return Text.assemble((f"{clock(start)}  ", "cyan"), result.text, (f"  {summary(result)}", "dim"))


def clock(seconds: float) -> str:
    """Format a time as `0:07` or `1:02:03`."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def summary(result: Transcript) -> str:
    """Language and confidence; the model's name if the fallback's text was returned."""
    routing = result.routing
    confidence = routing.fallback_confidence if routing.fallback_used else routing.primary_confidence
    parts = [
        result.language,
        "" if confidence is None else f"{confidence:.0%}",
        routing.final_model if routing.fallback_used else "",
        f"fallback: {routing.fallback_error}" if routing.fallback_error else "",
    ]
    return " ".join(part for part in parts if part)


def _screen(file: TextIO) -> Screen | None:
    if not file.isatty():
        return None
    from rich.console import Console

    return Screen(Console(file=file, highlight=False))
