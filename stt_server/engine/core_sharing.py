"""Lets an inference compute on the cores that other inferences leave idle.

CTranslate2 fixes a worker's threads when it loads the model. So the model is loaded with several, and while there are
too many inferences for that, OpenMP keeps each of them to its first thread (`parallel_regions`). Where that can't be
done, a second copy of the model has one thread (`two_copies`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial

MAX_THREADS = 4
"""Most threads of one inference: CTranslate2's own default. More than two have not been measured."""

PAUSE_S = 0.05
"""Seconds: longer than a busy service's worker takes between two inferences, and much shorter than an inference."""


def call_later(seconds: float, callback: Callable[[], None]) -> None:
    """Call in another thread, unless the process ends before."""
    timer = threading.Timer(seconds, callback)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no further thread is allowed: inferences stay narrow until none runs
        timer.start()


class CoreSharing:
    """Counts a model's inferences and decides whether they may use several threads. Thread-safe.

    They become narrow, of one thread each, as soon as they need more threads than there are cores. They become wide
    again once none runs, or once the cores have sufficed for `PAUSE_S`. Without that pause, threads would wake between
    two inferences of a busy service, on cores that the next one is about to need.
    """

    def __init__(
        self,
        threads: int,
        cores: int,
        set_narrow: Callable[[bool], None],
        later: Callable[[float, Callable[[], None]], None] = call_later,
    ) -> None:
        """
        Args:
            threads: threads of a wide inference, at least 2.
            cores: cores that the inferences share.
            set_narrow: makes all inferences of the model narrow, or wide.
            later: calls a function after some seconds.
        """
        self.threads = threads
        self._cores = cores
        self._set_narrow = set_narrow
        self._later = later
        self._lock = threading.Lock()
        self._drafts = 0
        self._others = 0
        self._crowded = False
        self._changes = 0
        """Inferences begun and ended."""

    @contextlib.contextmanager
    def inference(self, *, draft: bool) -> Iterator[None]:
        """Count an inference for as long as the context lasts.

        A draft is narrow, and so is what runs beside it, until the draft ends: several threads cost processor time, and
        no caller waits for a draft.
        """
        self._count(draft, 1)
        try:
            yield
        finally:
            self._count(draft, -1)

    def _count(self, draft: bool, change: int) -> None:
        with self._lock:
            self._changes += 1
            if draft:
                self._drafts += change
            else:
                self._others += change
            if self._others * self.threads > self._cores:
                self._crowded = True
            elif not self._others:
                self._crowded = False
            elif self._crowded:
                self._later(PAUSE_S, partial(self._relax, self._changes))
            self._apply()

    def _relax(self, changes: int) -> None:
        """Let inferences be wide, unless one began or ended since."""
        with self._lock:
            if changes == self._changes:
                self._crowded = False
                self._apply()

    def _apply(self) -> None:
        self._set_narrow(self._crowded or self._drafts > 0)
