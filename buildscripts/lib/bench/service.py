"""`bench service`: cost of the service over gRPC, REST and OpenAI's API, relative to the engine in process.

The service runs as operators start it; this process is the client. The engine runs in a third process, which has the
service's pipeline and no ports. They alternate, so that each has all cores. The client's own
processor time counts as the service's. All decode the same WAV files. With more callers than workers the engine is
saturated, and the cost is the lost throughput; processor time, which other load affects less, is printed beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
from rich.table import Table

from buildscripts.lib.bench.contenders import in_process, settings_text
from buildscripts.lib.bench.engine import add_common, clips_of, progress_bar, turns, write_json
from buildscripts.lib.bench.measuring_process import MeasuringProcess
from buildscripts.lib.bench.mixes import MIXES, choose
from buildscripts.lib.bench.report import Spread, console, heading, ratios
from buildscripts.lib.load.closed_loop import Measurement, Recording, Transcribe, drive
from buildscripts.lib.load.corpus import CorpusError
from stt_client import SttClient
from stt_server.audio import AudioFormat
from stt_server.config import ConfigError, Role, parse
from stt_server.testing.load import percentile
from stt_server.testing.processes import ProcessError
from stt_server.testing.services import installed_service

WAYS = ("engine", "grpc", "rest", "openai")
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Load:
    """Recordings to transcribe, and whether their language is forced."""

    recordings: list[Recording]
    forced: bool

    def language(self, recording: Recording) -> str | None:
        return recording.language if self.forced else None


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench service", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, callers="8", rounds=7, clips=32)
    parser.add_argument("--mix", choices=MIXES, default="short", help="under 10 s, 10 to 30 s, minutes, or a mixture")
    parser.add_argument("--language", choices=("detected", "forced"), default="detected")
    return parser.parse_args(argv)


def serve_engine(pipe: Connection, settings: str, load: Load) -> None:
    """Measure the engine, loaded with `settings`, for each (callers, round) from `pipe`, until None arrives."""
    asyncio.run(_serve_engine(pipe, settings, load))


async def _serve_engine(pipe: Connection, settings: str, load: Load) -> None:
    loop = asyncio.get_running_loop()
    async with in_process(settings, AudioFormat("container")) as run:

        async def transcribe(recording: Recording) -> str:
            return str(await run(recording, load.language(recording)))

        await transcribe(min(load.recordings, key=lambda recording: recording.seconds))
        while (order := await loop.run_in_executor(None, pipe.recv)) is not None:
            callers, number = order
            pipe.send(await drive("engine", transcribe, load.recordings, callers, number))


def processor_seconds(pid: int) -> float | None:
    """Processor time of a process so far; None if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class ServedBy:
    """Measures one transport to a service from this process."""

    def __init__(self, way: str, transcribe: Transcribe, pid: int, load: Load) -> None:
        self._way = way
        self._transcribe = transcribe
        self._pid = pid
        self._load = load

    async def measure(self, callers: int, number: int) -> Measurement:
        before = self._cpu()
        found = await drive(self._way, self._transcribe, self._load.recordings, callers, number)
        after = self._cpu()
        return replace(found, cpu=after - before if after is not None and before is not None else None)

    def _cpu(self) -> float | None:
        """Processor seconds of client and service."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        service = processor_seconds(self._pid)
        return None if service is None else usage.ru_utime + usage.ru_stime + service


async def start_service(settings: str, stack: AsyncExitStack, role: Role = "primary") -> tuple[str, str, int]:
    """Start a service as operators do, until `stack` is closed; return its gRPC and HTTP address and its process id."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    config = folder / f"stt_{role}.env"
    config.write_text(settings)
    service = installed_service(role, config, folder / "log")
    stack.push_async_callback(asyncio.to_thread, service.stop)
    service.spawn()
    ready = await asyncio.to_thread(service.wait_ready)
    return ready.grpc or "", ready.http or "", service.pid


async def open_ways(
    args: argparse.Namespace, load: Load, stack: AsyncExitStack
) -> dict[str, ServedBy | MeasuringProcess]:
    keys = dict(args.set)
    engine = await stack.enter_async_context(MeasuringProcess(serve_engine, settings_text(args.model, keys), load))
    grpc_address, http_address, pid = await start_service(settings_text(args.model, {"HTTP_PORT": 0, **keys}), stack)
    client = await stack.enter_async_context(SttClient(grpc_address, timeout=_TIMEOUT_S))
    limits = httpx.Limits(max_connections=max(args.callers), max_keepalive_connections=max(args.callers))
    http = await stack.enter_async_context(
        httpx.AsyncClient(base_url=f"http://{http_address}", timeout=_TIMEOUT_S, limits=limits)
    )
    files = {id(recording): recording.wav for recording in load.recordings}

    async def grpc(recording: Recording) -> str:
        found = await client.transcribe(files[id(recording)], language=load.language(recording))
        return found.text

    def over_http(path: str, part: str) -> Transcribe:
        async def post(recording: Recording) -> str:
            language = load.language(recording)
            upload = {part: ("a.wav", files[id(recording)], "audio/wav")}
            response = await http.post(path, files=upload, data={"language": language} if language else {})
            return str(response.raise_for_status().json()["text"])

        return post

    ways = {
        "grpc": grpc,
        "rest": over_http("/v1/transcribe", "audio"),
        "openai": over_http("/v1/audio/transcriptions", "file"),
    }
    for way in ways.values():
        await way(min(load.recordings, key=lambda recording: recording.seconds))
    return {"engine": engine, **{name: ServedBy(name, way, pid, load) for name, way in ways.items()}}


