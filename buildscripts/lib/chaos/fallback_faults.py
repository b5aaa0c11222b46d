"""Faults of the fallback and of its connection to the primaries."""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from buildscripts.lib.chaos.context import FaultContext, Inject, reload_config, send_sighup
from buildscripts.lib.chaos.ledger import Impact
from buildscripts.lib.load.relay import NetworkState
from stt_server.testing.scripted_model import Failure

FALLBACK_FAILS = Impact(fallback=True)


@asynccontextmanager
async def refuse_primaries(context: FaultContext) -> AsyncIterator[Impact]:
    """The fallback no longer accepts the primaries' key."""
    fallback = context.deployment.fallback
    keys = fallback.settings["API_KEYS"]
    fallback.write_config(API_KEYS="other:" + secrets.token_urlsafe(18))
    await reload_config(fallback)
    yield FALLBACK_FAILS
    fallback.write_config(API_KEYS=keys)
    send_sighup(fallback)


@asynccontextmanager
async def kill_fallback(context: FaultContext) -> AsyncIterator[Impact]:
    await context.deployment.fallback.kill()
    yield FALLBACK_FAILS
    await context.deployment.fallback.start()


@asynccontextmanager
async def freeze_fallback(context: FaultContext) -> AsyncIterator[Impact]:
    context.deployment.fallback.process.send(signal.SIGSTOP)
    yield FALLBACK_FAILS
    context.deployment.fallback.process.send(signal.SIGCONT)


@asynccontextmanager
async def restart_fallback(context: FaultContext) -> AsyncIterator[Impact]:
    await context.deployment.fallback.stop()
    await context.deployment.fallback.start()
    yield FALLBACK_FAILS


def model_of_fallback(error: Failure = "", seconds: float = 0.0) -> Inject:
    """Make the fallback's model fail at speech, or take `seconds`. It succeeds at silence, or the service would end."""

    @asynccontextmanager
    async def inject(context: FaultContext) -> AsyncIterator[Impact]:
        fallback = context.deployment.fallback
        assert fallback.script is not None  # noqa: S101
        fallback.act(replace(fallback.script, error=error, seconds=seconds, spares_silence=True))
        yield FALLBACK_FAILS
        fallback.act(fallback.script)

    return inject


def network(state: NetworkState) -> Inject:
    """Put the network between primaries and fallback into a state."""

    @asynccontextmanager
    async def inject(context: FaultContext) -> AsyncIterator[Impact]:
        await context.deployment.relay.set_state(state)
        yield FALLBACK_FAILS
        await context.deployment.relay.set_state("normal")

    return inject


@asynccontextmanager
async def reset_network(context: FaultContext) -> AsyncIterator[Impact]:
    """Reset every connection to the fallback, once."""
    await context.deployment.relay.reset()
    yield FALLBACK_FAILS
