"""`models measure --service NAME...`: start-up time and memory of a primary with each model."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from buildscripts.lib.load.process_usage import resident
from buildscripts.lib.models.pins import ROOT, FetchError
from stt_server.testing.processes import HOST, ProcessError
from stt_server.testing.services import installed_service, write_config

SAMPLES = ROOT / "samples"
CALLERS = 8


@dataclass(frozen=True)
class ServiceCosts:
    name: str
    ready_s: float
    """From the start of the process to its ready line."""
    ready_mib: float
    """Resident when ready."""
    first_mib: float
    """Resident after `CALLERS` concurrent requests."""
    later_mib: tuple[float, ...]
    """Resident after each further group of requests."""


def measure_services(models: Sequence[tuple[str, Path]], requests: Sequence[int]) -> list[ServiceCosts]:
    """Start a primary with each (name, folder) in turn.

    Args:
        requests: number of requests before each further memory reading.

    Raises:
        FetchError: a service did not start, or the samples are missing.
    """
    recordings = sorted(SAMPLES.glob("*/*.wav"))
    if not recordings:
        raise FetchError("measuring a service needs recordings; run buildscripts/models samples")
    return [_measure(name, folder, recordings, requests) for name, folder in models]


def _measure(name: str, folder: Path, recordings: Sequence[Path], requests: Sequence[int]) -> ServiceCosts:
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "stt_primary.env"
        keys: dict[str, str | int] = {"CT2_SMALL_PATH": str(folder.resolve()), "HOST": HOST, "DEVICE": "cpu"}
        write_config(
            config,
            keys
            | {"COMPUTE_TYPE": "int8", "GRPC_PORT": 0, "HTTP_PORT": 0, "LOG_LEVEL": "WARNING", "RATE_LIMIT_RPS": 0},
        )
        began = time.perf_counter()
        with service(config) as (pid, target):
            ready_s = time.perf_counter() - began
            sizes = [resident(pid)]
            for count in (CALLERS, *requests):
                asyncio.run(_ask(target, list(islice(cycle(recordings), count))))
                sizes.append(resident(pid))
    return ServiceCosts(name, ready_s, sizes[0], sizes[1], tuple(sizes[2:]))


@contextmanager
def service(config: Path) -> Iterator[tuple[int, str]]:
    """Run a primary; yield its process id and its gRPC address."""
    process = installed_service("primary", config, config.with_suffix(".log"))
    try:
        ready = process.start()
        yield process.pid, str(ready.grpc)
    except ProcessError as error:
        raise FetchError(str(error)) from None
    finally:
        process.stop()


async def _ask(target: str, recordings: Sequence[Path]) -> None:
    """Transcribe recordings, `CALLERS` at a time."""
    from stt_client import SttClient

    left = iter(recordings)
    async with SttClient(target) as client:

        async def caller() -> None:
            for recording in left:
                await client.transcribe(recording, timeout=120)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


def service_table(costs: Sequence[ServiceCosts], requests: Sequence[int]) -> str:
    """Markdown table with a line per model; `requests` as measured."""
    later = "".join(f" after {count} more |" for count in requests)
    lines = [
        f"| model | ready after s | resident MiB | after {CALLERS} requests at once |{later}",
        "|" + "---|" * (4 + len(requests)),
    ]
    for cost in costs:
        sizes = " | ".join(f"{size:.0f}" for size in (cost.ready_mib, cost.first_mib, *cost.later_mib))
        lines.append(f"| {cost.name} | {cost.ready_s:.1f} | {sizes} |")
    return "\n".join(lines)
