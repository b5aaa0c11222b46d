"""Taking up a changed configuration, and replaced certificates, while the service runs."""

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
from stt_server.config import ConfigError, Settings
from stt_server.config.changes import Change, change, refuse_to_open, refuse_torn
from stt_server.config.load import read, unreadable
from stt_server.config.watch import Look, Settling
from stt_server.observability.logs import LEVELS, set_level
from stt_server.security.tls import ServerPems, server_pems

LOOK_EVERY_S = 0.25
TLS_FILES = "the files of TLS_CERT, TLS_KEY and TLS_CLIENT_CA"
FALLBACK_FILES = "the files of FALLBACK_CA, FALLBACK_CERT and FALLBACK_KEY"

log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Offer:
    """What the files of one look make, read and checked."""

    change: Change
    route: FallbackRoute | None
    pems: ServerPems | None
    """None: without TLS, or as they are."""
    held: bytes
    """By the file."""
    problems: tuple[str, ...]
    """Of PEM files: what was taken up from them before stays, and the rest goes on. Without secrets."""


@dataclass(frozen=True)
class _Said:
    """What came of one offer."""

    problems: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Reloader:
    """Looks at a service's file and at the PEM files that it names, and has the service follow what changes.

    A file that the service could not start with changes nothing. It is looked at again until it can be taken up.
    """

    def __init__(self, path: Path, service: Service) -> None:
        self._path = path
        self._service = service
        self._settling = Settling()
        self._said = _Said()
        self._held = b""
        """By the file, when it was last taken up."""
        self._hung_up = asyncio.Event()
        # Of its own: a file system that doesn't answer holds up nobody else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="configuration")

    def hang_up(self) -> None:
        """Has the files read at once, as SIGHUP asks."""
        self._hung_up.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            # What changed between the start's own reading and this one is noticed here.
            await self._take_up(Look(), quiet=True)
            while True:
                await self._look(await self._pause())
        finally:
            self._thread.shutdown(wait=False)

    async def _pause(self) -> bool:
        """Returns when it is time for a look: whether somebody asked for it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hung_up.wait(), LOOK_EVERY_S)
        asked = self._hung_up.is_set()
        self._hung_up.clear()
        return asked

    async def _look(self, asked: bool) -> None:
        look = Look()
        await self._in_thread(lambda: look.glance(self._settling.paths))
        if asked or self._settling.due(look.digests(), torn=look.ends_within_a_line(self._path)):
            await self._take_up(look, quiet=False)
        elif self._said.problems and self._settling.is_taken(look.digests()):
            # What the file names may have come to be, although the file is the same.
            await self._take_up(look, quiet=True)

    async def _take_up(self, look: Look, *, quiet: bool) -> None:
        """Has the service follow what was seen, and tells of it; `quiet`: only if there is news."""
        running = self._service.settings
        try:
            offer = await self._in_thread(lambda: self._offer(look, running))
        except ConfigError as error:
            said = _Said((str(error),))
        else:
            said = self._follow(offer)
        self._settling.take(look.digests())
        before, self._said = self._said, said
        if not quiet or said.taken or said.problems != before.problems:
            self._count(said)
            self._tell(said, running)

    def _offer(self, look: Look, running: Settings) -> _Offer:
        """Blocks. Raises ConfigError: the file is none that the service could start with."""
        try:
            data = look.read(self._path)
        except OSError as error:
            raise unreadable(self._path, error) from None
        refuse_torn(self._held, data, source=str(self._path))
        wanted = read(data, running.service, source=str(self._path))
        refuse_to_open(running, wanted, data, source=str(self._path))
        to_be = change(running, wanted)
        problems = []
        route, pems = self._service.route, None
        try:
            route = fallback_route(to_be.settings, look.read)
        except ConfigError as error:
            if to_be.names_fallback:
                raise
            problems.append(str(error))
        try:
            pems = server_pems(running, look.read)
        except ConfigError as error:
            problems.append(str(error))
        return _Offer(to_be, route, pems, data, tuple(problems))

    def _follow(self, offer: _Offer) -> _Said:
        """Has the service follow; what there is to say of it."""
        self._held = offer.held
        problems, taken = list(offer.problems), list(offer.change.taken)
        if offer.route != self._service.route and not offer.change.names_fallback:
            taken.append(FALLBACK_FILES)
        self._service.follow(offer.change.settings, offer.route)
        try:
            if offer.pems is not None and self._service.renew_certificate(offer.pems):
                taken.append(TLS_FILES)
        except OSError as error:
            problems.append(str(error))
        return _Said(tuple(problems), tuple(taken), offer.change.waiting, offer.change.settings.warnings)

    def _count(self, said: _Said) -> None:
        reloads = self._service.reloads
        if said.taken or not said.problems:
            reloads.read("applied" if said.taken else "unchanged", len(said.waiting))
        if said.problems:
            reloads.refused()

    def _tell(self, said: _Said, before: Settings) -> None:
        level = self._service.settings.log_level
        if level != before.log_level:
            # What is said of the change itself is said by the more talkative of both.
            set_level(min(level, before.log_level, key=LEVELS.index))
        if said.problems:
            log.error("a changed configuration is not taken up: %s", "; ".join(said.problems))
        if said.taken:
            log.info("a changed configuration is taken up: %s", ", ".join(said.taken))
        elif not said.problems:
            log.info("the configuration was read again: nothing that could be taken up is new")
        for warning in said.warnings:
            if warning not in before.warnings:
                log.warning(warning)
        if said.waiting:
            log.warning("changed keys that wait for a restart: %s", ", ".join(said.waiting))
        if level != before.log_level:
            set_level(level)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
