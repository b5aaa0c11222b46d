"""Recordings over the service's limits: split, transcribed in parts on one or several services, and merged."""

from __future__ import annotations

import asyncio
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protos.stt.v1 import speech_pb2
from stt_client import AudioFormat, Progress, Samples, SettledSegments, SttClient, SttPool, Transcript
from stt_client.errors import AudioTooLong, EmptyAudio, InvalidArgument, PayloadTooLarge
from stt_client.recordings import parts
from stt_client.recordings.cutting import cut
from stt_client.recordings.encoding import encode
from stt_client.recordings.journal import JournalFolder
from stt_client.recordings.splitting import job_of, last_of, transcribe
from tests.support.contract_script import MIB, Failure, Script
from tests.support.contract_service import serving
from tests.support.tone_speech import RATE, ToneSpeech, recognize, tone_speech

WAIT_S = 30
TALK = tone_speech(100)
"""About 85 s, 2.7 MB."""


def wav(path: Path, talk: ToneSpeech = TALK) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(talk.samples.tobytes())
    return path


def limited(seconds: float = 20, **options: Any) -> Script:
    """A service that takes recordings of 20 s, and says so."""

    def reply(request: speech_pb2.TranscribeRequest) -> Any:
        response = recognize(request)
        if response.audio_duration.ToNanoseconds() > seconds * 1e9:
            return Failure("audio_too_long", "too long")
        return response

    return Script(**{"reply": reply, "max_audio_seconds": seconds, "retryable": False, **options})


def check(transcript: Transcript) -> None:
    """Every word once, in order, at its time."""
    assert transcript.text == TALK.text
    assert [segment.text for segment in transcript.segments] == TALK.text.split()
    starts = [segment.start for segment in transcript.segments]
    assert starts == pytest.approx(TALK.starts, abs=0.03)
    assert [segment.words[0].start for segment in transcript.segments] == starts
    assert transcript.audio_duration == pytest.approx(len(TALK.samples) / RATE)


async def test_a_wav_file_is_split_at_pauses_and_merged(tmp_path: Path) -> None:
    async with serving(limited()) as served, SttClient(served.target) as client:
        transcript = await client.transcribe(wav(tmp_path / "talk.wav"), request_id="mine", language="en")
    check(transcript)
    assert len(served.script.requests) >= 5
    assert all(request.options.language == "en" for request in served.script.requests)
    assert {call.metadata["x-req-id"] for call in served.script.calls} == {
        f"mine.{index}" for index in range(len(served.script.calls))
    }
    assert transcript.request_id == "mine"


async def test_without_pyav_parts_of_wav_are_wav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    async with serving(limited()) as served, SttClient(served.target) as client:
        check(await client.transcribe(wav(tmp_path / "talk.wav")))
    assert {request.audio[:4] for request in served.script.requests} == {b"RIFF"}


async def test_parts_fit_the_size_limit(tmp_path: Path) -> None:
    async with serving(limited(3600, max_upload_bytes=MIB)) as served, SttClient(served.target) as client:
        check(await client.transcribe(wav(tmp_path / "talk.wav")))
    assert len(served.script.requests) > 2
    assert max(len(request.audio) for request in served.script.requests) <= MIB


async def test_a_compressed_file_bytes_and_samples_are_split() -> None:
    flac = encode(TALK.samples[:, None], RATE)
    raw = AudioFormat("linear16", RATE)
    async with serving(limited()) as served, SttClient(served.target) as client:
        check(await client.transcribe(flac))
        check(await client.transcribe(TALK.samples.tobytes(), encoding=raw))
        check(await client.transcribe(Samples(TALK.samples, RATE)))
    assert {request.audio[:4] for request in served.script.requests if not request.format.encoding} == {b"fLaC"}


async def test_a_compressed_file_without_pyav_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    flac = encode(TALK.samples[:, None], RATE)
    monkeypatch.setitem(sys.modules, "av", None)
    async with serving(limited(max_upload_bytes=MIB)) as served, SttClient(served.target) as client:
        with pytest.raises(PayloadTooLarge, match=r"pip install 'stt-pair\[files\]'"):
            await client.transcribe(flac)
        assert not served.script.requests, "it is not sent"


async def test_a_recording_that_only_the_service_finds_too_long_is_split_then(tmp_path: Path) -> None:
    short = tone_speech(30)
    async with serving(limited(5)) as served, SttClient(served.target) as client:
        transcript = await client.transcribe(wav(tmp_path / "talk.wav", short))
    assert transcript.text == short.text


async def test_a_file_that_is_no_recording_keeps_the_error_of_the_service() -> None:
    async with serving(Script(failure=Failure("audio_too_long", "no"))) as served, SttClient(served.target) as client:
        with pytest.raises(AudioTooLong, match="no"):
            await client.transcribe(b"no recording")


async def test_a_large_file_without_samples_is_empty(tmp_path: Path) -> None:
    file = wav(tmp_path / "empty.wav", replace(TALK, samples=TALK.samples[:0]))
    header = file.read_bytes()[:-4] + (1).to_bytes(4, "little")
    file.write_bytes(header + bytes(2) + b"LIST" + (2 * MIB).to_bytes(4, "little") + bytes(2 * MIB))
    async with serving(limited(max_upload_bytes=MIB)) as served, SttClient(served.target) as client:
        with pytest.raises(EmptyAudio):
            await client.transcribe(file)


