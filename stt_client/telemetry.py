"""Records of a client's calls, and statistics of their latencies."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stt_client.results import Transcript

WINDOW = 1000
"""Number of latest successful transcriptions that quantiles cover."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallRecord:
    """Outcome of one call."""

    method: str
    """RPC: `Transcribe`, `TranscribeWithProgress`, `StreamTranscribe` (one record per connection), `GetStatus`,
    `GetMetrics` or `CheckAdmission`."""
    target: str
    request_id: str
    """Empty for calls other than transcriptions."""
    ok: bool
    error_type: str
    """Error type, such as `rate_limited`; empty on success."""
    seconds: float
    """Duration of the RPC, without reading the audio file."""
    audio_bytes: int
    """Bytes of audio sent."""
    transcript: Transcript | None = field(default=None, repr=False)
    """Result of a successful `Transcribe`. Excluded from the repr, which is safe to log."""


Telemetry = Callable[[CallRecord], None]


def report(hook: Telemetry | None, record: CallRecord) -> None:
    """Call the hook. Its exceptions are logged and don't reach the caller of the client."""
    if hook is None:
        return
    try:
        hook(record)
    except Exception:
        _log.exception("telemetry hook failed: on a record of %s", record.method)


class LatencyStats:
    """Latencies of the latest successful transcriptions, in seconds. Thread-safe.

    Args:
        window: number of latest transcriptions to keep.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._seconds: deque[float] = deque(maxlen=window)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._lock:
            self._seconds.append(seconds)

    @property
    def count(self) -> int:
        """Number of latencies that quantiles cover."""
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
        """Return a quantile by the nearest-rank method; None before the first transcription.

        Args:
            q: greater than 0, at most 1.
        """
        with self._lock:
            seconds = list(self._seconds)
        return quantile(seconds, q)


def quantile(values: Iterable[float], q: float) -> float | None:
    """Return a quantile by the nearest-rank method, so that it is one of the values; None without values.

    Args:
        q: greater than 0, at most 1.
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(q * len(ranked)) - 1)] if ranked else None
