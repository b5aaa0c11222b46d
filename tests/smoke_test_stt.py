#!/usr/bin/env python3
"""Sends your own recordings to a running service, and says whether it does as it should.

    python tests/smoke_test_stt.py --server HOST:50051 --api-key KEY --audio recordings/ \
        --max-fallback-rate 0.3 --max-p95 1.0

Every recording goes twice: with its language forced (--language, or the name of its folder: recordings/en/a.wav) and
with the language to be detected. WAV recordings of one language are also joined to long ones. Exit status: 0 if nothing
failed and all bounds held, 1 if not, 2 if there was nothing to send.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import re
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stt_client import SttClient, SttError, Tls, Transcript

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm")
PAUSE_SECONDS = 0.6
"""Silence between the clips of a joined recording."""
UNCOMPRESSED = (1, 3, 0xFFFE)
"""WAV formats that can be joined: integer samples, floats, and either with channel positions."""


@dataclass(frozen=True)
class Clip:
    name: str
    audio: bytes
    language: str
    """To force; empty where none is known."""
    long: bool = False


@dataclass(frozen=True)
class Case:
    clip: Clip
    forced: bool

    @property
    def kind(self) -> str:
        return f"{'long' if self.clip.long else 'short'}, {'forced' if self.forced else 'detected'}"


@dataclass(frozen=True)
class Outcome:
    case: Case
    seconds: float
    """From the call to its answer, as the caller saw it."""
    transcript: Transcript | None
    problem: str = ""
    """What was wrong; empty: nothing."""


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The recordings among `paths` and below the folders among them."""
    found = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or file.suffix.lower() in SUFFIXES]
    return found


def clips_of(files: Iterable[Path], language: str) -> list[Clip]:
    """A clip for each file; its language is `language`, else its folder's name where that looks like one."""
    found = []
    for file in files:
        folder = file.resolve().parent.name
        forced = language or (folder if re.fullmatch(r"[a-z]{2}", folder) else "")
        found.append(Clip(str(file), file.read_bytes(), forced))
    return found


def join(clips: Sequence[Clip], seconds: float) -> list[Clip]:
    """One recording of at least `seconds` for each language, of its WAV clips over and over; none where it has none."""
    by_language: dict[str, list[tuple[bytes, bytes]]] = {}
    for clip in clips:
        if (parts := _wav_parts(clip.audio)) is not None:
            by_language.setdefault(clip.language, []).append(parts)
    joined = []
    for language, found in sorted(by_language.items()):
        fmt = found[0][0]
        same = [data for other, data in found if other == fmt]
        name = f"joined clips ({language or 'any language'})"
        joined.append(Clip(name, _joined(fmt, same, seconds), language, long=True))
    return joined


