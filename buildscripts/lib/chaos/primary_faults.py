"""Faults of the primaries, their configuration, and the gateway."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from buildscripts.lib.chaos.context import FaultContext, Inject, reload_config, send_sighup
from buildscripts.lib.chaos.deployment import Member
from buildscripts.lib.chaos.ledger import Impact
from buildscripts.lib.load.process_usage import descendants
from stt_server.testing.scripted_model import Failure

EXIT_S = 20.0
"""Longest time from a device's failure to the end of the process, including its drain."""


def _down(member: Member, *, cuts: bool, pool: frozenset[str] = frozenset()) -> Impact:
    return Impact(down=frozenset({member.name}), cuts=cuts, pool=pool)


@asynccontextmanager
async def kill_primary(context: FaultContext) -> AsyncIterator[Impact]:
    member = context.chance.choice(context.deployment.primaries)
    await member.kill()
    yield _down(member, cuts=True)
    await member.start()


@asynccontextmanager
async def freeze_primary(context: FaultContext) -> AsyncIterator[Impact]:
    """Stop the process: connections stay open, requests wait until their deadline."""
    member = context.chance.choice(context.deployment.primaries)
    member.process.send(signal.SIGSTOP)
    yield _down(member, cuts=True, pool=frozenset({"deadline_exceeded"}))
    member.process.send(signal.SIGCONT)


@asynccontextmanager
async def roll_primaries(context: FaultContext) -> AsyncIterator[Impact]:
    """Restart both, one after the other; callers of the pool must not notice."""
    a, b = context.deployment.primaries
    for member in (a, b):
        await member.stop()
        await member.start()
    yield Impact(down=frozenset({a.name, b.name}))


@asynccontextmanager
async def kill_decoder(context: FaultContext) -> AsyncIterator[Impact]:
    """Kill the decoder workers; files being decoded fail."""
    member = context.chance.choice(context.deployment.primaries)
    for pid in descendants(member.process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield Impact(containers=frozenset({"unsupported_audio"}))


@asynccontextmanager
async def poison_primary(context: FaultContext) -> AsyncIterator[Impact]:
    """Make the device fail permanently; the primary must end by itself, for a supervisor to restart it."""
    member = context.chance.choice(context.deployment.primaries)
    assert member.script is not None  # noqa: S101
    member.act(replace(member.script, error="cuda"))
    await member.wait_exit(EXIT_S)
    yield replace(_down(member, cuts=False), silences=True)
    await member.start()


def model_of_primary(error: Failure, impact: Impact) -> Inject:
    """Make a primary's model fail at speech; the fallback answers where that helps."""

    @asynccontextmanager
    async def inject(context: FaultContext) -> AsyncIterator[Impact]:
        member = context.chance.choice(context.deployment.primaries)
        assert member.script is not None  # noqa: S101
        member.act(replace(member.script, error=error, spares_silence=True))
        yield impact
        member.act(member.script)

    return inject


@asynccontextmanager
async def kill_gateway(context: FaultContext) -> AsyncIterator[Impact]:
    await context.deployment.gateway.kill()
    yield _down(context.deployment.gateway, cuts=True)
    await context.deployment.gateway.start()


@asynccontextmanager
async def restart_gateway(context: FaultContext) -> AsyncIterator[Impact]:
    await context.deployment.gateway.stop()
    await context.deployment.gateway.start()
    yield _down(context.deployment.gateway, cuts=False)


@asynccontextmanager
async def rotate_keys(context: FaultContext) -> AsyncIterator[Impact]:
    """Replace the callers' key in the three steps of a rotation; callers must not notice."""
    deployment, old, new = context.deployment, context.deployment.key, secrets.token_urlsafe(18)
    for keys, key in ((f"load:{old},next:{new}", new), (f"load:{new}", new)):
        for member in deployment.primaries:
            member.write_config(API_KEYS=keys, WYOMING_API_KEY=key)
        await reload_config(*deployment.primaries)
        deployment.key = key
        await context.callers.wait_settled()  # no request with the old key is in flight now
    yield Impact()


@asynccontextmanager
async def damage_config(context: FaultContext) -> AsyncIterator[Impact]:
    """Truncate, empty and misspell the configuration file; nothing must change."""
    for member in context.deployment.primaries:
        whole = member.config.read_text()
        torn = whole[: context.chance.choice([at for at in range(1, len(whole)) if whole[at - 1] != "\n"])]
        for damaged in (torn, "", whole.replace("HOST=", "HOTS=")):
            member.config.write_text(damaged)
            await reload_config(member)
        member.config.write_text(whole)
        send_sighup(member)
    yield Impact()


@asynccontextmanager
async def tighten_limits(context: FaultContext) -> AsyncIterator[Impact]:
    member = context.chance.choice(context.deployment.primaries)
    member.write_config(RATE_LIMIT_RPS=2, RATE_LIMIT_BURST=2)
    await reload_config(member)
    yield Impact(everybody=frozenset({"rate_limited"}))
    member.write_config(RATE_LIMIT_RPS=0)
    send_sighup(member)


@asynccontextmanager
async def move_fallback(context: FaultContext) -> AsyncIterator[Impact]:
    """Point the primaries at the fallback's own address and back at the relay's; callers must not notice."""
    deployment = context.deployment
    for address in (deployment.fallback.grpc, deployment.relay.address):
        for member in deployment.primaries:
            member.write_config(FALLBACK_URL=f"grpc://{address}")
        await reload_config(*deployment.primaries)
    yield Impact()
