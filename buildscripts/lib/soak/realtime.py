"""Hold many idle Realtime sessions and a few that talk in real time, and check memory and descriptors for growth.

The talking sessions repeat the sample clips of one language, with pauses and server VAD; the idle ones send nothing and
answer pings. Prints a line per sixth of the run. The exit status is 1 if the service grew from the second sixth to the
last, a session was closed, or an idle session does not answer in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from buildscripts.lib.bench.contenders import settings_text
from buildscripts.lib.bench.service import start_service
from buildscripts.lib.load.plain_clients import CHUNK_S, RATE, ApiError, NoResponse
from buildscripts.lib.load.process_usage import usage
from buildscripts.lib.load.realtime_client import COMPLETED, realtime_events
from buildscripts.lib.models.pins import ROOT
from buildscripts.lib.soak.live import MAX_GROWTH_MIB, PARTS, speech

MIN_MINUTES_FOR_MEMORY = 10.0
"""Shortest run whose memory is judged: allocators and caches fill up in the first minutes."""
MAX_DESCRIPTORS = 8


@dataclass(frozen=True)
class Part:
    """One sixth of the run."""

    resident_mib: float
    """Smallest of its readings: a batch of long utterances takes and returns memory."""
    descriptors: int
    items: int
    """Transcribed so far."""


@dataclass
class Talk:
    """What the talking sessions have brought."""

    items: int = 0
    problems: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/soak realtime", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--idle", type=int, default=100, help="idle sessions; default: 100")
    parser.add_argument("--talking", type=int, default=4, help="talking sessions; default: 4")
    parser.add_argument("--minutes", type=float, default=30.0, help="default: 30")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "whisper-tiny.en-ct2")
    parser.add_argument("--language", default="en", help="language of the sample clips; default: en")
    arguments = parser.parse_args(argv)
    parts, problems = asyncio.run(soak(arguments, speech(arguments.language)))
    print(table(parts))
    problems += growth(parts, arguments.minutes)
    judged = "" if arguments.minutes >= MIN_MINUTES_FOR_MEMORY else "; too short to judge memory"
    print("\n".join(problems) or f"nothing grew, and every session lived{judged}")
    return int(bool(problems))


async def soak(arguments: argparse.Namespace, audio: bytes) -> tuple[list[Part], list[str]]:
    """Measure each sixth of the run; return the measurements and the problems."""
    talk = Talk()
    async with AsyncExitStack() as stack:
        settings = settings_text(arguments.model, {"HTTP_PORT": 0, "MAX_STREAMS": arguments.talking})
        _, http, pid = await start_service(settings, stack)
        idle = [await stack.enter_async_context(connect(f"ws://{http}/v1/realtime")) for _ in range(arguments.idle)]
        end = time.monotonic() + arguments.minutes * 60
        talking = [
            asyncio.create_task(_talk(f"http://{http}", _repeated(audio, number, end), talk))
            for number in range(arguments.talking)
        ]
        sixth_s = arguments.minutes * 60 / PARTS
        parts = [await _part(pid, end - later * sixth_s, talk) for later in reversed(range(PARTS))]
        await asyncio.gather(*talking)
        silent = sum(await asyncio.gather(*(_is_silent(socket) for socket in idle)))
    return parts, [*talk.problems, *([f"{silent} idle sessions do not answer"] if silent else [])]


async def _talk(url: str, pcm: AsyncIterator[bytes], talk: Talk) -> None:
    try:
        async with aclosing(realtime_events(url, pcm, {}, {})) as events:
            async for event in events:
                talk.items += event["type"] == COMPLETED
    except (ApiError, NoResponse, OSError) as error:
        talk.problems.append(f"a talking session ended: {error!r}")


async def _repeated(audio: bytes, number: int, end: float) -> AsyncIterator[bytes]:
    """The audio again and again in real time until `end`, each session from another place."""
    size = int(CHUNK_S * RATE) * 2
    pieces = [audio[at : at + size] for at in range(0, len(audio) // size * size, size)]
    at, due = number * len(pieces) // 7, time.monotonic()
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield pieces[at % len(pieces)]
        at, due = at + 1, due + CHUNK_S


async def _part(pid: int, until: float, talk: Talk) -> Part:
    """Watch the service until then, in readings a second apart."""
    readings = [usage(pid)]
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(1.0, left))
        readings.append(usage(pid))
    return Part(min(reading.resident_mib for reading in readings), readings[-1].descriptors, talk.items)


async def _is_silent(socket: ClientConnection) -> bool:
    """Whether a session that was idle does not answer. Its first message is `session.created`."""
    try:
        await socket.send('{"type": "nothing"}')
        while json.loads(await asyncio.wait_for(socket.recv(), 30))["type"] != "error":
            pass
    except Exception as error:
        print(f"idle session: {error!r}", file=sys.stderr)
        return True
    return False


def table(parts: Sequence[Part]) -> str:
    """Markdown table with a line per part."""
    lines = ["| part | resident MiB | descriptors | items |", "|---|---|---|---|"]
    for number, part in enumerate(parts, 1):
        lines.append(f"| {number} | {part.resident_mib:.1f} | {part.descriptors} | {part.items} |")
    return "\n".join(lines)


def growth(parts: Sequence[Part], minutes: float) -> list[str]:
    """A line for each resource that grew from the second part to the last; caches fill up in the first."""
    found = []
    memory = parts[-1].resident_mib - parts[1].resident_mib
    if minutes >= MIN_MINUTES_FOR_MEMORY and memory > MAX_GROWTH_MIB:
        found.append(f"memory grew by {memory:.1f} MiB")
    if (descriptors := parts[-1].descriptors - parts[1].descriptors) > MAX_DESCRIPTORS:
        found.append(f"descriptors grew by {descriptors}")
    return found
