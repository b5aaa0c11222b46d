"""Where the faults of a chaos run come in, and what several of them do."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from buildscripts.lib.chaos.callers import Callers
from buildscripts.lib.chaos.ledger import Harm
from buildscripts.lib.chaos.stage import Member, Stage

TAKEN_UP_S = 2.5
"""For a changed file, which is to be taken up within 2 s."""


@dataclass(frozen=True)
class Scene:
    """Where a fault comes in."""

    stage: Stage
    callers: Callers
    chance: random.Random


Bring = Callable[[Scene], AbstractAsyncContextManager[Harm]]


def hang_up(*members: Member) -> None:
    for member in members:
        member.process.send(signal.SIGHUP)


async def follow(*members: Member) -> None:
    """Has them read their files, and waits for as long as they may take."""
    hang_up(*members)
    await asyncio.sleep(TAKEN_UP_S)