async def measure(args: argparse.Namespace, load: Load) -> list[Measurement]:
    plan = list(turns(WAYS, args.callers, args.rounds))
    async with AsyncExitStack() as stack:
        with progress_bar() as bar:
            task = bar.add_task("starting", total=len(plan))
            ways = await open_ways(args, load, stack)
            measurements = []
            for number, callers, name in plan:
                bar.update(task, description=f"round {number}, callers {callers}, {name}")
                measurements.append(await ways[name].measure(callers, number))
                bar.advance(task)
    return sorted(measurements, key=lambda m: (m.callers, WAYS.index(m.contender), m.round))


def cost_table(measurements: Sequence[Measurement], callers: int, title: str) -> Table:
    """Table of the cost of each transport, in percent of the engine's figures; positive is slower."""
    own = [m for m in measurements if m.callers == callers]
    table = Table(title=title, title_justify="left")
    columns = ("", "audio s / s", "p50 s", "p95 s", "cost, time %", "cost, processor %", "same texts as engine")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for way in WAYS:
        mine = [m for m in own if m.contender == way]
        latencies = [latency for m in mine for latency in m.latencies]
        row = [way, f"{Spread.of(m.throughput for m in mine):.1f}"]
        row += [f"{percentile(latencies, share):.3f}" for share in (0.5, 0.95)]
        table.add_row(*row, *(_costs(own, way, callers) if way != "engine" else ()))
    return table


def _costs(own: Sequence[Measurement], way: str, callers: int) -> list[str]:
    time_cost = as_percent(ratios(own, way, "engine", callers, lambda m: m.wall))
    timed = all(m.cpu for m in own)
    processor = as_percent(ratios(own, way, "engine", callers, lambda m: m.cpu or 0.0)) if timed else None
    texts = {m.round: m.texts for m in own if m.contender == "engine"}
    pairs = [pair for m in own if m.contender == way for pair in zip(m.texts, texts[m.round], strict=True)]
    same = sum(text == engines for text, engines in pairs) / len(pairs)
    return [f"{time_cost:+.1f}", f"{processor:+.1f}" if processor else "", f"{same:.0%}"]


def over_rest(measurements: Sequence[Measurement], callers: int) -> str:
    """What OpenAI's API costs beside `/v1/transcribe`, in a sentence."""
    own = [m for m in measurements if m.callers == callers]
    costs = [f"time {as_percent(ratios(own, 'openai', 'rest', callers, lambda m: m.wall)):+.1f} %"]
    if all(m.cpu for m in own):
        costs.append(f"processor {as_percent(ratios(own, 'openai', 'rest', callers, lambda m: m.cpu or 0.0)):+.1f} %")
    return f"openai over rest: {', '.join(costs)}"


def as_percent(spread: Spread) -> Spread:
    """Ratios as percentages over 1."""
    return Spread(*(100 * (value - 1) for value in (spread.median, spread.least, spread.most)))


def main(argv: Sequence[str]) -> int:
    args = arguments(argv)
    try:
        parse(settings_text(args.model, dict(args.set)), "primary")
        chosen = choose(clips_of(args), args.mix, args.clips)
        load = Load([Recording.of(clip) for clip in chosen], args.language == "forced")
        measurements = asyncio.run(measure(args, load))
    except (CorpusError, ConfigError, ProcessError) as error:
        print(f"bench service: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    head = heading("service", argv)
    out = console()
    out.print(head, highlight=False, markup=False, soft_wrap=True)
    seconds = sum(recording.seconds for recording in load.recordings)
    mix = f"{len(load.recordings)} {args.mix} clips, {seconds:.0f} s, language {args.language}, {args.rounds} rounds"
    for callers in args.callers:
        out.print(cost_table(measurements, callers, f"{callers} caller{'s' * (callers > 1)}; {mix}"))
        out.print(over_rest(measurements, callers), highlight=False)
    out.print("Median over the rounds (minimum to maximum). The client's own cost is included.", highlight=False)
    if args.json:
        write_json(args.json, head, load.recordings, measurements)
    return 0
