"""Clock that tests set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ManualClock:
    """Stands in for `time.monotonic` or `time.time`: returns `now`, in seconds, until a test changes it."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now
