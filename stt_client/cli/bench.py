"""`stt bench`: measure the capacity of services."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from protos.stt.v1 import speech_pb2
from stt_client.cli.connection import add_connection, options_of, positive, servers_of
from stt_client.cli.errors import UsageError, explain
from stt_client.cli.recordings import find
from stt_client.cli.speech_options import add_speech, raw_format_of, speech_of
from stt_client.client import SttClient
from stt_client.errors import SttError
from stt_client.pool import SttPool
from stt_client.request import prepare
from stt_client.results import Status, Transcript
from stt_client.rpc import deadline_in

if TYPE_CHECKING:
    from stt_client.bench.load import Level, Reading
    from stt_client.cli.bench_report import Report

TIMEOUT_S = 60.0
SECONDS = 15.0
"""Default of `--seconds`."""
CALLERS = (1, 2, 4, 8, 16)
WARM_UP = 4
"""Recordings that are sent one after the other before anything is measured."""

_EPILOG = """\
examples:
  stt bench --server stt-1:50051 --server stt-2:50051 recordings/
  stt bench --callers 1,2,4,8,16,32 --seconds 60 --png curve.png --json talk.wav > bench.json
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="measure the capacity of services",
        description="Send recordings with increasing numbers of callers, each with one request at a time. Prints "
        "throughput and latency by number of callers, the knee of the curve, and the settings that it suggests. Exit "
        "status: 1 if a request failed other than by a refusal, or none was answered.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recordings", nargs="+", metavar="FILE|DIR|-", help="recordings, sent in turn")
    parser.add_argument(
        "--callers",
        type=_counts,
        default=CALLERS,
        metavar="N,...",
        help=f"numbers of callers to measure (default: {','.join(map(str, CALLERS))})",
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=SECONDS,
        help=f"time to measure each number of callers (default: {SECONDS:g})",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON object instead of tables")
    parser.add_argument(
        "--png", type=Path, metavar="FILE", help="write a plot of the curve; requires pip install 'stt-pair[bench]'"
    )
    add_speech(parser)
    add_connection(parser, timeout=TIMEOUT_S, timeout_help=f"timeout of each request (default: {TIMEOUT_S:g})")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises UsageError."""
    if arguments.png is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--png requires matplotlib; run pip install 'stt-pair[bench]', or leave it out")
    try:
        report = asyncio.run(_measure(arguments))
        if arguments.png is not None:
            report.write_png(arguments.png)
    except (SttError, OSError) as error:
        print(f"stt: {explain(error)}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(report.as_dict(), ensure_ascii=False, indent=2))
    else:
        report.print()
    return 0 if report.ok else 1


async def _measure(arguments: argparse.Namespace) -> Report:
    # Imported here, so that other commands start without them.
    from stt_client.bench.load import run_level
    from stt_client.cli.bench_report import LevelBar, Report

    servers, options = servers_of(arguments), options_of(arguments)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(SttPool(servers, **options))
        clients = [await stack.enter_async_context(SttClient(server, **options)) for server in servers]
        statuses = await asyncio.gather(*(client.status() for client in clients))
        requests = await _requests(arguments, pool.max_message_bytes)

        async def send(request: speech_pb2.TranscribeRequest) -> Transcript:
            return await pool.send(request, deadline=deadline_in(arguments.timeout))

        async def monitor() -> Reading:
            return await _reading(clients)

        for request in requests[:WARM_UP]:
            await send(request)
        levels: list[Level] = []
        endless = cycle(requests)
        with LevelBar(arguments.callers, arguments.seconds) as bar:
            for callers in arguments.callers:
                bar.begin(callers)
                levels.append(await run_level(send, endless, callers, arguments.seconds, monitor))
                bar.finish(levels[-1])
    return Report(servers, statuses, levels)


async def _requests(arguments: argparse.Namespace, max_bytes: int) -> list[speech_pb2.TranscribeRequest]:
    """Build the messages of all recordings. Raises UsageError, SttError or OSError."""
    found = find(arguments.recordings, raw=bool(arguments.raw_rate))
    if found.problems:
        raise UsageError("; ".join(found.problems))
    encoding, speech = raw_format_of(arguments), speech_of(arguments)
    return [await prepare(each.audio, max_bytes, encoding=encoding, **speech) for each in found.recordings]


async def _reading(clients: Sequence[SttClient]) -> Reading:
    from stt_client.bench.load import Reading

    answers = await asyncio.gather(*(client.status() for client in clients), return_exceptions=True)
    snapshots = [answer.snapshot for answer in answers if isinstance(answer, Status)]
    queues = [snapshot.get("queue") or {} for snapshot in snapshots]
    return Reading(
        in_flight=sum(queue.get("in_flight") or 0 for queue in queues),
        queue_depth=sum(queue.get("depth") or 0 for queue in queues),
        gpus=[gpu for snapshot in snapshots if (gpu := snapshot.get("gpu"))],
    )


def _counts(text: str) -> tuple[int, ...]:
    """Argument type: comma-separated numbers of callers, sorted."""
    counts = sorted({int(part) for part in text.split(",")})
    if counts[0] < 1:
        raise argparse.ArgumentTypeError(f"invalid number {counts[0]}: must be at least 1")
    return tuple(counts)
