"""`bench profile`: processor time of the engine by stage, under a load of short recordings.

Stages are timed from outside. Those that run in the calling thread use that thread's processor clock. The model's
stages run in CTranslate2's threads: the rest of the process's processor time is distributed among them in proportion to
how long their callers waited, and so includes the event loop's and Python's own work.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from unittest import mock

from rich.table import Table

from buildscripts.lib.bench.contenders import in_process, settings_text
from buildscripts.lib.bench.engine import add_common, clips_of
from buildscripts.lib.bench.mixes import MIXES, choose
from buildscripts.lib.bench.report import console, heading
from buildscripts.lib.load.closed_loop import Measurement, Recording, drive
from buildscripts.lib.load.corpus import CorpusError
from stt_server.audio import reader
from stt_server.config import ConfigError
from stt_server.engine import loading, whisper, windows

STAGES = {
    "decoding audio": (reader, "decode_plain"),
    "voice activity": (reader, "split"),
    "features": (windows, "features"),
}
"""Functions, with the module through which they are called."""
MODEL_STAGES = {"encode": "encoder", "detect_language": "language", "generate": "decoder", "align": "aligner"}
"""Methods of CTranslate2's model, and their stages."""


class Stopwatch:
    """Seconds and calls by stage; thread-safe."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    def timed(
        self, stage: str, function: Callable[..., Any], clock: Callable[[], float] = time.thread_time
    ) -> Callable[..., Any]:
        """Wrap `function` so that its time is counted for a stage."""

        def call(*args: Any, **options: Any) -> Any:
            began = clock()
            try:
                return function(*args, **options)
            finally:
                took = clock() - began
                with self._lock:
                    self.seconds[stage] += took
                    self.calls[stage] += 1

        return call


class TimedModel:
    """CTranslate2 model with timed stages."""

    def __init__(self, model: Any, stopwatch: Stopwatch) -> None:
        self._model = model
        for method, stage in MODEL_STAGES.items():
            setattr(self, method, stopwatch.timed(stage, partial(self._call, method), time.perf_counter))

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return getattr(self._model, method)(*args, **options)  # looked up for each call, since copies take turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


async def measure(args: argparse.Namespace, recordings: Sequence[Recording]) -> tuple[list[Measurement], Stopwatch]:
    stopwatch = Stopwatch()
    load = loading.load

    def timed_load(options: Any) -> Any:
        model, sharing = load(options)
        model.model = TimedModel(model.model, stopwatch)
        return model, sharing

    async with AsyncExitStack() as stack:
        stack.enter_context(mock.patch.object(whisper, "load", timed_load))
        for stage, (module, name) in STAGES.items():
            stack.enter_context(mock.patch.object(module, name, stopwatch.timed(stage, getattr(module, name))))
        run = await stack.enter_async_context(in_process(settings_text(args.model, dict(args.set))))

        async def transcribe(recording: Recording) -> str:
            return str(await run(recording, recording.language if args.language == "forced" else None))

        await transcribe(recordings[0])
        stopwatch.seconds.clear()
        stopwatch.calls.clear()
        found = [await drive("ours", transcribe, recordings, args.callers[0], n + 1) for n in range(args.rounds)]
    return found, stopwatch


def table(measurements: Sequence[Measurement], stopwatch: Stopwatch) -> Table:
    """Table of the shares of processor time by stage."""
    cpu = sum(measurement.cpu or 0.0 for measurement in measurements)
    audio = sum(measurement.audio for measurement in measurements)
    out = Table(title="Processor time by stage")
    out.add_column("stage")
    for name in ("share", "ms per second of audio", "calls"):
        out.add_column(name, justify="right")
    for stage, seconds in sorted(processor_seconds(stopwatch, cpu).items(), key=lambda item: -item[1]):
        row = (f"{seconds / cpu:.1%}", f"{1000 * seconds / audio:.1f}", str(stopwatch.calls[stage]))
        out.add_row(stage, *row)
    out.caption = f"{cpu:.1f} s of processor time; {audio:.0f} s of audio"
    return out


def processor_seconds(stopwatch: Stopwatch, cpu: float) -> dict[str, float]:
    """Distribute `cpu` seconds of the whole process among the stages."""
    audio = {stage: stopwatch.seconds[stage] for stage in STAGES}
    waited = {stage: stopwatch.seconds[stage] for stage in stopwatch.seconds if stage not in STAGES}
    scale = (cpu - sum(audio.values())) / sum(waited.values())
    return audio | {stage: seconds * scale for stage, seconds in waited.items()}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, callers="8", rounds=2, clips=32)
    parser.add_argument(
        "--mix", choices=MIXES, default="short", help="under 10 s, 10 to 30 s, minutes, a mixture, or each clip once"
    )
    parser.add_argument("--language", choices=("detected", "forced"), default="detected")
    args = parser.parse_args(argv)
    try:
        recordings = [Recording.of(clip) for clip in choose(clips_of(args), args.mix, args.clips)]
        measurements, stopwatch = asyncio.run(measure(args, recordings))
    except (CorpusError, ConfigError) as error:
        print(f"bench profile: {error}", file=sys.stderr)
        return 1
    out = console()
    out.print(heading("profile", argv), highlight=False, markup=False, soft_wrap=True)
    out.print(table(measurements, stopwatch))
    return 0
