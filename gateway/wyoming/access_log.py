"""Access log: one line for each utterance, and for each connection that ends with an error."""

from __future__ import annotations

import logging
import time

from gateway.http.access_log import logger
from gateway.wyoming.calls import Utterance
from protos.stt.v1.errors import header_safe


class AccessLog:
    """Writes lines like those of HTTP requests, with the path `wyoming`. They hold no keys and no transcripts."""

    def __init__(self, *, service_logs_here: bool) -> None:
        """
        Args:
            service_logs_here: the service writes to the same log; what it logs is logged here at DEBUG.
        """
        self._service_logs_here = service_logs_here

    def answered(self, utterance: Utterance) -> None:
        """Log a transcript."""
        self._log(utterance, {}, logged_by_service=True)

    def failed(self, utterance: Utterance | None, type_: str, message: str, *, logged_by_service: bool = False) -> None:
        """Log an error.

        Args:
            utterance: None: the error concerns none.
        """
        error = {"error_type": type_, "error_message": header_safe(message)}
        self._log(utterance, error, logged_by_service=logged_by_service)

    def _log(self, utterance: Utterance | None, error: dict[str, str], *, logged_by_service: bool) -> None:
        about: dict[str, object] = {"path": "wyoming", **error}
        if utterance is not None:
            seconds = round(time.monotonic() - utterance.started, 4)
            about |= {"request_id": utterance.request_id, "seconds": seconds, "bytes": len(utterance.audio)}
        level = logging.DEBUG if logged_by_service and self._service_logs_here else logging.INFO
        logger.log(level, "request", extra=about)
