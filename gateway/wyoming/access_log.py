"""Access log: one line for each utterance, and for each connection that ends with an error."""

from __future__ import annotations

import logging
import time

from gateway.http.access_log import logger
from gateway.http.errors import was_received
from gateway.http.refusals import OTHER, UPLOAD, Refusals
from gateway.wyoming.calls import Utterance
from protos.stt.v1.errors import header_safe
from protos.stt.v1.wire import X_ERROR_TYPE
from stt_client.errors import SttError


class AccessLog:
    """Writes lines like those of HTTP requests, with the path `wyoming`. They hold no keys and no transcripts."""

    def __init__(self, refusals: Refusals, *, service_logs_here: bool) -> None:
        """
        Args:
            service_logs_here: the service writes to the same log; what it logs is logged here at DEBUG.
        """
        self._refusals = refusals
        self._service_logs_here = service_logs_here

    def answered(self, utterance: Utterance) -> None:
        """Log a transcript."""
        self._log(utterance, {}, logged_by_service=True)

    def refused(self, utterance: Utterance | None, type_: str, message: str) -> None:
        """Log and count an error without a call to the service.

        Args:
            utterance: None: the error concerns none.
        """
        self._refusals.add(_endpoint(utterance), type_)
        self._log(utterance, _error(type_, message), logged_by_service=False)

    def failed(self, utterance: Utterance | None, error: SttError, type_: str, message: str) -> None:
        """Log an error of a call to the service, which counts it unless it wasn't reached.

        Args:
            type_, message: see `public_error`.
        """
        if not was_received(error):
            self._refusals.add(_endpoint(utterance), type_)
        self._log(utterance, _error(type_, message), logged_by_service=X_ERROR_TYPE in error.metadata)

    def _log(self, utterance: Utterance | None, error: dict[str, str], *, logged_by_service: bool) -> None:
        about: dict[str, object] = {"path": "wyoming", **error}
        if utterance is not None:
            seconds = round(time.monotonic() - utterance.started, 4)
            about |= {"request_id": utterance.request_id, "seconds": seconds, "bytes": len(utterance.audio)}
        level = logging.DEBUG if logged_by_service and self._service_logs_here else logging.INFO
        logger.log(level, "request", extra=about)


def _endpoint(utterance: Utterance | None) -> str:
    return OTHER if utterance is None else UPLOAD


def _error(type_: str, message: str) -> dict[str, str]:
    return {"error_type": type_, "error_message": header_safe(message)}
