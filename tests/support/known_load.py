"""A real pair under a load whose counts are known, scraped by Prometheus with two kinds of labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from stt_client import SttClient
from stt_client.errors import UnsupportedAudio
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.support.prometheus_server import Labels, PrometheusServer, prometheus
from tests.support.services import speech

KEY, BETWEEN = "key-of-the-callers", "key-of-the-primary"
SURE, UNSURE, BURST, BROKEN, UNKNOWN = 20, 10, 8, 4, 3
"""Requests: that the primary keeps; that it escalates; at the same time, which are batched; with broken audio; to an
unknown path."""
ANSWERED = SURE + UNSURE + BURST
PRIMARY_S, FALLBACK_S = 0.05, 0.15
"""Inference time of a clip, in a batch too."""

WORLDS: Mapping[str, Callable[[str], Labels]] = {
    "static": lambda role: {"job": f"stt-{role}"},
    "operator": lambda role: {
        "job": f"speech/stt-{role}",
        "namespace": "speech",
        "pod": f"stt-{role}-5d8f7-x2x4z",
        "container": f"stt-{role}",
        "endpoint": "http",
        "service": f"stt-{role}-pods",
    },
}
"""Labels of a static configuration, and those that Prometheus Operator sets."""


@dataclass
class Load:
    """What the load generator knows."""

    primary: str
    """Instance."""
    fallback: str
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answered request, as its caller sees them."""
    clip_s: float = 0.0
    """Length of each recording, seconds."""


@contextmanager
def loaded_pair(folder: Path) -> Iterator[tuple[Load, dict[str, PrometheusServer]]]:
    """Run a pair and one Prometheus for each of `WORLDS`; yield after the load and the scrapes that have seen it."""
    keys: dict[str, object] = {"API_KEYS": f"pair:{BETWEEN}", "MAX_CONCURRENCY": 1}
    fallback = ServiceProcess("fallback", folder / "fallback", keys, Script(seconds=FALLBACK_S))
    with ExitStack() as stack:
        stack.enter_context(running(fallback))
        keys = {"API_KEYS": f"web:{KEY}", "MAX_CONCURRENCY": 1, "FALLBACK_URL": f"grpc://{fallback.target}"}
        script = Script(seconds=PRIMARY_S, unsure_of="unsure")
        primary = ServiceProcess("primary", folder / "primary", {**keys, "FALLBACK_API_KEY": BETWEEN}, script)
        stack.enter_context(running(primary))
        load = Load(primary.url.removeprefix("http://"), fallback.url.removeprefix("http://"))
        servers = {
            name: stack.enter_context(
                prometheus(folder / name, [(load.primary, labels("primary")), (load.fallback, labels("fallback"))])
            )
            for name, labels in WORLDS.items()
        }
        for server in servers.values():
            server.wait_scrapes(2)
        asyncio.run(_generate(primary, load))
        for server in servers.values():
            server.wait_scrapes(3)
        yield load, servers


async def _generate(primary: ServiceProcess, load: Load) -> None:
    loop = asyncio.get_running_loop()
    async with SttClient(primary.target, api_key=KEY) as client:

        async def one(prompt: str) -> None:
            began = loop.time()
            transcript = await client.transcribe(speech(), prompt=prompt)
            load.latencies.append(loop.time() - began)
            load.clip_s = transcript.audio_duration

        for _ in range(SURE):
            await one("")
        for _ in range(UNSURE):
            await one("unsure")
        await asyncio.gather(*(one("") for _ in range(BURST)))
        for _ in range(BROKEN):
            with pytest.raises(UnsupportedAudio):
                await client.transcribe(b"broken" * 100)
    async with httpx.AsyncClient() as http:
        for _ in range(UNKNOWN):
            assert (await http.get(f"{primary.url}/no/such/path")).status_code == httpx.codes.NOT_FOUND
