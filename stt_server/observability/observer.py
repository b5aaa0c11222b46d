"""The one place where a finished request is told to metrics, snapshot and log."""

from __future__ import annotations

import logging

from stt_server.observability.call_record import Call
from stt_server.observability.logs import log_call
from stt_server.observability.metrics import Metrics
from stt_server.observability.snapshot import Snapshot


class Observer:
    """Tells each finished call once to all three, so that they tell operators the same story."""

    def __init__(self, metrics: Metrics, snapshot: Snapshot, logger: logging.Logger) -> None:
        self._metrics = metrics
        self._snapshot = snapshot
        self._logger = logger

    def finished(self, call: Call) -> None:
        """To be called exactly once for each request, whatever came of it."""
        self._metrics.observe(call)
        self._snapshot.observe(call)
        log_call(self._logger, call)
