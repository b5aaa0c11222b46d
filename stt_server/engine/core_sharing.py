"""Lets an inference compute on the cores that other inferences leave idle.

CTranslate2 fixes a worker's threads when it loads the model. So the model is loaded with several, and while there are
too many inferences for that, OpenMP keeps each of them to its first thread (`parallel_regions`). Where that can't be
done, a second copy of the model has one thread (`two_copies`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_THREADS = 4
"""Most threads of one inference: CTranslate2's own default. More than two have not been measured."""


class CoreSharing:
    """Counts a model's inferences and decides whether they may use several threads. Thread-safe.

    They become narrow, of one thread each, as soon as they need more threads than there are cores, and wide again once
    they would take half of the cores. Changing with each inference that ends would wake threads in the pauses between
    two inferences of a busy service, on cores that others are about to need: 8 % more processor time on two cores.
    """

    def __init__(self, threads: int, cores: int, set_narrow: Callable[[bool], None]) -> None:
        """
        Args:
            threads: threads of a wide inference, at least 2.
            cores: cores that the inferences share.
            set_narrow: makes all inferences of the model narrow, or wide.
        """
        self.threads = threads
        self._cores = cores
        self._set_narrow = set_narrow
        self._lock = threading.Lock()
        self._running = {False: 0, True: 0}
        """Inferences by whether they are drafts."""
        self._crowded = False

    @contextmanager
    def inference(self, *, draft: bool) -> Iterator[None]:
        """Count an inference for as long as the context lasts.

        A draft is narrow, and so is what runs beside it: several threads cost processor time, and no caller waits for a
        draft.
        """
        self._count(draft, 1)
        try:
            yield
        finally:
            self._count(draft, -1)

    def _count(self, draft: bool, change: int) -> None:
        with self._lock:
            self._running[draft] += change
            needed = self._running[False] * self.threads
            self._crowded = needed > self._cores or (self._crowded and 2 * needed > self._cores)
            self._set_narrow(self._crowded or self._running[True] > 0)
