"""Faults of a chaos run that harm the fallback, and the primaries' way to it."""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from buildscripts.lib.chaos.ledger import Harm
from buildscripts.lib.chaos.scene import Bring, Scene, follow, hang_up
from buildscripts.lib.load.relay import Weather
from stt_server.testing.scripted_model import Failure

FALLBACK_FAILS = Harm(fallback=True)


@asynccontextmanager
async def refuse_primaries(scene: Scene) -> AsyncIterator[Harm]:
    """The fallback no longer takes the key that the primaries have."""
    fallback = scene.stage.fallback
    keys = fallback.settings["API_KEYS"]
    fallback.write_config(API_KEYS="nobody:" + secrets.token_urlsafe(18))
    await follow(fallback)
    yield FALLBACK_FAILS
    fallback.write_config(API_KEYS=keys)
    hang_up(fallback)


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
