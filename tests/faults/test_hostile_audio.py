"""Files that attack their decoder, sent to a real service over gRPC and REST.

Each ends with its error of the contract, in bounded time and memory, and affects no other caller.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.audio.sandbox.worker import DecodeLimits
from stt_server.testing import hostile_files as hostile
from stt_server.testing.audio_samples import chirp, encode, wav_header
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running

MAX_SECONDS = 1800
"""Half the default, to save time: the cost of a bomb grows with it."""

PATIENCE_S = DecodeLimits(MAX_SECONDS, 16 << 20).wall_seconds + 30
"""Longest time for any file, in seconds, on a busy machine."""

GOOD = encode(chirp(2.0, 44_100), 44_100, "flac", "flac")
BOMB = hostile.flac_of_silence(26 * 3600)
SLOW = hostile.flac_of_silence(MAX_SECONDS + 100, 192_000, 8)
"""A file that takes a decoder process as long as any: seconds."""
HTTP_STATUS = {"invalid_argument": 400, "empty_audio": 400, "unsupported_audio": 415, "audio_too_long": 413, "": 200}

Answer = tuple[str, float]
"""Error type (empty for a transcript) and seconds of audio."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("hostile")
    process = ServiceProcess("primary", folder, {"MAX_AUDIO_SECONDS": MAX_SECONDS, "VAD_FILTER": "false"}, Script())
    with running(process):
        yield process


async def over_grpc(service: ServiceProcess, data: bytes) -> Answer:
    async with service.channel() as channel:
        try:
            stub = speech_pb2_grpc.SpeechToTextStub(channel)
            answer = await stub.Transcribe(pb.TranscribeRequest(audio=data), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            return str(dict(error.trailing_metadata() or ())["x-error-type"]), 0.0
        return "", answer.audio_duration.ToTimedelta().total_seconds()


async def over_rest(service: ServiceProcess, data: bytes) -> Answer:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        answer = await client.post(f"{service.url}/v1/transcribe", files={"audio": ("a.wav", data)})
    kind = answer.headers.get("X-Error-Type", "")
    assert answer.status_code == HTTP_STATUS[kind], answer.text
    return kind, 0.0 if kind else answer.json()["audio_duration"]


async def both_ways(service: ServiceProcess, data: bytes) -> set[Answer]:
    return set(await asyncio.gather(over_grpc(service, data), over_rest(service, data)))


async def answers_well(service: ServiceProcess) -> bool:
    return await both_ways(service, GOOD) == {("", 2.0)}


def peak_mib(pid: int) -> float:
    """Peak resident memory of a process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def deaths(service: ServiceProcess) -> dict[str, float]:
    """Decoder processes that died, by reason."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{service.url}/metrics")).text
    found = re.findall(r'^stt_decode_children_died_total\{reason="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {reason: float(count) for reason, count in found if float(count)}


def floats(value: float) -> bytes:
    samples = np.full(16_000, 0.25, dtype="<f4")
    samples[100:8000:3] = value
    return wav_header(16_000, 1, samples.nbytes, bits=32, tag=3) + samples.tobytes()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "empty_audio"),
    "a header alone": (lambda: wav_header(16_000, 1, 0), "empty_audio"),
    "cut in its header": (lambda: GOOD[:30], "unsupported_audio"),
    "26 h of silence": (lambda: BOMB, "audio_too_long"),
    "a WAV at 8 Hz": (lambda: wav_header(8, 1, 40_000) + bytes(40_000), "invalid_argument"),
    "a compressed WAV at 8 Hz": (lambda: wav_header(8, 1, 40_000, bits=8, tag=7) + bytes(40_000), "invalid_argument"),
    "255 channels": (lambda: wav_header(16_000, 255, 40_000) + bytes(40_000), "invalid_argument"),
    "an index of gigabytes": (hostile.mp4_with_a_huge_index, "unsupported_audio"),
    "an index that goes round": (hostile.mp4_that_goes_round, "unsupported_audio"),
    "boxes in boxes": (hostile.nested_boxes, "unsupported_audio"),
    "elements in elements": (hostile.nested_elements, "unsupported_audio"),
    "tags in tags": (hostile.nested_tags, "unsupported_audio"),
    "clusters without end": (hostile.endless_clusters, "empty_audio"),
    "streams without end": (hostile.endless_streams, "unsupported_audio"),
    "chunks without end": (hostile.endless_chunks, "unsupported_audio"),
    "pictures alone": (hostile.silent_film, "unsupported_audio"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_file_ends_with_its_error(service: ServiceProcess, name: str) -> None:
    make, kind = REFUSED[name]
    assert await both_ways(service, make()) == {(kind, 0.0)}
    assert await answers_well(service)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (floats(np.nan), 1.0),
        (floats(np.inf), 1.0),
        (floats(-np.inf), 1.0),
        (floats(3e38), 1.0),
        (hostile.wav_around_a_flac(), 1.0),
    ],
    ids=["NaN", "infinity", "minus infinity", "monstrous", "a file in a file"],
)
async def test_an_odd_file_with_sound_is_decoded(service: ServiceProcess, data: bytes, seconds: float) -> None:
    assert await both_ways(service, data) == {("", seconds)}


