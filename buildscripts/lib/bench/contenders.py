"""Contenders of the benchmarks: our engine, and faster-whisper in several configurations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from faster_whisper import BatchedInferencePipeline, WhisperModel

from buildscripts.lib.load.closed_loop import Recording, Transcribe
from stt_server.audio import AudioFormat
from stt_server.backend import Backend
from stt_server.config import parse
from stt_server.engine.types import DecodeOptions
from stt_server.lifecycle.process_limits import usable_cores
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


class Contenders:
    """Loads the contenders of a run by name; they share models where possible."""

    def __init__(self, model: Path, forced: bool, stack: AsyncExitStack, keys: Mapping[str, str]) -> None:
        """
        Args:
            forced: pass the language to contenders that would detect it otherwise.
            keys: configuration keys of our engine.
        """
        self._model = model
        self._forced = forced
        self._stack = stack
        self._keys = keys
        self._pipelines: dict[str, Any] = {}
        self._models: dict[tuple[tuple[str, int], ...], WhisperModel] = {}
        self._threads = stack.enter_context(ThreadPoolExecutor(64))

    async def open(self, name: str) -> Transcribe:
        return await self._ours(name) if name in OURS else self.faster_whisper(theirs(usable_cores())[name])

    async def _ours(self, name: str) -> Transcribe:
        window = "full" if name == "ours-full" else self._keys.get("ENCODER_WINDOW", "adaptive")
        if window not in self._pipelines:
            settings = settings_text(self._model, {**self._keys, "ENCODER_WINDOW": window})
            self._pipelines[window] = await self._stack.enter_async_context(in_process(settings))
        run = self._pipelines[window]
        forced = self._forced or name == "ours-forced"

        async def transcribe(recording: Recording) -> str:
            return str(await run(recording, recording.language if forced else None))

        return transcribe

    def faster_whisper(self, faster: FasterWhisper) -> Transcribe:
        """A configuration of faster-whisper, on a model that configurations with the same arguments share."""
        key = tuple(faster.model.items())
        if key not in self._models:
            self._models[key] = WhisperModel(str(self._model), device="cpu", compute_type=COMPUTE_TYPE, **faster.model)
        engine = BatchedInferencePipeline(self._models[key]) if faster.batched else self._models[key]
        forced = self._forced or faster.forced

        def run(recording: Recording) -> str:
            language = recording.language if forced else None
            segments, _ = engine.transcribe(recording.samples, language=language, **faster.call)
            return "".join(segment.text for segment in segments)

        async def transcribe(recording: Recording) -> str:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run, recording)

        return transcribe
