"""Progress bar on standard error, if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """Context manager that counts finished recordings.

    Args:
        total: number of recordings.
    """

    def __init__(self, total: int) -> None:
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

    def advance(self) -> None:
        """Count one more recording."""
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])

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


def _progress(total: int) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        # Standard output may be a file or a pipe.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    progress.add_task("Transcribing", total=total)
    return progress
