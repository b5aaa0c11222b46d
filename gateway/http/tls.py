"""TLS files of the gateway: the certificate shown to callers, and reloading files that are replaced on disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.options import HttpTls
from stt_client import Tls
from stt_client.tls_files import tls_from_files

CHECK_INTERVAL_S = 0.25
SETTLE_S = 0.4
"""Seconds without a change before files are read: a certificate is often replaced a moment before its key."""

log = logging.getLogger(__name__)


class ServerCertificate:
    """Server-side TLS context whose files can be read again while it is in use.

    Raises:
        OSError: a file is unreadable, or the files do not match; the text names them.
    """

    def __init__(self, tls: HttpTls) -> None:
        self._tls = tls
        self._current = _context(tls)
        self.context = _context(tls)
        """Context of the server. Each handshake switches to the latest files: reloading into a context in use would
        neither drop a CA nor survive files that do not match."""
        self.context.sni_callback = self._select

    def renew(self) -> None:
        """Read the files again, for new handshakes. Open connections are not affected.

        Raises:
            OSError: as the constructor; the previous certificate stays in use.
        """
        self._current = _context(self._tls)

    def _select(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        """SNI callback. OpenSSL calls it for each handshake, with or without a host name."""
        connection.context = self._current


def _context(tls: HttpTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (tls.cert, tls.key, tls.client_ca):
        if path is not None:
            path.open("rb").close()  # OpenSSL's own error names no file
    try:
        # Without a password function, OpenSSL would ask for an encrypted key's password on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password=lambda: b"")
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            # A session resumed from a ticket would not present its certificate again.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
    except ssl.SSLError as error:
        files = " or ".join(str(path) for path in dict.fromkeys((tls.cert, tls.key, tls.client_ca)) if path is not None)
        raise OSError(f"TLS: {files} is not a matching PEM file: {error.reason or error}") from error
    return context


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a stand-alone gateway, for both sides."""

    ca: Path | None
    cert: Path | None
    key: Path | None
    """Like `ca` and `cert`, for the connection to the service."""
    http: HttpTls | None
    """For the connections of callers."""

    def to_service(self) -> Tls | None:
        """TLS to the service; None: plain text. Raises ValueError as `tls_from_files` does."""
        return tls_from_files(self.ca, self.cert, self.key)

    @property
    def paths(self) -> Collection[Path]:
        http = () if self.http is None else (self.http.cert, self.http.key, self.http.client_ca)
        return [path for path in (self.ca, self.cert, self.key, *http) if path is not None]


class RenewableServer(Protocol):
    """The part of `GatewayServer` that `TlsReloader` uses."""

    def renew_certificate(self) -> None: ...

    def reconnect(self, tls: Tls | None) -> None: ...


class TlsReloader:
    """Polls TLS files for changed content and has the server use them. Invalid files change nothing."""

    def __init__(self, server: RenewableServer, files: TlsFiles, current: Tls | None) -> None:
        """
        Args:
            current: TLS to the service at the start.
        """
        self._server = server
        self._files = files
        self._current = current
        self._problems: Sequence[str] = ()
        self._reload_requested = asyncio.Event()

    def request_reload(self) -> None:
        """Read the files at once, as SIGHUP asks."""
        self._reload_requested.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        seen = loaded = await loop.run_in_executor(None, _digests, self._files.paths)
        changed_at = time.monotonic()
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._reload_requested.wait(), CHECK_INTERVAL_S)
            digests = await loop.run_in_executor(None, _digests, self._files.paths)
            if digests != seen:
                seen, changed_at = digests, time.monotonic()
            is_new = (digests != loaded or self._problems) and time.monotonic() - changed_at >= SETTLE_S
            if self._reload_requested.is_set() or is_new:
                self._reload_requested.clear()
                loaded = digests
                self._reload()

    def _reload(self) -> None:
        problems = []
        try:
            self._server.renew_certificate()
        except OSError as error:
            problems.append(str(error))
        try:
            tls = self._files.to_service()
            if tls != self._current:
                self._server.reconnect(tls)
                self._current = tls
        except ValueError as error:
            problems.append(str(error))
        if problems and problems != self._problems:
            log.error("TLS reload failed: %s; the previous files stay in use", "; ".join(problems))
        elif not problems:
            log.info("TLS files reloaded")
        self._problems = problems


def _digests(paths: Collection[Path]) -> list[str]:
    return [_digest(path) for path in paths]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return str(error.errno)
