"""What `stt stream` shows and prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from stt_client.results import Segment, Transcript
from stt_client.streaming.results import Final, Interim, SpeechEvent, StreamEvent
from stt_client.subtitles import to_srt, to_vtt

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

SUBTITLES: Mapping[str, Callable[[list[Segment]], str]] = {"srt": to_srt, "vtt": to_vtt}
_LIVE_LINES = 4
"""Most lines of the text that is still being said; its end is shown."""


class View:
    """Prints the results on standard output, and shows live text where there is a terminal to show it on.

    Args:
        format_: `txt`: a line for each final; `json`: a line for each event; `srt`, `vtt`: subtitles at the end.
    """

    def __init__(self, format_: str) -> None:
        self._format = format_
        self._segments: list[Segment] = []
        self._on_terminal = sys.stdout.isatty()
        self._screen: Screen | None = None
        if format_ == "txt" and self._on_terminal:
            self._screen = _screen(sys.stdout)
        elif format_ != "json" or not self._on_terminal:  # lines that pass by leave no room for a live one
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
            sys.stdout.write(SUBTITLES[self._format](self._segments))

    def show(self, event: StreamEvent) -> None:
        """The next event of the stream."""
        if self._screen:
            self._screen.show(event)
        if isinstance(event, Final):
            self._segments += event.result.segments
        if self._format == "json":
            print(json.dumps(event.as_dict(), ensure_ascii=False), flush=True)
        elif self._format == "txt" and not self._on_terminal and isinstance(event, Final) and event.result.text:
            print(event.result.text, flush=True)

    def note(self, text: str) -> None:
        """Something to know, on standard error."""
        if self._screen:
            self._screen.note(text)
        else:
            print(f"stt: {text}", file=sys.stderr)


class Screen:
    """Finals as lines, and below them what is being said: firm where it is stable, dim where it may change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def start(self) -> None:
        from rich.live import Live

        self._live = Live(
            self._line("listening"),
            console=self._console,
            auto_refresh=False,
            transient=True,
            # What is printed on standard output is for whoever it was sent to.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: StreamEvent) -> None:
        assert self._live is not None  # noqa: S101
        if isinstance(event, Interim):
            self._live.update(self._spoken(event), refresh=True)
        elif isinstance(event, SpeechEvent):
            if event.type == "started":
                self._live.update(self._line("..."), refresh=True)
        else:
            # First, for what is printed takes with it what stands below.
            self._live.update(self._line("listening"), refresh=True)
            if event.result.text:
                self._console.print(self._final(event))

    def note(self, text: str) -> None:
        self._console.print(self._line(f"stt: {text}"))

    def _line(self, text: str) -> Text:
        from rich.text import Text

        return Text(text, style="dim")

    def _spoken(self, event: Interim) -> Text:
        from rich.text import Text

        text = Text(event.stable_text, style="bold")
        text.append(event.unstable_text, style="dim not bold")
        # A live region that is higher than the terminal can't be taken back: show the end.
        surplus = len(text) - self._console.width * _LIVE_LINES + 3
        return Text("...", style="dim") + text[surplus:] if surplus > 0 else text

    def _final(self, event: Final) -> Text:
        from rich.text import Text

        result = event.result
        start = result.segments[0].start if result.segments else event.audio_processed
        return Text.assemble((f"{clock(start)}  ", "cyan"), result.text, (f"  {judgement(result)}", "dim"))


def clock(seconds: float) -> str:
    """A time to read: `0:07`, `1:02:03`."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def judgement(result: Transcript) -> str:
    """Language and confidence; the model's name where it is the fallback's text."""
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
