"""`bench memory`: what long recordings cost a service in memory, with a scripted model.

Prints the resident size of the service's process, without its decoder processes: idle, and the peaks while one and
while several recordings of an hour are transcribed at once. Uploads are headerless G.711 mu-law at 8 kHz.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stt_client import AudioFormat, SttClient
from stt_server.audio import decode
from stt_server.audio.headerless import MULAW_TO_LINEAR
from stt_server.testing.audio_samples import CONTAINER
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess
from stt_server.testing.services import running as running_processes

RATE = 8000
MULAW = AudioFormat("mulaw", RATE)


def recording(seconds: float) -> bytes:
    """Speech without long pauses, as mu-law."""
    clip = decode(SPEECH.read_bytes(), CONTAINER, max_seconds=60)[::2]
    levels = np.sort(MULAW_TO_LINEAR)
    order = np.argsort(MULAW_TO_LINEAR).astype(np.uint8)
    nearest = np.searchsorted(levels, clip * 32767).clip(0, 255)
    return np.resize(order[nearest], round(seconds * RATE)).tobytes()


def peak_mib(process: ServiceProcess) -> float:
    """Peak of the resident size since the last call, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return int(kib) / 1024


async def transcribe(target: str, audio: bytes, count: int) -> None:
    async with SttClient(target, timeout=None, max_message_bytes=256 << 20) as client:
        calls = (client.transcribe(audio, encoding=MULAW, separate_channels=False) for _ in range(count))
        await asyncio.gather(*calls)


def measure(folder: Path, seconds: float, counts: Sequence[int]) -> list[tuple[str, float]]:
    """Resident MiB of a service, by what it does."""
    process = ServiceProcess("primary", folder, {"MAX_UPLOAD_MB": 64, "MAX_QUEUE": 64}, Script(text="a b c d e"))
    audio = recording(seconds)
    rows = []
    with running_processes(process):
        asyncio.run(transcribe(process.target, audio[: 10 * RATE], 2))  # what is loaded with the first request
        peak_mib(process)
        rows.append(("idle", process.resident_mib()))
        for count in counts:
            asyncio.run(transcribe(process.target, audio, count))
            rows.append((f"{count} at once, peak", peak_mib(process)))
        rows.append(("afterwards", process.resident_mib()))
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench memory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="length of a recording (default: 3600)")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 8], help="recordings at once (default: 1 2 8)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.seconds, options.counts)
    idle = rows[0][1]
    print(f"| recordings of {options.seconds:g} s | resident MiB | above idle |\n|---|---|---|")
    for name, mib in rows:
        print(f"| {name} | {mib:.0f} | {mib - idle:.0f} |")
    return 0
