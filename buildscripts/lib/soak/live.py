"""Stream hours of speech over one live stream, faster than real time, and check memory and lag for growth.

The audio is the sample clips of one language with pauses, repeated. Prints a line per sixth of it: audio per second,
the service's resident memory, and the time from sending the end of an utterance to its final. The exit status is 1 if
memory or lag of the last sixth is well above that of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from buildscripts.lib.load.process_usage import resident
from buildscripts.lib.models.measure_service import service
from buildscripts.lib.models.pins import ROOT
from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.audio import AudioFormat, decode
from stt_server.testing.processes import HOST
from stt_server.testing.services import write_config

RATE = 16000
MESSAGE_SECONDS = 0.1
PARTS = 6
MAX_GROWTH_MIB = 32.0
MAX_LAG_GROWTH_S = 1.0


@dataclass
class Part:
    """One sixth of the run."""

    wall_s: float
    resident_mib: float
    finals: int
    lag_s: float
    """Median over its finals."""


@dataclass
class Run:
    """State of the stream."""

    sent: list[float] = field(default_factory=list)
    """Send time of each message, in seconds."""
    lags: list[float] = field(default_factory=list)
    processed_s: float = 0.0


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/soak live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.0, help="hours of audio (default: 1)")
    parser.add_argument("--speed", type=float, default=0.0, help="of real time; default: 0, as fast as possible")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "whisper-tiny.en-ct2")
    parser.add_argument("--language", default="en", help="language of the sample clips (default: en)")
    arguments = parser.parse_args(argv)
    audio = speech(arguments.language)
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "stt_primary.env"
        keys: dict[str, str | int] = {"CT2_SMALL_PATH": str(arguments.model.resolve()), "HOST": HOST, "DEVICE": "cpu"}
        write_config(
            config, keys | {"COMPUTE_TYPE": "int8", "GRPC_PORT": 0, "HTTP_PORT": "off", "LOG_LEVEL": "WARNING"}
        )
        with service(config) as (pid, target):
            parts = asyncio.run(soak(target, pid, audio, arguments.hours * 3600, arguments.speed))
    print(table(parts, arguments.hours * 3600 / PARTS))
    return verdict(parts)


def speech(language: str) -> bytes:
    """Sample clips with pauses, 16-bit at 16 kHz."""
    clips = sorted((ROOT / "samples" / language).glob("*.wav"))
    if not clips:
        sys.exit(f"no samples in {language!r}; run buildscripts/models samples")
    parts = []
    for clip in clips:
        samples = decode(clip.read_bytes(), AudioFormat(), max_seconds=600)
        parts += [(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), bytes(2 * int(1.5 * RATE))]
    return b"".join(parts)


async def soak(target: str, pid: int, audio: bytes, seconds: float, speed: float) -> list[Part]:
    """Stream `seconds` of audio; measure each sixth of it."""
    run = Run()
    parts: list[Part] = []
    async with grpc.aio.insecure_channel(target) as channel:
        began, counted = time.perf_counter(), 0
        stub = speech_pb2_grpc.SpeechToTextStub(channel)
        async for response in stub.StreamTranscribe(messages(run, audio, seconds, speed)):
            run.processed_s = response.audio_processed.ToNanoseconds() / 1e9
            if response.WhichOneof("event") == "final":
                end = min(len(run.sent) - 1, int(run.processed_s / MESSAGE_SECONDS))
                run.lags.append(time.perf_counter() - run.sent[end])
            if run.processed_s >= seconds * (len(parts) + 1) / PARTS - 10:
                lags, now = run.lags[counted:], time.perf_counter()
                lag = statistics.median(lags) if lags else 0.0
                parts.append(Part(now - began, resident(pid), len(lags), lag))
                began, counted = now, len(run.lags)
    return parts


async def messages(run: Run, audio: bytes, seconds: float, speed: float) -> AsyncIterator[pb.StreamTranscribeRequest]:
    format_ = pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE)
    yield pb.StreamTranscribeRequest(config=pb.StreamConfig(format=format_, interim_results=True))
    size = int(MESSAGE_SECONDS * RATE) * 2
    looped = np.frombuffer(audio[: len(audio) // size * size], dtype=np.uint8).reshape(-1, size)
    began = time.perf_counter()
    for number in range(int(seconds / MESSAGE_SECONDS)):
        if speed:
            await asyncio.sleep(max(0.0, began + number * MESSAGE_SECONDS / speed - time.perf_counter()))
        run.sent.append(time.perf_counter())
        yield pb.StreamTranscribeRequest(audio=looped[number % len(looped)].tobytes())


def table(parts: Sequence[Part], seconds: float) -> str:
    """Markdown table with a line per part of `seconds` of audio."""
    lines = ["| part | audio s / s | resident MiB | finals | lag s |", "|---|---|---|---|---|"]
    for number, part in enumerate(parts, 1):
        rate = seconds / part.wall_s
        lines.append(f"| {number} | {rate:.1f} | {part.resident_mib:.0f} | {part.finals} | {part.lag_s:.2f} |")
    return "\n".join(lines)


def verdict(parts: Sequence[Part]) -> int:
    """Exit status: 1 if memory or lag grew. The first part is excluded: allocators and caches fill up in it."""
    if len(parts) < PARTS:
        print("the stream ended early")
        return 1
    memory = parts[-1].resident_mib - parts[1].resident_mib
    lag = parts[-1].lag_s - parts[1].lag_s
    print(f"memory grew by {memory:.1f} MiB, lag by {lag:.2f} s")
    return int(memory > MAX_GROWTH_MIB or lag > MAX_LAG_GROWTH_S)
