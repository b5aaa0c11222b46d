"""The faults of a chaos run. Each is a context: it is there from its beginning, and undone at its end.

Of one group at most one is on at a time, so that the pool always has a primary that is well.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from buildscripts.lib.chaos_callers import TEAM, Callers
from buildscripts.lib.chaos_hostile import harass
from buildscripts.lib.chaos_ledger import Harm
from buildscripts.lib.chaos_stage import Member, Stage
from buildscripts.lib.proc import descendants
from buildscripts.lib.relay import Weather
from buildscripts.lib.scripted import Failure

Group = Literal["primaries", "gateway", "fallback", "callers"]

BURST = 10
"""Times the callers that there are."""
TAKEN_UP_S = 2.5
"""For a changed file, which is to be taken up within 2 s."""
LOST_S = 20.0
"""From a device's failure to the end of the process that has it: a drain is in it."""
HOSTILE = 4
"""Hostile callers at a time."""


@dataclass(frozen=True)
class Scene:
    """Where a fault comes in."""

    stage: Stage
    callers: Callers
    chance: random.Random


Bring = Callable[[Scene], AbstractAsyncContextManager[Harm]]


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    group: Group
    bring: Bring
    """Yields what callers may see of it."""
    scripted: bool = False
    """Whether it takes scripted models."""


def _down(member: Member, *, cuts: bool, pool: frozenset[str] = frozenset()) -> Harm:
    return Harm(down=frozenset({member.name}), cuts=cuts, pool=pool)


@asynccontextmanager
async def kill_primary(scene: Scene) -> AsyncIterator[Harm]:
    member = scene.chance.choice(scene.stage.primaries)
    await member.kill()
    yield _down(member, cuts=True)
    await member.start()


@asynccontextmanager
async def freeze_primary(scene: Scene) -> AsyncIterator[Harm]:
    """It keeps its connections and says nothing: who is with it waits for as long as he allows."""
    member = scene.chance.choice(scene.stage.primaries)
    member.process.send(signal.SIGSTOP)
    yield _down(member, cuts=True, pool=frozenset({"deadline_exceeded"}))
    member.process.send(signal.SIGCONT)


@asynccontextmanager
async def roll_primaries(scene: Scene) -> AsyncIterator[Harm]:
    """A rolling restart of both: nobody behind the pool is to notice."""
    a, b = scene.stage.primaries
    for member in (a, b):
        await member.stop()
        await member.start()
    yield Harm(down=frozenset({a.name, b.name}))


