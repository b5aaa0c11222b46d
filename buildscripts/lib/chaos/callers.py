"""Callers of a chaos run, and a ledger entry per request."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field

from buildscripts.lib.chaos.ledger import Entry, Ledger
from buildscripts.lib.chaos.transports import STREAMS, Transports, WrongAnswer
from buildscripts.lib.load.plain_clients import ApiError, NoResponse, Unreachable
from buildscripts.lib.load.recordings import EncodedClip
from stt_client import SttError


@dataclass
class Callers:
    """Concurrent callers of the deployment."""

    transports: Transports
    ledger: Ledger
    chance: random.Random
    deadline: float
    """Timeout of an upload, in seconds."""
    began: float = field(default_factory=time.monotonic)
    made: int = 0

    @property
    def now(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.began

    async def call_repeatedly(self, transport: str, to: str, stop: asyncio.Event, pause: float) -> None:
        """One caller with one request at a time, until `stop`."""
        while not stop.is_set():
            await self.one(transport, to)
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * pause)

    async def one(self, transport: str, to: str) -> Entry:
        """Make one request and enter it in the ledger."""
        entry, said = self.entry(transport, to, unsure=self.chance.random() < 0.3)
        self.ledger.entries.append(entry)
        leaves = self.chance.uniform(0.0, 0.1) if self.chance.random() < 0.03 else None
        await self._settle(entry, said, leaves)
        return entry

    def entry(self, transport: str, to: str, *, unsure: bool) -> tuple[Entry, EncodedClip]:
        """Prepare a request; return its ledger entry and its recording."""
        said = self.chance.choice(self.transports.clips)
        container = self.chance.choice(("wav", "wav", "wav", "flac", "ogg"))
        streams = transport in STREAMS
        self.made += 1
        entry = Entry(
            id=f"q{self.made}q",
            transport=transport,
            to=to,
            unsure=unsure and not streams,
            container="wav" if streams else container,
            sent=self.now,
            deadline=self.deadline + (said.seconds if streams else 0),
        )
        return entry, said

    async def wait_settled(self) -> None:
        """Wait until all requests that are now in flight have ended."""
        pending = [entry for entry in self.ledger.entries if entry.done is None]
        while True:
            pending = [entry for entry in pending if entry.done is None]
            if not pending:
                return
            await asyncio.sleep(PROBE_S)

    async def wait_healthy(self) -> None:
        """Wait until every transport is answered, and the fallback answers too."""
        while True:
            answers = await asyncio.gather(*(self._is_healthy(*probe) for probe in PROBES))
            if all(answers):
                return
            await asyncio.sleep(PROBE_S)

    async def _is_healthy(self, transport: str, to: str, unsure: bool) -> bool:
        entry, said = self.entry(transport, to, unsure=unsure)
        entry.container = "flac"  # decoded by a child process
        await self._settle(entry, said, None)
        by_fallback = not unsure or not self.transports.deployment.scripted or "the fallback says" in entry.said
        return entry.outcome == "text" and by_fallback

    async def _settle(self, entry: Entry, said: EncodedClip, leaves: float | None) -> None:
        await self.settle(entry, self.transports.send(entry, said), leaves)

    async def settle(self, entry: Entry, transport: Coroutine[None, None, None], leaves: float | None = None) -> None:
        """Make a request and record its outcome.

        Args:
            leaves: cancel the request after this many seconds.
        """
        call = asyncio.ensure_future(transport)
        try:
            await asyncio.wait((call,), timeout=leaves)
            if not call.done():
                call.cancel()
            await call
            entry.outcome = "text"
        except asyncio.CancelledError:
            if leaves is None:
                raise
            entry.outcome = "left"
        except SttError as error:
            entry.outcome, entry.detail = "refused", error.type
        except ApiError as error:
            entry.outcome, entry.detail = "refused", str(error)
        except Unreachable as error:
            entry.outcome, entry.detail = "unreachable", str(error)
        except NoResponse as error:
            entry.outcome, entry.detail = "broken", str(error)
        except WrongAnswer as error:
            entry.outcome, entry.detail = "wrong", str(error)
        finally:
            call.cancel()
        entry.done = self.now


PROBES = (
    ("pool", "pool", False),
    *(("gRPC", name, unsure) for name in ("a", "b") for unsure in (False, True)),
    *((transport, name, False) for transport in ("REST", "OpenAI") for name in ("a", "b", "gateway")),
)
PROBE_S = 0.05
"""Seconds between two checks of the state of requests or services."""
CALLERS = (
    *(("pool", "pool"),) * 4,
    *(("gRPC", name) for name in ("a", "a", "b", "b")),
    *(("REST", name) for name in ("a", "b", "gateway", "gateway")),
    *(("OpenAI", name) for name in ("a", "gateway")),
    *(("stream", "pool"),) * 2,
    *(("WebSocket", name) for name in ("a", "gateway")),
    *(("Realtime", name) for name in ("a", "gateway")),
    *(("Wyoming", name) for name in ("a", "b")),
)
"""Transport and destination of each caller."""
