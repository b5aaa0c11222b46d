"""Faults of a chaos run that harm the primaries, their configurations, and the gateway alone."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from buildscripts.lib.chaos.ledger import Harm
from buildscripts.lib.chaos.scene import Bring, Scene, follow, hang_up
from buildscripts.lib.chaos.stage import Member
from buildscripts.lib.load.process_usage import descendants
from stt_server.testing.scripted_model import Failure

LOST_S = 20.0
"""From a device's failure to the end of the process that has it: a drain is in it."""


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
    yield replace(_down(member, cuts=False), silences=True)
    await member.start()


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


@asynccontextmanager
async def rotate_keys(scene: Scene) -> AsyncIterator[Harm]:
    """The callers' key is replaced by another, in the three steps of a rotation: nobody is to notice."""
    stage, old, new = scene.stage, scene.stage.key, secrets.token_urlsafe(18)
    for keys, key in ((f"load:{old},next:{new}", new), (f"load:{new}", new)):
        for member in stage.primaries:
            member.write_config(API_KEYS=keys)
        await follow(*stage.primaries)
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
            await follow(member)
        member.config.write_text(whole)
        hang_up(member)
    yield Harm()


@asynccontextmanager
async def tighten_limits(scene: Scene) -> AsyncIterator[Harm]:
    member = scene.chance.choice(scene.stage.primaries)
    member.write_config(RATE_LIMIT_RPS=2, RATE_LIMIT_BURST=2)
    await follow(member)
    yield Harm(everybody=frozenset({"rate_limited"}))
    member.write_config(RATE_LIMIT_RPS=0)
    hang_up(member)


@asynccontextmanager
async def move_fallback(scene: Scene) -> AsyncIterator[Harm]:
    """The primaries are sent to the fallback's own address, and back to the relay's: nobody is to notice."""
    stage = scene.stage
    for address in (stage.fallback.grpc, stage.relay.address):
        for member in stage.primaries:
            member.write_config(FALLBACK_URL=f"grpc://{address}")
        await follow(*stage.primaries)
    yield Harm()