@asynccontextmanager
async def kill_decoder(scene: Scene) -> AsyncIterator[Harm]:
    """A decoding child dies; what it had in hand is told so."""
    member = scene.chance.choice(scene.stage.primaries)
    for pid in descendants(member.process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield Harm(containers=frozenset({"unsupported_audio"}))


@asynccontextmanager
async def poison_primary(scene: Scene) -> AsyncIterator[Harm]:
    """Its device fails for good: it is to end by itself, for a supervisor to start it again."""
    member = scene.chance.choice(scene.stage.primaries)
    assert member.script is not None  # noqa: S101
    member.act(replace(member.script, error="cuda"))
    await member.ends_by_itself(LOST_S)
    yield _down(member, cuts=False)
    await member.start()


@asynccontextmanager
async def kill_gateway(scene: Scene) -> AsyncIterator[Harm]:
    await scene.stage.gateway.kill()
    yield _down(scene.stage.gateway, cuts=True)
    await scene.stage.gateway.start()


@asynccontextmanager
async def restart_gateway(scene: Scene) -> AsyncIterator[Harm]:
    await scene.stage.gateway.stop()
    await scene.stage.gateway.start()
    yield _down(scene.stage.gateway, cuts=False)


def _hang_up(*members: Member) -> None:
    for member in members:
        member.process.send(signal.SIGHUP)


async def _follow(*members: Member) -> None:
    """Has them read their files, and waits for as long as they may take."""
    _hang_up(*members)
    await asyncio.sleep(TAKEN_UP_S)


@asynccontextmanager
async def rotate_keys(scene: Scene) -> AsyncIterator[Harm]:
    """The callers' key is replaced by another, in the three steps of a rotation: nobody is to notice."""
    stage, old, new = scene.stage, scene.stage.key, secrets.token_urlsafe(18)
    for keys, key in ((f"load:{old},next:{new}", new), (f"load:{new}", new)):
        for member in stage.primaries:
            member.write_config(API_KEYS=keys)
        await _follow(*stage.primaries)
        stage.key = key
        await scene.callers.until_settled()  # and nothing that was sent with the old key is on its way
    yield Harm()


@asynccontextmanager
async def damage_config(scene: Scene) -> AsyncIterator[Harm]:
    """A torn file, an empty one, and one with a wrong value: nothing is to change."""
    for member in scene.stage.primaries:
        whole = member.config.read_text()
        torn = whole[: scene.chance.choice([at for at in range(1, len(whole)) if whole[at - 1] != "\n"])]
        for damaged in (torn, "", whole.replace("HOST=", "HOTS=")):
            member.config.write_text(damaged)
            await _follow(member)
        member.config.write_text(whole)
        _hang_up(member)
    yield Harm()


@asynccontextmanager
async def tighten_limits(scene: Scene) -> AsyncIterator[Harm]:
    member = scene.chance.choice(scene.stage.primaries)
    member.write_config(RATE_LIMIT_RPS=2, RATE_LIMIT_BURST=2)
    await _follow(member)
    yield Harm(everybody=frozenset({"rate_limited"}))
    member.write_config(RATE_LIMIT_RPS=0)
    _hang_up(member)


@asynccontextmanager
async def move_fallback(scene: Scene) -> AsyncIterator[Harm]:
    """The primaries are sent to the fallback's own address, and back to the relay's: nobody is to notice."""
    stage = scene.stage
    for address in (stage.fallback.grpc, stage.relay.address):
        for member in stage.primaries:
            member.write_config(FALLBACK_URL=f"grpc://{address}")
        await _follow(*stage.primaries)
    yield Harm()


FALLBACK_FAILS = Harm(fallback=True)


@asynccontextmanager
async def refuse_primaries(scene: Scene) -> AsyncIterator[Harm]:
    """The fallback no longer takes the key that the primaries have."""
    fallback = scene.stage.fallback
    keys = fallback.settings["API_KEYS"]
    fallback.write_config(API_KEYS="nobody:" + secrets.token_urlsafe(18))
    await _follow(fallback)
    yield FALLBACK_FAILS
    fallback.write_config(API_KEYS=keys)
    _hang_up(fallback)


@asynccontextmanager
async def kill_fallback(scene: Scene) -> AsyncIterator[Harm]:
    await scene.stage.fallback.kill()
    yield FALLBACK_FAILS
    await scene.stage.fallback.start()


@asynccontextmanager
async def freeze_fallback(scene: Scene) -> AsyncIterator[Harm]:
    scene.stage.fallback.process.send(signal.SIGSTOP)
    yield FALLBACK_FAILS
    scene.stage.fallback.process.send(signal.SIGCONT)


@asynccontextmanager
async def restart_fallback(scene: Scene) -> AsyncIterator[Harm]:
    await scene.stage.fallback.stop()
    await scene.stage.fallback.start()
    yield FALLBACK_FAILS


def model_of_fallback(error: Failure = "", seconds: float = 0.0) -> Bring:
    """The fallback's model fails so at speech, or takes so long. (One that fails at silence too is lost, and ends.)"""

    @asynccontextmanager
    async def bring(scene: Scene) -> AsyncIterator[Harm]:
        fallback = scene.stage.fallback
        assert fallback.script is not None  # noqa: S101
        fallback.act(replace(fallback.script, error=error, seconds=seconds, spares_silence=True))
        yield FALLBACK_FAILS
        fallback.act(fallback.script)

    return bring


def model_of_primary(error: Failure, harm: Harm) -> Bring:
    """A primary's model fails so at speech; the fallback is asked in its place where that helps."""

    @asynccontextmanager
    async def bring(scene: Scene) -> AsyncIterator[Harm]:
        member = scene.chance.choice(scene.stage.primaries)
        assert member.script is not None  # noqa: S101
        member.act(replace(member.script, error=error, spares_silence=True))
        yield harm
        member.act(member.script)

    return bring


def network(weather: Weather) -> Bring:
    """The way from the primaries to the fallback is like this."""

    @asynccontextmanager
    async def bring(scene: Scene) -> AsyncIterator[Harm]:
        await scene.stage.relay.become(weather)
        yield FALLBACK_FAILS
        await scene.stage.relay.become("fine")

    return bring


@asynccontextmanager
async def reset_network(scene: Scene) -> AsyncIterator[Harm]:
    """Every connection to the fallback is reset, once."""
    await scene.stage.relay.reset()
    yield FALLBACK_FAILS


@asynccontextmanager
async def burst(scene: Scene) -> AsyncIterator[Harm]:
    """Ten times the load, of callers who don't pause."""
    stop = asyncio.Event()
    crowd = [
        asyncio.create_task(scene.callers.call_on(way, to, stop, pause=0.0))
        for way, to in TEAM * BURST
        if way in ("pool", "gRPC", "REST")
    ]
    try:
        yield Harm(everybody=frozenset({"overloaded", "deadline_exceeded"}), fallback=True)
    finally:
        stop.set()
        await asyncio.gather(*crowd)


@asynccontextmanager
async def hostile(scene: Scene) -> AsyncIterator[Harm]:
    """Garbage, lies and slow bodies, and everybody else goes on."""
    stop = asyncio.Event()
    crowd = [
        asyncio.create_task(harass(scene.callers, member, scene.chance, stop))
        for member in scene.stage.primaries
        for _ in range(HOSTILE // 2)
    ]
    try:
        yield Harm()
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
    "failing-primary": Fault("fallback", model_of_primary("engine", Harm()), scripted=True),
    "primary-out-of-memory": Fault(
        "fallback", model_of_primary("out_of_memory", Harm(everybody=frozenset({"out_of_memory"}))), scripted=True
    ),
    "slow-network": Fault("fallback", network("slow")),
    "silent-network": Fault("fallback", network("silent")),
    "cut-network": Fault("fallback", network("refused")),
    "reset-network": Fault("fallback", reset_network),
    "nonsense-from-fallback": Fault("fallback", network("nonsense")),
    "burst": Fault("callers", burst),
    "hostile": Fault("callers", hostile),
}
