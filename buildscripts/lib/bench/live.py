"""`bench live`: latency of interims and finals, with several concurrent streams in real time.

The service runs in a process of its own, as operators start it; this process is the client. Each stream sends another
recording, joined from clips with pauses, so that true speech is known: latencies are relative to that, and not to the
speech that the service detected. The endpoint silence, which a final always waits for, is subtracted. Use clips of real
speech with --corpus: samples/ are few, short and read by a machine. With several --ways the report also compares the
processor time of the service by each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from buildscripts.lib.bench.contenders import settings_text
from buildscripts.lib.bench.engine import add_subject, clips_of, model_folder, numbers, progress_bar
from buildscripts.lib.bench.live_load import LiveRecording, live_recordings, stream
from buildscripts.lib.bench.live_report import (
    FINAL_LIMIT_S,
    LiveMeasurement,
    cost_lines,
    error_lines,
    greatest,
    live_table,
)
from buildscripts.lib.bench.live_ways import WAYS, LiveTarget
from buildscripts.lib.bench.plots import plot_live
from buildscripts.lib.bench.report import console, heading
from buildscripts.lib.bench.service import processor_seconds, start_service
from buildscripts.lib.load.corpus import CorpusError
from stt_client import SttClient, SttError
from stt_server.config import ConfigError, parse
from stt_server.testing.processes import ProcessError

STREAMS = "1,2,4,8,16"
STAGGER_S = 0.37
"""Offset between the starts of streams, within `STAGGER_WITHIN_S`: real speakers are not synchronous."""
STAGGER_WITHIN_S = 3.0


@dataclass(frozen=True)
class Served:
    """The service under measurement."""

    client: SttClient
    url: str
    """`http://host:port`."""
    pids: tuple[int, ...]
    """Of the primary, and of the fallback if there is one."""


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_subject(parser, model="tiny.en", rounds=1)
    parser.add_argument("--streams", type=numbers, default=STREAMS, help=f"concurrent streams; default: {STREAMS}")
    parser.add_argument("--fallback", type=model_folder, metavar="MODEL", help="run a fallback with this model")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each stream; default: 60")
    parser.add_argument("--ways", type=_ways, default="grpc", help=f"of {','.join(WAYS)}, in turn; default: grpc")
    parser.add_argument("--endpoint-silence", type=float, default=0.6, help="seconds; default: 0.6")
    parser.add_argument("--language", choices=("detected", "forced"), default="detected")
    parser.add_argument("--wav", type=Path, metavar="DIR", help="also write the recordings as WAV files")
    parser.add_argument("--png", type=Path, help="write a plot (needs the extra `bench`)")
    args = parser.parse_args(argv)
    if args.png and find_spec("matplotlib") is None:
        parser.error("--png needs matplotlib: pip install 'stt-pair[bench]'")
    return args


def _ways(text: str) -> tuple[str, ...]:
    ways = tuple(text.split(","))
    if unknown := [way for way in ways if way not in WAYS]:
        raise argparse.ArgumentTypeError(f"unknown way {unknown[0]!r}: expected {', '.join(WAYS)}")
    return ways


def primary_settings(args: argparse.Namespace, fallback: str) -> str:
    keys: dict[str, object] = {"MAX_STREAMS": max(args.streams), "HTTP_PORT": 0}
    if fallback:
        keys["FALLBACK_URL"] = f"grpc://{fallback}"
    return settings_text(args.model, {**keys, **dict(args.set)})


async def open_service(args: argparse.Namespace, stack: AsyncExitStack) -> Served:
    """Start the primary, after the fallback if there is one."""
    fallback, pids = "", []
    if args.fallback:
        settings = settings_text(args.fallback, {}).replace("CT2_SMALL_PATH", "CT2_MEDIUM_PATH")
        fallback, _, fallback_pid = await start_service(settings, stack, "fallback")
        pids.append(fallback_pid)
    address, http, pid = await start_service(primary_settings(args, fallback), stack)
    client = await stack.enter_async_context(SttClient(address, timeout=None))
    return Served(client, f"http://{http}", (pid, *pids))


async def counters(client: SttClient) -> tuple[int, int]:
    """Numbers of interims sent and thinned since the service started."""
    exposition = (await client.metrics()).exposition
    names = ("stt_stream_interims_total", "stt_stream_interims_thinned_total")
    sent, thinned = (re.search(rf"^{name} (\S+)$", exposition, re.MULTILINE) for name in names)
    return int(float(sent[1])) if sent else 0, int(float(thinned[1])) if thinned else 0


async def measure_one(
    served: Served, recordings: Sequence[LiveRecording], number: int, way: str, args: argparse.Namespace
) -> LiveMeasurement:
    """Stream all recordings at once."""
    language = recordings[0].whole.language if args.language == "forced" else None
    target = LiveTarget(served.client, served.url, args.endpoint_silence, language)
    before, cpu, own = await counters(served.client), _cpu(served.pids), _own_cpu()
    began = time.monotonic()
    traces = await asyncio.gather(
        *(
            stream(WAYS[way], target, each, place * STAGGER_S % STAGGER_WITHIN_S)
            for place, each in enumerate(recordings)
        )
    )
    wall, cpu_after = time.monotonic() - began, _cpu(served.pids)
    after = await counters(served.client)
    return LiveMeasurement(
        way=way,
        streams=len(recordings),
        round=number,
        traces=tuple(traces),
        wall=wall,
        cpu=None if cpu is None or cpu_after is None else cpu_after - cpu,
        client_cpu=_own_cpu() - own,
        interims=after[0] - before[0],
        thinned=after[1] - before[1],
    )


def _cpu(pids: Sequence[int]) -> float | None:
    found = [processor_seconds(pid) for pid in pids]
    return None if None in found else sum(seconds or 0.0 for seconds in found)


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(
    args: argparse.Namespace, recordings: Sequence[LiveRecording], tell: Callable[[str], None] = lambda _: None
) -> tuple[list[LiveMeasurement], list[str]]:
    """Live measurements, and the texts of `Transcribe` for the same recordings."""
    async with AsyncExitStack() as stack:
        served = await open_service(args, stack)
        language = recordings[0].whole.language if args.language == "forced" else None
        tell("transcribing the whole recordings")
        transcribed = [(await served.client.transcribe(each.whole.wav, language=language)).text for each in recordings]
        measurements = []
        for number in range(1, args.rounds + 1):
            for streams in args.streams:
                for way in args.ways:
                    tell(f"round {number}, {streams} streams by {way}")
                    measurements.append(await measure_one(served, recordings[:streams], number, way, args))
    return measurements, transcribed


def write_recordings(folder: Path, recordings: Sequence[LiveRecording]) -> None:
    """Write a WAV file per recording, and a JSON file with its text and its speech spans in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in recordings:
        (folder / f"{each.whole.name}.wav").write_bytes(each.whole.wav)
        truth = {"text": each.whole.text, "speech": each.speech}
        (folder / f"{each.whole.name}.json").write_text(json.dumps(truth, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    args = arguments(argv)
    load = os.getloadavg()[0]
    try:
        parse(primary_settings(args, ""), "primary")
        recordings = live_recordings(clips_of(args), max(args.streams), args.seconds, args.endpoint_silence)
        if args.wav:
            write_recordings(args.wav, recordings)
        with progress_bar() as bar:
            task = bar.add_task("starting", total=None)
            measurements, transcribed = asyncio.run(
                measure(args, recordings, lambda doing: bar.update(task, description=doing))
            )
    except (CorpusError, ConfigError, ProcessError, SttError) as error:
        print(f"bench live: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report(args, heading("live", argv), recordings, measurements, transcribed, load)
    return 0


def report(
    args: argparse.Namespace,
    head: str,
    recordings: Sequence[LiveRecording],
    measurements: Sequence[LiveMeasurement],
    transcribed: Sequence[str],
    load: float,
) -> None:
    out = console()
    out.print(head, highlight=False, markup=False, soft_wrap=True)
    mean = sum(each.whole.seconds for each in recordings) / len(recordings)
    fallback = f"with {args.fallback.name} as fallback" if args.fallback else ""
    title = f"{args.model.name}{fallback}; streams of {mean:.0f} s, language {args.language}, {args.rounds} rounds"
    out.print(f"Load average before the run: {load:.2f}", highlight=False)
    for way in args.ways:
        own = [m for m in measurements if m.way == way]
        out.print(live_table(own, args.endpoint_silence, f"{title}, by {way}"))
        for line in error_lines(own, recordings, transcribed):
            out.print(line, highlight=False)
    for line in cost_lines(measurements):
        out.print(line, highlight=False)
    first = [m for m in measurements if m.way == args.ways[0]]
    most = greatest(first, args.endpoint_silence)
    out.print(
        f"Most streams with p95 of finals under {FINAL_LIMIT_S:g} s after the endpoint silence: {most or 'none'}.",
        highlight=False,
    )
    if args.json:
        found = {
            "run": head.splitlines(),
            "load_average": load,
            "most_streams": most,
            "recordings": [{"text": each.whole.text, "speech": each.speech} for each in recordings],
            "transcribed": list(transcribed),
            "measurements": [asdict(m) for m in measurements],
        }
        args.json.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if args.png:
        plot_live(first, args.endpoint_silence, title, args.png)
