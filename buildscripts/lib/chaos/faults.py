"""Faults of a chaos run, as contexts: injected at the beginning, undone at the end.

At most one fault of a group is active at a time, so that the pool always has a healthy primary.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from buildscripts.lib.chaos.callers import CALLERS
from buildscripts.lib.chaos.context import FaultContext, Inject
from buildscripts.lib.chaos.fallback_faults import (
    freeze_fallback,
    kill_fallback,
    model_of_fallback,
    network,
    refuse_primaries,
    reset_network,
    restart_fallback,
)
from buildscripts.lib.chaos.hostile import attack
from buildscripts.lib.chaos.ledger import Impact
from buildscripts.lib.chaos.primary_faults import (
    damage_config,
    freeze_primary,
    kill_decoder,
    kill_gateway,
    kill_primary,
    model_of_primary,
    move_fallback,
    poison_primary,
    restart_gateway,
    roll_primaries,
    rotate_keys,
    tighten_limits,
)

Group = Literal["primaries", "gateway", "fallback", "callers"]

BURST = 10
"""Additional callers during a burst, as a multiple of the usual number."""
HOSTILE = 4
"""Number of concurrent hostile callers."""


@dataclass(frozen=True)
class Fault:
    """Kind of fault."""

    group: Group
    inject: Inject
    """Yields the impact that callers may notice."""
    scripted: bool = False
    """Whether it requires scripted models."""


@asynccontextmanager
async def burst(context: FaultContext) -> AsyncIterator[Impact]:
    """Ten times the load, from callers that don't pause."""
    stop = asyncio.Event()
    crowd = [
        asyncio.create_task(context.callers.call_repeatedly(transport, to, stop, pause=0.0))
        for transport, to in CALLERS * BURST
        if transport in ("pool", "gRPC", "REST", "OpenAI")
    ]
    try:
        yield Impact(everybody=frozenset({"overloaded", "deadline_exceeded"}), fallback=True)
    finally:
        stop.set()
        await asyncio.gather(*crowd)


@asynccontextmanager
async def hostile(context: FaultContext) -> AsyncIterator[Impact]:
    """Invalid uploads and slow bodies, beside the usual callers."""
    stop = asyncio.Event()
    crowd = [
        asyncio.create_task(attack(context.callers, member, context.chance, stop))
        for member in context.deployment.primaries
        for _ in range(HOSTILE // 2)
    ]
    try:
        yield Impact()
    finally:
        stop.set()
        await asyncio.gather(*crowd)


FAULTS: dict[str, Fault] = {
    "kill-primary": Fault("primaries", kill_primary),
    "freeze-primary": Fault("primaries", freeze_primary),
    "roll-primaries": Fault("primaries", roll_primaries),
    "poison-primary": Fault("primaries", poison_primary, scripted=True),
    "kill-decoder": Fault("primaries", kill_decoder),
    "rotate-keys": Fault("primaries", rotate_keys),
    "damage-config": Fault("primaries", damage_config),
    "tighten-limits": Fault("primaries", tighten_limits),
    "move-fallback": Fault("primaries", move_fallback),
    "kill-gateway": Fault("gateway", kill_gateway),
    "restart-gateway": Fault("gateway", restart_gateway),
    "kill-fallback": Fault("fallback", kill_fallback),
    "freeze-fallback": Fault("fallback", freeze_fallback),
    "restart-fallback": Fault("fallback", restart_fallback),
    "refuse-primaries": Fault("fallback", refuse_primaries),
    "slow-fallback": Fault("fallback", model_of_fallback(seconds=3.0), scripted=True),
    "failing-fallback": Fault("fallback", model_of_fallback("engine"), scripted=True),
    "fallback-out-of-memory": Fault("fallback", model_of_fallback("out_of_memory"), scripted=True),
    "bug-in-fallback": Fault("fallback", model_of_fallback("bug"), scripted=True),
    "failing-primary": Fault("fallback", model_of_primary("engine", Impact(silences=True)), scripted=True),
    "primary-out-of-memory": Fault(
        "fallback", model_of_primary("out_of_memory", Impact(everybody=frozenset({"out_of_memory"}))), scripted=True
    ),
    "slow-network": Fault("fallback", network("slow")),
    "silent-network": Fault("fallback", network("silent")),
    "cut-network": Fault("fallback", network("refused")),
    "reset-network": Fault("fallback", reset_network),
    "nonsense-from-fallback": Fault("fallback", network("nonsense")),
    "burst": Fault("callers", burst),
    "hostile": Fault("callers", hostile),
}