async def test_a_truncated_file_is_decoded_to_its_end(service: ServiceProcess) -> None:
    for kind, seconds in await both_ways(service, GOOD[: len(GOOD) // 2]):
        assert (kind, 0.5 < seconds < 1.5) == ("", True)


@asynccontextmanager
async def untouched(service: ServiceProcess) -> AsyncIterator[list[str]]:
    """Names of a file in the service's working directory and of an address; asserts that neither is opened."""
    pipe = service.folder / "canary.wav"
    os.mkfifo(pipe)
    opened = threading.Event()
    let_go = threading.Event()

    def wait_for_a_reader() -> None:
        os.close(os.open(pipe, os.O_WRONLY))
        if not let_go.is_set():
            opened.set()

    waiting = threading.Thread(target=wait_for_a_reader)
    waiting.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        try:
            yield ["canary.wav", str(pipe), f"http://127.0.0.1:{listener.getsockname()[1]}/canary.wav"]
            assert not opened.is_set(), "the file was opened"
            with pytest.raises(BlockingIOError):
                listener.accept()
        finally:
            let_go.set()
            reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            waiting.join()
            os.close(reader)
            pipe.unlink()


async def test_a_playlist_is_refused_and_opens_nothing(service: ServiceProcess) -> None:
    async with untouched(service) as names:
        lists = [data for name in names for data in hostile.playlists(name)]
        for answers in await asyncio.gather(*(both_ways(service, data) for data in lists)):
            assert answers == {("unsupported_audio", 0.0)}


async def test_a_film_that_refers_to_another_file_opens_nothing(service: ServiceProcess) -> None:
    async with untouched(service) as names:
        for name in names:
            assert await both_ways(service, hostile.mov_elsewhere(name)) == {("", 0.5)}, "its own bytes are decoded"
            assert await both_ways(service, hostile.mov_alias(name[-60:])) == {("unsupported_audio", 0.0)}


async def test_a_bomb_does_not_delay_other_callers(service: ServiceProcess) -> None:
    if len(service.children()) < 2:
        pytest.skip("one core decodes one file after another")
    bomb = asyncio.ensure_future(over_grpc(service, hostile.flac_of_silence(MAX_SECONDS + 100, 192_000)))
    answered = 0
    while not bomb.done():
        assert await over_grpc(service, GOOD) == ("", 2.0)
        answered += 1
    assert await bomb == ("audio_too_long", 0.0)
    assert answered >= 3


async def settled(service: ServiceProcess) -> list[int]:
    """Decoder processes of the service, once all are ready: their working directory is deleted by then."""

    def ready(pid: int) -> bool:
        try:
            return str(Path(f"/proc/{pid}/cwd").readlink()).endswith(" (deleted)")
        except FileNotFoundError:  # ended, to be replaced
            return False

    until = time.monotonic() + PATIENCE_S
    while not all(map(ready, service.children())):
        assert time.monotonic() < until, "a decoder process does not become ready"
        await asyncio.sleep(0.01)
    return service.children()


async def busy_decoder(service: ServiceProcess) -> int:
    """The decoder process that begins to decode; all must be idle before."""

    def ticks(pid: int) -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = {pid: ticks(pid) for pid in service.children()}
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for pid, spent in before.items():
            if ticks(pid) >= spent + 5:
                return pid
        await asyncio.sleep(0.01)
    raise AssertionError("no decoder process is busy")


@pytest.mark.parametrize("send", [over_grpc, over_rest])
async def test_a_killed_decoder_process_is_a_refused_file(
    service: ServiceProcess, send: Callable[[ServiceProcess, bytes], Coroutine[None, None, Answer]]
) -> None:
    await settled(service)
    before = (await deaths(service)).get("killed", 0)
    lost = asyncio.ensure_future(send(service, SLOW))
    victim = await busy_decoder(service)
    os.kill(victim, signal.SIGKILL)
    assert await lost == ("unsupported_audio", 0.0)
    assert await answers_well(service)
    assert (await deaths(service))["killed"] == before + 1
    assert victim not in service.children()


async def test_disconnecting_frees_the_decoder_process(service: ServiceProcess) -> None:
    await settled(service)
    async with service.channel() as channel:
        call = speech_pb2_grpc.SpeechToTextStub(channel).Transcribe(pb.TranscribeRequest(audio=SLOW))
        victim = await busy_decoder(service)
        call.cancel()
        until = time.monotonic() + PATIENCE_S
        while victim in service.children():
            assert time.monotonic() < until, "the decoder process continued"
            await asyncio.sleep(0.05)
    assert await answers_well(service)
    assert (await deaths(service))["abandoned"] == 1


async def test_hostile_files_leak_no_memory(service: ServiceProcess) -> None:
    """Runs last: memory that all tests above took from the service and each decoder process."""
    longest = MAX_SECONDS * 16_000 * 4 / 2**20
    assert peak_mib(service.pid) < 250 + 4 * longest
    assert all(peak_mib(child) < 400 for child in service.children())
    assert set(await deaths(service)) <= {"killed", "abandoned", "memory"}


async def test_decoder_processes_inherit_no_descriptors(service: ServiceProcess) -> None:
    for child in await settled(service):
        held = {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{child}/fd").iterdir()}
        assert set(held) == {"0", "1", "2"}
        assert (held["0"].startswith("pipe:"), held["1"].startswith("pipe:"), held["2"]) == (True, True, "/dev/null")
        assert "CONFIG_PATH" not in Path(f"/proc/{child}/environ").read_text()
        assert str(Path(f"/proc/{child}/cwd").readlink()).endswith(" (deleted)")


async def test_decoder_processes_end_with_a_killed_service(tmp_path: Path) -> None:
    process = ServiceProcess("fallback", tmp_path, {"HTTP_PORT": "off"}, Script())
    with running(process):
        children = process.children()
        assert children
        for child in children[1:]:
            os.kill(child, signal.SIGSTOP)
        process.kill()
        until = time.monotonic() + PATIENCE_S
        while any(Path(f"/proc/{child}/exe").exists() for child in children):
            assert time.monotonic() < until, "decoder processes are left"
            await asyncio.sleep(0.05)
        socket.create_server(("127.0.0.1", process.grpc_port)).close()
