"""Context of a fault, and helpers that faults share."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from buildscripts.lib.chaos.callers import Callers
from buildscripts.lib.chaos.deployment import Deployment, Member
from buildscripts.lib.chaos.ledger import Impact

RELOAD_S = 2.5
"""Time to wait for a reload; the service polls its file every 2 s."""


@dataclass(frozen=True)
class FaultContext:
    """Everything a fault may act on."""

    deployment: Deployment
    callers: Callers
    chance: random.Random


Inject = Callable[[FaultContext], AbstractAsyncContextManager[Impact]]


def send_sighup(*members: Member) -> None:
    for member in members:
        member.process.send(signal.SIGHUP)


async def reload_config(*members: Member) -> None:
    """Reload the members' configuration and wait until it is in effect."""
    send_sighup(*members)
    await asyncio.sleep(RELOAD_S)