async def test_all_services_of_a_pool_share_the_parts(tmp_path: Path) -> None:
    script = limited(hold=asyncio.Event())
    async with (
        serving(script) as first,
        serving(limited(hold=script.hold)) as second,
        SttPool([first.target, second.target]) as pool,
    ):
        call = asyncio.create_task(pool.transcribe(wav(tmp_path / "talk.wav")))
        for served in (first, second):
            await asyncio.wait_for(served.script.started.wait(), WAIT_S)
        assert script.hold is not None
        script.hold.set()
        check(await call)


async def test_a_service_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    stuck = limited(hold=asyncio.Event())
    async with (
        serving(stuck) as first,
        serving(limited()) as second,
        SttPool([first.target, second.target]) as pool,
    ):
        call = asyncio.create_task(pool.transcribe(wav(tmp_path / "talk.wav")))
        await asyncio.wait_for(stuck.started.wait(), WAIT_S)
        await first.stop()
        check(await call)


async def test_an_overloaded_service_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "RETRY_PAUSE_S", 0.0)
    busy = Failure("overloaded", trailers={"retry-after-ms": "1"})
    script = limited()
    script.fail(busy, busy, busy)
    async with serving(script) as served, SttClient(served.target) as client:
        check(await client.transcribe(wav(tmp_path / "talk.wav")))


async def test_an_error_of_the_request_ends_the_whole(tmp_path: Path) -> None:
    script = limited()
    script.fail(Failure("invalid_argument", "no such language"))
    async with serving(script) as served, SttClient(served.target) as client:
        with pytest.raises(InvalidArgument, match="no such language"):
            await client.transcribe(wav(tmp_path / "talk.wav"))


async def test_progress_covers_the_whole_recording(tmp_path: Path) -> None:
    async with serving(limited()) as served, SttClient(served.target) as client:
        events = [event async for event in client.transcribe_with_progress(wav(tmp_path / "talk.wav"))]
    seconds = len(TALK.samples) / RATE
    progress = [event for event in events if isinstance(event, Progress)]
    settled = [event.audio_settled for event in progress]
    assert settled == sorted(settled)
    assert settled[-1] == pytest.approx(seconds)
    assert [event.audio_duration for event in progress] == pytest.approx([seconds] * len(progress))
    last = events[-1]
    assert isinstance(last, Transcript)
    check(last)
    given = [segment for event in events if isinstance(event, SettledSegments) for segment in event.segments]
    assert tuple(given) == last.segments


async def test_a_broken_run_is_continued(tmp_path: Path) -> None:
    file, folder = wav(tmp_path / "talk.wav"), JournalFolder(tmp_path / "cache")
    failing = limited()
    recognized = failing.reply
    assert recognized is not None

    def until_two(request: speech_pb2.TranscribeRequest) -> Any:
        return Failure("internal") if len(failing.calls) > 2 else recognized(request)

    failing.reply = until_two
    job = await job_of(file, {}, live=False)
    async with serving(failing) as served, SttClient(served.target) as client:
        journal = folder.open(job.source, {}, resume=False)
        with pytest.raises(Exception, match="scripted"):
            await last_of(transcribe(client, replace(job, journal=journal)))
    async with serving(limited()) as served, SttClient(served.target) as client:
        for _ in range(2):
            journal = folder.open(job.source, {}, resume=True)
            check(await last_of(transcribe(client, replace(job, journal=journal))))
        rest = len(served.script.requests)
        journal = folder.open(job.source, {}, resume=False)
        check(await last_of(transcribe(client, replace(job, journal=journal))))
        everything = len(served.script.requests) - rest
        assert 0 < rest < everything


def test_a_journal_belongs_to_a_file_and_its_options(tmp_path: Path) -> None:
    file, folder = wav(tmp_path / "talk.wav", tone_speech(2)), JournalFolder(tmp_path / "cache")
    source = asyncio.run(job_of(file, {}, live=False)).source
    path = folder.open(source, {"language": "en"}, resume=True)
    assert path is not None
    same, other = (folder.open(source, {"language": code}, resume=True) for code in ("en", "de"))
    assert same is not None
    assert other is not None
    assert same._path == path._path
    assert other._path != path._path
    file.write_bytes(file.read_bytes() + b"\0\0")
    changed = folder.open(source, {"language": "en"}, resume=True)
    assert changed is not None
    assert changed._path != path._path


@pytest.mark.parametrize("channels", [1, 2])
def test_parts_together_are_the_recording(channels: int) -> None:
    samples = np.random.default_rng(3).integers(-9000, 9000, (RATE * 61, channels)).astype(np.int16)
    blocks = np.array_split(samples, 37)
    found = list(cut(iter(blocks), RATE, 20 * RATE))
    assert [part.start for part in found] == [sum(len(p.samples) for p in found[:n]) for n in range(len(found))]
    assert np.array_equal(np.concatenate([part.samples for part in found]), samples)
    assert max(len(part.samples) for part in found) <= 20 * RATE
    assert len(found[-1].samples) >= RATE
