"""Applies changes of the configuration file, and of the PEM files that it names, while the service runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stt_server.app import Service
from stt_server.backend import FallbackRoute, fallback_route
from stt_server.config import ConfigError, FileChangedError, Settings
from stt_server.config.changes import Change, compare, refuse_removed_keys, refuse_truncated
from stt_server.config.load import read, unreadable
from stt_server.config.watch import ChangeDetector, FileView
from stt_server.observability.logs import LEVELS, set_level
from stt_server.security.tls import ServerPems, server_pems

POLL_S = 0.25
TLS_FILES = "the files of TLS_CERT, TLS_KEY and TLS_CLIENT_CA"
FALLBACK_FILES = "the files of FALLBACK_CA, FALLBACK_CERT and FALLBACK_KEY"

log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Candidate:
    """A new configuration, read and validated, not applied yet."""

    change: Change
    route: FallbackRoute | None
    pems: ServerPems | None
    """None: without TLS, or the files can't be used."""
    data: bytes
    """Content of the configuration file."""
    problems: tuple[str, ...]
    """PEM files that can't be used, without secrets. Their old content stays in use; the rest is applied."""


@dataclass(frozen=True)
class _Outcome:
    """Result of one reading of the files."""

    problems: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """Changed keys that need a restart."""
    warnings: tuple[str, ...] = ()


class Reloader:
    """Watches the files of a service and applies what changes.

    A file with which the service could not start changes nothing; it is read again until it can be applied.
    """

    def __init__(self, path: Path, service: Service) -> None:
        self._path = path
        self._service = service
        self._changes = ChangeDetector()
        self._outcome = _Outcome()
        self._applied_data = b""
        """Content of the configuration file when it was last applied."""
        self._requested = asyncio.Event()
        # A thread of its own: a file system that hangs blocks nothing else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="configuration")

    def reload_now(self) -> None:
        """Read the files at once, as SIGHUP asks."""
        self._requested.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            # Notices what changed since the start read the files. Until a read succeeds, no file is watched.
            while not self._changes.paths:
                await self._reload(FileView(), quiet=True)
            while True:
                await self._poll(requested=await self._wait())
        finally:
            self._thread.shutdown(wait=False)

    async def _wait(self) -> bool:
        """Wait for the next poll. Returns whether `reload_now` asked for it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._requested.wait(), POLL_S)
        requested = self._requested.is_set()
        self._requested.clear()
        return requested

    async def _poll(self, *, requested: bool) -> None:
        view = FileView()
        await self._in_thread(lambda: view.preload(self._changes.paths))
        if requested or self._changes.due(view.digests(), truncated=view.lacks_final_newline(self._path)):
            await self._reload(view, quiet=False)
        elif self._outcome.problems and self._changes.is_accepted(view.digests()):
            # A path in the unchanged file may have become valid.
            await self._reload(view, quiet=True)

    async def _reload(self, view: FileView, *, quiet: bool) -> None:
        """Read and apply the files. `quiet`: log and count only what differs from the last outcome."""
        running = self._service.settings
        try:
            candidate = await self._in_thread(lambda: self._read(view, running))
        except FileChangedError:
            return  # the next poll finds the change and reads it
        except ConfigError as error:
            outcome = _Outcome((str(error),))
        else:
            outcome = self._apply(candidate)
        self._changes.accept(view.digests())
        before, self._outcome = self._outcome, outcome
        if not quiet or outcome.applied or outcome.problems != before.problems:
            self._count(outcome)
            self._log(outcome, running)

    def _read(self, view: FileView, running: Settings) -> _Candidate:
        """Blocks. Raises ConfigError if the service could not start with the file."""
        try:
            data = view.read(self._path)
        except OSError as error:
            raise unreadable(self._path, error) from None
        refuse_truncated(self._applied_data, data, source=str(self._path))
        wanted = read(data, running.service, source=str(self._path))
        refuse_removed_keys(running, wanted, data, source=str(self._path))
        to_apply = compare(running, wanted)
        problems = []
        route, pems = self._service.route, None
        try:
            route = fallback_route(to_apply.settings, view.read)
        except FileChangedError:
            raise
        except ConfigError as error:
            if to_apply.names_fallback:
                raise
            problems.append(str(error))
        try:
            pems = server_pems(running, view.read)
        except FileChangedError:
            raise
        except ConfigError as error:
            problems.append(str(error))
        return _Candidate(to_apply, route, pems, data, tuple(problems))

    def _apply(self, candidate: _Candidate) -> _Outcome:
        self._applied_data = candidate.data
        problems, applied = list(candidate.problems), list(candidate.change.applied)
        if candidate.route != self._service.route and not candidate.change.names_fallback:
            applied.append(FALLBACK_FILES)
        self._service.apply(candidate.change.settings, candidate.route)
        try:
            if candidate.pems is not None and self._service.renew_certificate(candidate.pems):
                applied.append(TLS_FILES)
        except OSError as error:
            problems.append(str(error))
        return _Outcome(tuple(problems), tuple(applied), candidate.change.waiting, candidate.change.settings.warnings)

    def _count(self, outcome: _Outcome) -> None:
        reloads = self._service.instruments.reloads
        if outcome.applied or not outcome.problems:
            reloads.read("applied" if outcome.applied else "unchanged", len(outcome.waiting))
        if outcome.problems:
            reloads.refused()

    def _log(self, outcome: _Outcome, before: Settings) -> None:
        level = self._service.settings.log_level
        if level != before.log_level:
            # The change of the level itself is logged at the more verbose of the two.
            set_level(min(level, before.log_level, key=LEVELS.index))
        if outcome.problems:
            log.error("configuration not applied: %s", "; ".join(outcome.problems))
        if outcome.applied:
            log.info("configuration applied: %s", ", ".join(outcome.applied))
        elif not outcome.problems:
            log.info("configuration reloaded: no changes to apply")
        for warning in outcome.warnings:
            if warning not in before.warnings:
                log.warning(warning)
        if outcome.waiting:
            log.warning("restart required for changed keys: %s", ", ".join(outcome.waiting))
        if level != before.log_level:
            set_level(level)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
