"""Progress bar on standard error, if that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from stt_client.results import Progress

if TYPE_CHECKING:
    import rich.progress


class Bar:
    """Context manager that shows how far some recordings are: audio done, speed and time left.

    Args:
        total: number of recordings.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = time.monotonic()
        self._running: dict[int, Progress] = {}
        self._finished: dict[int, Progress | None] = {}
        self._progress = _progress(total) if sys.stderr.isatty() else None

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, recording: int, progress: Progress) -> None:
        """Note how far a recording is."""
        self._running[recording] = progress
        self._show()

    def finish(self, recording: int) -> None:
        """Note that a recording is complete, or has failed."""
        self._finished[recording] = self._running.pop(recording, None)
        self._show()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar for the duration of the context, so that other output gets lines of its own."""
        if self._progress is None:
            yield
            return
        self._progress.stop()
        try:
            yield
            sys.stdout.flush()
        finally:
            self._progress.start()

    def _show(self) -> None:
        if self._progress is None:
            return
        detail = describe(self._total, self._finished.values(), self._running.values(), time.monotonic() - self._began)
        fraction = completed(self._finished.values(), self._running.values())
        count = f"{len(self._finished)}/{self._total}"
        self._progress.update(self._progress.task_ids[0], completed=fraction, detail=detail, count=count)


def completed(finished: Iterable[Progress | None], running: Iterable[Progress]) -> float:
    """Number of recordings that are complete, with the complete fractions of the others."""
    fractions = (p.audio_settled / p.audio_duration for p in running if p.audio_duration)
    return len(list(finished)) + sum(min(1.0, fraction) for fraction in fractions)


def describe(total: int, finished: Iterable[Progress | None], running: Iterable[Progress], elapsed: float) -> str:
    """Audio done, speed and time left, as far as they are known.

    Args:
        total: number of recordings.
        finished: last progress of those that are complete; None where there was none.
        running: of the others that have begun.
        elapsed: seconds so far.
    """
    finished, running = list(finished), list(running)
    known = [progress for progress in (*finished, *running) if progress is not None]
    settled = sum(progress.audio_settled for progress in known)
    fresh = settled - sum(progress.audio_kept for progress in known)
    if not settled:
        return ""
    duration = running[0].audio_duration if total == 1 and running else None
    parts = [f"{clock(settled)} of {clock(duration)}" if duration else clock(settled)]
    if fresh > 0 and elapsed > 0:
        parts.append(f"{fresh / elapsed:.1f}x")
        done = completed(finished, running)
        kept = sum(p.audio_kept / p.audio_duration for p in running if p.audio_duration)
        if done > kept:
            parts.append(f"{clock((total - done) * elapsed / (done - kept))} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Such as 0:07, 12:34 and 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _progress(total: int) -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
        console=Console(stderr=True),
        transient=True,
        # Standard output may be a file or a pipe.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    progress.add_task("Transcribing", total=total, detail="", count=f"0/{total}")
    return progress
