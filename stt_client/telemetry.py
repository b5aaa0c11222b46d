"""What a client tells about its calls: a record for each, and the latencies of the latest ones."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stt_client.results import Transcript

WINDOW = 1000
"""Successful transcriptions that the quantiles are taken over."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallRecord:
    """The outcome of one call."""

    method: str
    """Name of the RPC: `Transcribe`, `StreamTranscribe` (one for each connection), `GetStatus`,
    `GetMetrics` or `CheckAdmission`."""
    target: str
    request_id: str
    """Empty for calls that transcribe nothing."""
    ok: bool
    error_type: str
    """A type of the contract's error table; empty on success."""
    seconds: float
    """From the call to its answer; the reading of a file is not in it."""
    audio_bytes: int
    """Bytes of audio sent."""
    transcript: Transcript | None = field(default=None, repr=False)
    """On success of `Transcribe`. Not in the repr, which people log: it holds what was said."""


Telemetry = Callable[[CallRecord], None]


def report(hook: Telemetry | None, record: CallRecord) -> None:
    """Hands the record to the hook. A hook that raises is logged: it must not cost the caller an answer."""
    if hook is None:
        return
    try:
        hook(record)
    except Exception:
        _log.exception("The telemetry hook failed on a call of %s", record.method)


class LatencyStats:
    """Rolling latencies, in seconds, of the latest successful transcriptions. Thread-safe.

    Args:
        window: how many of the latest count.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._seconds: deque[float] = deque(maxlen=window)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._lock:
            self._seconds.append(seconds)

    @property
    def count(self) -> int:
        """How many latencies the quantiles are taken over."""
        return len(self._seconds)

    @property
    def p50(self) -> float | None:
        return self.quantile(0.50)

    @property
    def p95(self) -> float | None:
        return self.quantile(0.95)

    @property
    def p99(self) -> float | None:
        return self.quantile(0.99)

    def quantile(self, q: float) -> float | None:
        """By nearest rank, so that it is a time that a call really took. None before the first call.

        Args:
            q: over 0, up to 1.
        """
        with self._lock:
            ranked = sorted(self._seconds)
        return ranked[max(0, math.ceil(q * len(ranked)) - 1)] if ranked else None
