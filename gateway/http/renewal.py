"""`stt-gateway` takes up PEM files that are replaced while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.http.server import GatewayServer
from gateway.options import HttpTls
from stt_client import Tls
from stt_client.tls_files import tls_from_files

LOOK_EVERY_S = 0.25
STILL_S = 0.4
"""Seconds without a change until files are read: a certificate comes a moment before its key."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of both sides."""

    ca: Path | None
    cert: Path | None
    key: Path | None
    http: HttpTls | None
    """Of the side towards callers; the others are of the side towards the service."""

    def to_service(self) -> Tls | None:
        """Raises ValueError; see `tls_from_files`."""
        return tls_from_files(self.ca, self.cert, self.key)

    @property
    def paths(self) -> Collection[Path]:
        http = () if self.http is None else (self.http.cert, self.http.key, self.http.client_ca)
        return [path for path in (self.ca, self.cert, self.key, *http) if path is not None]


class Renewal:
    """Looks at the files, by content, and has the gateway follow. Files that don't fit change nothing until they do."""

    def __init__(self, server: GatewayServer, files: TlsFiles, running: Tls | None) -> None:
        """
        Args:
            running: what the gateway calls its service with now.
        """
        self._server = server
        self._files = files
        self._running = running
        self._problems: Sequence[str] = ()
        self._hung_up = asyncio.Event()

    def hang_up(self) -> None:
        """Has the files read at once, as SIGHUP asks."""
        self._hung_up.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        seen = taken = await loop.run_in_executor(None, _digests, self._files.paths)
        since = time.monotonic()
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hung_up.wait(), LOOK_EVERY_S)
            now = await loop.run_in_executor(None, _digests, self._files.paths)
            if now != seen:
                seen, since = now, time.monotonic()
            is_new = (now != taken or self._problems) and time.monotonic() - since >= STILL_S
            if self._hung_up.is_set() or is_new:
                self._hung_up.clear()
                taken = now
                self._follow()

    def _follow(self) -> None:
        problems = []
        try:
            self._server.renew_certificate()
        except OSError as error:
            problems.append(str(error))
        try:
            tls = self._files.to_service()
            if tls != self._running:
                self._server.renew_connection(tls)
                self._running = tls
        except ValueError as error:
            problems.append(str(error))
        if problems and problems != self._problems:
            log.error("replaced TLS files are not taken up: %s", "; ".join(problems))
        elif not problems:
            log.info("the TLS files were read again and are in use")
        self._problems = problems


def _digests(paths: Collection[Path]) -> list[str]:
    return [_digest(path) for path in paths]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return str(error.errno)
