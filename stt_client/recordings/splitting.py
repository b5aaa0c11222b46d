"""Transcribes a recording of any length: as one request, or in parts that fit the service's limits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from stt_client.errors import AudioTooLong, PayloadTooLarge, SttError
from stt_client.recordings.decoding import pyav
from stt_client.recordings.journal import Journal
from stt_client.recordings.parts import Job, PartsRun, Service, max_frames, sent
from stt_client.recordings.reading import ALL_RATES_HZ, DecoderMissing, NotDecodable, Source
from stt_client.request import Audio, CallOptions, Samples, format_of, linear16, prepare, send_options
from stt_client.results import Limits, TranscribeEvent, Transcript

SMALL_BYTES = 1024 * 1024
"""Smaller recordings are sent without asking for the limits first."""


async def job_of(audio: Audio, options: CallOptions, *, live: bool, journal: Journal | None = None) -> Job:
    """Make a job of the arguments of `SttClient.transcribe`. Raises ValueError: invalid option."""
    options = CallOptions(**options)
    raw = options.pop("encoding", None)
    if isinstance(audio, Samples):
        if raw is not None:
            raise ValueError("encoding applies to headerless bytes, not to Samples; leave it out")
        data, raw = await asyncio.to_thread(linear16, audio)
        return Job(Source(data, raw), options, live, journal)
    # Checked before the service is asked for anything.
    format_of(raw)
    return Job(
        Source(Path(audio) if isinstance(audio, str | os.PathLike) else bytes(audio), raw), options, live, journal
    )


async def last_of(events: AsyncGenerator[TranscribeEvent, None]) -> Transcript:
    """The transcript at the end of the events."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Transcript):
                return event
    raise AssertionError("events end with a transcript or an error")


async def transcribe(service: Service, job: Job) -> AsyncGenerator[TranscribeEvent, None]:
    """Yield events of a transcription, the transcript last.

    Raises:
        PayloadTooLarge, AudioTooLong: the recording exceeds the limits and can't be split here.
        SttError: a call failed.
        ValueError: invalid option.
        OSError: the file can't be read.
    """
    if job.journal is not None and (kept := job.journal.whole()) is not None:
        yield kept
        return
    limits = await service.limits() if job.source.size > SMALL_BYTES else None
    refused = None if limits is None else await asyncio.to_thread(_excess, job.source, limits)
    if refused is None:
        try:
            async with aclosing(_unsplit(service, job)) as events:
                async for event in events:
                    yield event
            return
        except (PayloadTooLarge, AudioTooLong) as error:
            refused = error
    limits = limits or await service.limits()
    if limits is None:
        raise refused
    async with aclosing(_split(service, job, limits, refused)) as events:
        async for event in events:
            yield event


async def _unsplit(service: Service, job: Job) -> AsyncGenerator[TranscribeEvent, None]:
    call, rest = send_options(job.options, service.timeout)
    rest["encoding"] = job.source.raw
    request = await prepare(job.source.audio, service.max_message_bytes, **rest)
    async with aclosing(sent(service, request, call, live=job.live)) as events:
        async for event in events:
            if isinstance(event, Transcript) and job.journal is not None:
                job.journal.keep_whole(event)
            yield event


async def _split(
    service: Service, job: Job, limits: Limits, refused: SttError
) -> AsyncGenerator[TranscribeEvent, None]:
    # Without PyAV, nothing can be resampled.
    rates = (ALL_RATES_HZ[0], 16_000) if pyav() else ALL_RATES_HZ
    try:
        reading = await asyncio.to_thread(job.source.read, rates)
        seconds = await asyncio.to_thread(job.source.seconds)
    except DecoderMissing as error:
        raise type(refused)(f"{refused.message}; it can't be split: {error}", metadata=refused.metadata) from None
    except NotDecodable:
        raise refused from None
    run = PartsRun(service, job, reading, max_frames(service, limits, reading), seconds)
    async with aclosing(run.events()) as events:
        async for event in events:
            yield event


def _excess(source: Source, limits: Limits) -> SttError | None:
    """The error that the service would answer; None if the recording is within its limits, as far as known."""
    size, seconds = source.size, source.seconds()
    if 0 < limits.max_upload_bytes < size:
        return PayloadTooLarge(f"the recording has {size} bytes, the limit of the service is {limits.max_upload_bytes}")
    if seconds is not None and 0 < limits.max_audio_duration < seconds:
        return AudioTooLong(
            f"the recording has {seconds:.0f} s, the limit of the service is {limits.max_audio_duration:g} s"
        )
    return None
