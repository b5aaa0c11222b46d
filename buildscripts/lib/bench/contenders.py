"""Contenders of the benchmarks: our engine, and faster-whisper in several configurations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from faster_whisper import BatchedInferencePipeline, WhisperModel

from buildscripts.lib.bench.measuring_process import MeasuringProcess
from buildscripts.lib.load.closed_loop import Measurement, Recording, Transcribe, drive
from stt_server.audio import AudioFormat
from stt_server.backend import Backend
from stt_server.config import parse
from stt_server.engine.types import DecodeOptions
from stt_server.lifecycle.whisper import load_whisper
from stt_server.request import Answer, Request, Upload

COMPUTE_TYPE = "int8"
_PCM = AudioFormat("linear16", 16_000)

Answering = Callable[[Recording, str | None], Awaitable[Answer]]
"""Answer to a recording in a language; None: detected."""


@dataclass(frozen=True)
class FasterWhisper:
    """One configuration of faster-whisper."""

    what: str
    model: Mapping[str, int]
    """Further arguments of `WhisperModel`."""
    call: Mapping[str, Any]
    """Further arguments of `transcribe`."""
    forced: bool = False
    """Force the language, whatever --language says."""
    batched: bool = False


def theirs(cores: int) -> dict[str, FasterWhisper]:
    """Configurations of faster-whisper by name."""
    best = {"beam_size": 1, "without_timestamps": True, "temperature": 0, "condition_on_previous_text": False}
    one_by_one = {"num_workers": cores, "cpu_threads": 1}
    # docs/engine.md has the grid from which these were chosen.
    complete = {"beam_size": 2, "temperature": 0, "condition_on_previous_text": False}
    greedy_batches = {"beam_size": 1, "temperature": 0, "batch_size": 8}
    return {
        "defaults": FasterWhisper("faster-whisper at its defaults", {}, {}),
        "handbook": FasterWhisper("cpu_threads=2, beam_size=1", {"cpu_threads": 2}, {"beam_size": 1}),
        "best": FasterWhisper(
            f"fastest for this load: {cores} single-threaded workers, greedy",
            one_by_one,
            best,
            forced=True,
        ),
        "complete": FasterWhisper(
            f"fastest with all words on 10 to 30 s: {cores} single-threaded workers, 2 beams",
            one_by_one,
            complete,
            forced=True,
        ),
        "batched": FasterWhisper("BatchedInferencePipeline at its defaults", {}, {}, batched=True),
        "batched-best": FasterWhisper(
            f"BatchedInferencePipeline, greedy, {cores} threads",
            {"cpu_threads": cores},
            greedy_batches,
            forced=True,
            batched=True,
        ),
    }


OURS = {
    "ours": "our engine",
    "ours-forced": "our engine, language forced",
    "ours-full": "our engine with ENCODER_WINDOW=full",
}
THEIRS = tuple(theirs(1))


def settings_text(model: Path, keys: Mapping[str, object]) -> str:
    """Configuration of a primary with this model and without limits that a benchmark could reach."""
    values: dict[str, object] = {
        "CT2_SMALL_PATH": model.resolve(),
        "DEVICE": "cpu",
        "COMPUTE_TYPE": COMPUTE_TYPE,
        "HOST": "127.0.0.1",
        "GRPC_PORT": 0,
        "HTTP_PORT": "off",
        "RATE_LIMIT_RPS": 0,
        "MAX_QUEUE": 10_000,
        "MAX_UPLOAD_MB": 1024,
        "MAX_AUDIO_SECONDS": 86_400,
        "DRAIN_TIMEOUT_S": 5,
    }
    return "".join(f"{name}={value}\n" for name, value in {**values, **keys}.items())


@asynccontextmanager
async def answering(settings: str, encoding: AudioFormat = _PCM) -> AsyncIterator[Answering]:
    """Run the service's pipeline without its ports: decoding, voice activity detection, chunks, batches, text checks.

    Recordings are sent as PCM, which needs no decoding, or as WAV files.
    """
    parsed = parse(settings, "primary")
    recognizer = await asyncio.get_running_loop().run_in_executor(None, load_whisper, parsed)
    # The production wiring, so that the benchmark measures what is served.
    backend = Backend(parsed, recognizer, _no_file, None)

    async def answer(recording: Recording, language: str | None) -> Answer:
        audio = recording.pcm if encoding.encoding == "linear16" else recording.wav
        request = Request(Upload(audio, encoding), DecodeOptions(language=language), "bench", policy="primary")
        return (await backend.pipeline.transcribe(request)).answer

    try:
        yield answer
    finally:
        await backend.close()


@asynccontextmanager
async def in_process(settings: str, encoding: AudioFormat = _PCM) -> AsyncIterator[Any]:
    """As `answering`, but yields `transcribe(recording, language)`, which returns the text alone."""
    async with answering(settings, encoding) as answer:

        async def transcribe(recording: Recording, language: str | None) -> str:
            return (await answer(recording, language)).text

        yield transcribe


async def _no_file(data: bytes, *, separate_channels: bool = False) -> NoReturn:
    raise TypeError("only PCM and WAV recordings are supported")


@dataclass(frozen=True)
class Run:
    """What contenders run on."""

    model: Path
    forced: bool
    """Pass the language to contenders that would detect it otherwise."""
    keys: Mapping[str, str]
    """Configuration keys of our engine."""
    recordings: Sequence[Recording]


class Contenders:
    """Loads the contenders of a run by name; they share models where possible."""

    def __init__(self, run: Run, stack: AsyncExitStack) -> None:
        self._run = run
        self._stack = stack
        self._pipelines: dict[str, Any] = {}
        self._models: dict[tuple[tuple[str, int], ...], WhisperModel] = {}
        self._threads = stack.enter_context(ThreadPoolExecutor(64))

    async def ours(self, name: str) -> Transcribe:
        """A configuration of our engine."""
        window = "full" if name == "ours-full" else self._run.keys.get("ENCODER_WINDOW", "adaptive")
        if window not in self._pipelines:
            settings = settings_text(self._run.model, {**self._run.keys, "ENCODER_WINDOW": window})
            self._pipelines[window] = await self._stack.enter_async_context(in_process(settings))
        run = self._pipelines[window]
        forced = self._run.forced or name == "ours-forced"

        async def transcribe(recording: Recording) -> str:
            return str(await run(recording, recording.language if forced else None))

        return transcribe

    def faster_whisper(self, faster: FasterWhisper) -> Transcribe:
        """A configuration of faster-whisper, on a model that configurations with the same arguments share."""
        key = tuple(faster.model.items())
        if key not in self._models:
            model = str(self._run.model)
            self._models[key] = WhisperModel(model, device="cpu", compute_type=COMPUTE_TYPE, **faster.model)
        engine = BatchedInferencePipeline(self._models[key]) if faster.batched else self._models[key]
        forced = self._run.forced or faster.forced

        def run(recording: Recording) -> str:
            language = recording.language if forced else None
            segments, _ = engine.transcribe(recording.samples, language=language, **faster.call)
            return "".join(segment.text for segment in segments)

        async def transcribe(recording: Recording) -> str:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run, recording)

        return transcribe


def serve_contenders(pipe: Connection, run: Run) -> None:
    """Measure contenders of a run, each loaded and warmed up when it is first asked for, until `pipe` gives None.

    An order is a tuple: the contender's name, its FasterWhisper (None: our engine), the number of callers, the round.
    """
    asyncio.run(_serve_contenders(pipe, run))


async def _serve_contenders(pipe: Connection, run: Run) -> None:
    loop = asyncio.get_running_loop()
    ready: dict[str, Transcribe] = {}
    shortest = min(run.recordings, key=lambda recording: recording.seconds)
    async with AsyncExitStack() as stack:
        contenders = Contenders(run, stack)
        while (order := await loop.run_in_executor(None, pipe.recv)) is not None:
            name, configuration, callers, number = order
            if name not in ready:
                if configuration is None:
                    ready[name] = await contenders.ours(name)
                else:
                    ready[name] = contenders.faster_whisper(configuration)
                await ready[name](shortest)
            pipe.send(await drive(name, ready[name], run.recordings, callers, number))


class Measuring:
    """Measures contenders in two processes, ours as the services run and faster-whisper's as any program, as an async
    context manager.

    Raises:
        ConfigError: the keys of our engine aren't valid.
    """

    def __init__(self, run: Run) -> None:
        parse(settings_text(run.model, run.keys), "primary")
        self._ours = MeasuringProcess(serve_contenders, run)
        self._theirs = MeasuringProcess(serve_contenders, run, configured=False)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Measuring:
        for process in (self._ours, self._theirs):
            await self._stack.enter_async_context(process)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def ours(self, name: str, callers: int, number: int = 1) -> Measurement:
        return await self._ours.measure(name, None, callers, number)

    async def faster_whisper(self, name: str, faster: FasterWhisper, callers: int, number: int = 1) -> Measurement:
        return await self._theirs.measure(name, faster, callers, number)