def _wav_parts(audio: bytes) -> tuple[bytes, bytes] | None:
    """The `fmt ` and `data` chunks of an uncompressed WAV; None for anything else, which can't be joined like this."""
    if audio[:4] != b"RIFF" or audio[8:12] != b"WAVE":
        return None
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(audio):
        name, size = struct.unpack_from("<4sI", audio, at)
        chunks.setdefault(name, audio[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    fmt, data = chunks.get(b"fmt ", b""), chunks.get(b"data", b"")
    if len(fmt) < 16 or not data or struct.unpack_from("<H", fmt)[0] not in UNCOMPRESSED:
        return None
    return fmt, data


def _joined(fmt: bytes, parts: Sequence[bytes], seconds: float) -> bytes:
    bytes_a_second, block, bits = struct.unpack_from("<IHH", fmt, 8)
    # Eight-bit samples are unsigned, so their silence is not zero.
    silence = (b"\x80" if bits == 8 else b"\0") * (int(PAUSE_SECONDS * bytes_a_second) // block * block)
    data = bytearray()
    for part in itertools.cycle(parts):
        data += part + silence
        if len(data) >= seconds * bytes_a_second:
            break
    chunks = _chunk(b"fmt ", fmt) + _chunk(b"data", bytes(data))
    return _chunk(b"RIFF", b"WAVE" + chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


def cases_of(clips: Sequence[Clip], requests: int) -> list[Case]:
    """Each clip detected, and forced where its language is known; then over again up to `requests` (0: once each)."""
    cases = [Case(clip, forced) for clip in clips for forced in (True, False) if clip.language or not forced]
    return list(itertools.islice(itertools.cycle(cases), requests or len(cases))) if cases else []


async def send(client: SttClient, case: Case) -> Outcome:
    """The outcome of one case; a failed call is an outcome too."""
    language = case.clip.language if case.forced else None
    started = time.monotonic()
    try:
        transcript = await client.transcribe(case.clip.audio, language=language)
    except SttError as error:
        more = f" ({error.fallback_error})" if error.fallback_error else ""
        said = f"{error.type}: {error.message}{more} [{error.request_id or 'no request id'}]"
        return Outcome(case, time.monotonic() - started, None, said)
    seconds = time.monotonic() - started
    return Outcome(case, seconds, transcript, _problem(case, transcript))


def _problem(case: Case, transcript: Transcript) -> str:
    if not case.forced:
        return ""
    if transcript.routing.language_check_applicable:
        return "the language was forced, and the language check was on"
    if transcript.language != case.clip.language:
        return f"the language was forced to {case.clip.language}, and the answer says {transcript.language}"
    return ""


async def send_all(client: SttClient, cases: Sequence[Case], concurrency: int) -> list[Outcome]:
    """All cases, `concurrency` at a time, in order of their start."""
    slots = asyncio.Semaphore(concurrency)

    async def one(case: Case) -> Outcome:
        async with slots:
            return await send(client, case)

    return await asyncio.gather(*(one(case) for case in cases))


def quantile(values: Iterable[float], q: float) -> float:
    """Nearest rank; NaN without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else math.nan


def fallback_rate(outcomes: Iterable[Outcome]) -> float:
    """The fraction of answers that are the fallback's; NaN without answers."""
    used = [each.transcript.routing.fallback_used for each in outcomes if each.transcript]
    return sum(used) / len(used) if used else math.nan


def _p95(outcomes: Sequence[Outcome], long: bool) -> float:
    return quantile((each.seconds for each in outcomes if each.transcript and each.case.clip.long == long), 0.95)


def report(outcomes: Sequence[Outcome], say: Callable[[str], None]) -> None:
    """A table by kind of clip, then what went wrong."""
    say(f"{'clips, language':<16} {'sent':>5} {'failed':>6} {'fallback':>8} {'p50 s':>7} {'p95 s':>7}")
    for kind in [*sorted({each.case.kind for each in outcomes}), "all"]:
        some = [each for each in outcomes if kind in (each.case.kind, "all")]
        seconds = [each.seconds for each in some if each.transcript]
        failed = sum(1 for each in some if each.problem)
        say(
            f"{kind:<16} {len(some):>5} {failed:>6} {fallback_rate(some):>8.1%} "
            f"{quantile(seconds, 0.5):>7.2f} {quantile(seconds, 0.95):>7.2f}"
        )
    empty = sum(1 for each in outcomes if each.transcript and not each.transcript.text.strip())
    if empty:
        say(f"{empty} answers without a word")
    for each in outcomes:
        if each.problem:
            say(f"failed: {each.case.clip.name} ({each.case.kind}): {each.problem}")


def verdicts(outcomes: Sequence[Outcome], options: argparse.Namespace) -> list[tuple[bool, str]]:
    """Whether each bound held, and in words."""
    failed = sum(1 for each in outcomes if each.problem)
    found = [(failed <= options.max_errors, f"{failed} failed, at most {options.max_errors} may")]
    for measured, bound, what in (
        (fallback_rate(outcomes), options.max_fallback_rate, "fallback rate {:.1%}, at most {:.1%}"),
        (_p95(outcomes, False), options.max_p95, "p95 of short clips {:.2f} s, at most {:.2f} s"),
        (_p95(outcomes, True), options.max_p95_long, "p95 of long clips {:.2f} s, at most {:.2f} s"),
    ):
        if bound is not None:
            # NaN (nothing measured) holds no bound.
            found.append((measured <= bound, what.format(measured, bound)))
    return found


async def run(options: argparse.Namespace) -> int:
    try:
        clips = clips_of(find_files(options.audio), options.language)
        tls = Tls(ca=options.ca.read_bytes()) if options.ca else None
    except OSError as error:
        print(f"smoke: can't read {error.filename}: {error.strerror}")
        return 2
    if options.long_seconds > 0:
        clips += join(clips, options.long_seconds)
    cases = cases_of(clips, options.requests)
    if not cases:
        print(f"smoke: no recordings found: --audio takes files, or folders with {', '.join(SUFFIXES)}")
        return 2
    async with SttClient(options.server, api_key=options.api_key, timeout=options.timeout, tls=tls) as client:
        if not await client.health():
            print(f"smoke: {options.server} is not SERVING, or can't be reached")
            return 1
        print(f"smoke: {len(cases)} requests to {options.server}, {options.concurrency} at a time")
        outcomes = await send_all(client, cases, options.concurrency)
    report(outcomes, print)
    held = verdicts(outcomes, options)
    for good, words in held:
        print(f"{'ok  ' if good else 'OVER'}  {words}")
    return 0 if all(good for good, _ in held) else 1


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], epilog=(__doc__ or "").split("\n\n")[-1]
    )
    parser.add_argument("--server", default="localhost:50051", help="host:port, or grpcs://host:port for TLS")
    parser.add_argument("--api-key", help="sent as Bearer")
    parser.add_argument("--ca", type=Path, help="PEM file of who signed the server's certificate")
    parser.add_argument("--audio", nargs="+", type=Path, required=True, metavar="DIR|FILE")
    parser.add_argument("--language", default="", help="to force; else the folder's name")
    parser.add_argument("--requests", type=int, default=0, help="how many in all; else each clip once each way")
    parser.add_argument("--concurrency", type=int, default=1, help="requests at a time")
    parser.add_argument("--long-seconds", type=float, default=60, help="length of joined recordings; 0: none")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for a call")
    parser.add_argument("--max-fallback-rate", type=float, metavar="0..1")
    parser.add_argument("--max-p95", type=float, metavar="SECONDS", help="of short clips")
    parser.add_argument("--max-p95-long", type=float, metavar="SECONDS", help="of joined recordings")
    parser.add_argument("--max-errors", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(asyncio.run(run(parse_arguments(None))))
