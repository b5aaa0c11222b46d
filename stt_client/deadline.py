"""Deadlines: points on `time.monotonic`, None where there is no limit."""

from __future__ import annotations

import time


def deadline_in(timeout: float | None) -> float | None:
    """The point that is `timeout` seconds away; None: never."""
    return None if timeout is None else time.monotonic() + timeout


def seconds_left(deadline: float | None) -> float | None:
    """Seconds until then, at least 0; None: no limit."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
