#!/usr/bin/env python3
"""Sends your own recordings to a running service and checks its answers.

    python tests/smoke_test_stt.py --server HOST:50051 --api-key KEY --audio recordings/ \
        --max-fallback-rate 0.3 --max-p95 1.0

Each recording is sent twice: with its language forced (--language, or the name of its folder: recordings/en/a.wav) and
detected. WAV recordings of one language are also joined into long ones. Exit status: 0 if nothing failed and all bounds
held, 1 otherwise, 2 if there are no recordings.
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
"""Silence between the clips of a joined recording, in seconds."""
UNCOMPRESSED = (1, 3, 0xFFFE)
"""WAV format tags that can be joined: integers, floats, and either with channel positions (extensible)."""


@dataclass(frozen=True)
class Clip:
    """A recording to send."""

    name: str
    audio: bytes
    language: str
    """Language to force; empty if unknown."""
    long: bool = False


@dataclass(frozen=True)
class Case:
    """A clip, sent with its language forced or detected."""

    clip: Clip
    forced: bool

    @property
    def kind(self) -> str:
        return f"{'long' if self.clip.long else 'short'}, {'forced' if self.forced else 'detected'}"


@dataclass(frozen=True)
class Outcome:
    """Result of a case."""

    case: Case
    seconds: float
    """Duration of the call."""
    transcript: Transcript | None
    problem: str = ""
    """Why it failed; empty if it didn't."""


def find_files(paths: Iterable[Path]) -> list[Path]:
    """List the files in `paths`, and the recordings in the folders in `paths`, recursively."""
    found = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or file.suffix.lower() in SUFFIXES]
    return found


def clips_of(files: Iterable[Path], language: str) -> list[Clip]:
    """Read the files. The language is `language`, or the folder's name if that is a two-letter code."""
    found = []
    for file in files:
        folder = file.resolve().parent.name
        forced = language or (folder if re.fullmatch(r"[a-z]{2}", folder) else "")
        found.append(Clip(str(file), file.read_bytes(), forced))
    return found


def join(clips: Sequence[Clip], seconds: float) -> list[Clip]:
    """Repeat the WAV clips of each language to one recording of at least `seconds`."""
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
    """Return the `fmt ` and `data` chunks of an uncompressed WAV file; None for other files."""
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
    # Silence of unsigned 8-bit samples is 0x80.
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
    """List each clip detected, and forced if its language is known; repeat up to `requests` cases (0: once each)."""
    cases = [Case(clip, forced) for clip in clips for forced in (True, False) if clip.language or not forced]
    return list(itertools.islice(itertools.cycle(cases), requests or len(cases))) if cases else []


async def send(client: SttClient, case: Case) -> Outcome:
    """Send one case. Failed calls are returned as outcomes, too."""
    language = case.clip.language if case.forced else None
    started = time.monotonic()
    try:
        transcript = await client.transcribe(case.clip.audio, language=language)
    except SttError as error:
        fallback = f" ({error.fallback_error})" if error.fallback_error else ""
        problem = f"{error.type}: {error.message}{fallback} [{error.request_id or 'no request id'}]"
        return Outcome(case, time.monotonic() - started, None, problem)
    seconds = time.monotonic() - started
    return Outcome(case, seconds, transcript, _problem(case, transcript))


def _problem(case: Case, transcript: Transcript) -> str:
    if not case.forced:
        return ""
    if transcript.routing.language_check_applicable:
        return "language forced, but the language check was applied"
    if transcript.language != case.clip.language:
        return f"language forced to {case.clip.language}, but the answer is {transcript.language}"
    return ""


async def send_all(client: SttClient, cases: Sequence[Case], concurrency: int) -> list[Outcome]:
    """Send all cases, `concurrency` at a time. Returns the outcomes in the order of the cases."""
    slots = asyncio.Semaphore(concurrency)

    async def one(case: Case) -> Outcome:
        async with slots:
            return await send(client, case)

    return await asyncio.gather(*(one(case) for case in cases))


def quantile(values: Iterable[float], q: float) -> float:
    """Quantile by the nearest-rank method; NaN if there are no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else math.nan


def fallback_rate(outcomes: Iterable[Outcome]) -> float:
    """Share of answers that the fallback gave, 0 to 1; NaN if there are no answers."""
    used = [each.transcript.routing.fallback_used for each in outcomes if each.transcript]
    return sum(used) / len(used) if used else math.nan


def _p95(outcomes: Sequence[Outcome], long: bool) -> float:
    return quantile((each.seconds for each in outcomes if each.transcript and each.case.clip.long == long), 0.95)


def report(outcomes: Sequence[Outcome], say: Callable[[str], None]) -> None:
    """Print a table by kind of clip, then the failures."""
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
        say(f"{empty} answers with empty text")
    for each in outcomes:
        if each.problem:
            say(f"failed: {each.case.clip.name} ({each.case.kind}): {each.problem}")


def verdicts(outcomes: Sequence[Outcome], options: argparse.Namespace) -> list[tuple[bool, str]]:
    """List whether each bound held, with a description."""
    failed = sum(1 for each in outcomes if each.problem)
    found = [(failed <= options.max_errors, f"{failed} failed, at most {options.max_errors} allowed")]
    for measured, bound, what in (
        (fallback_rate(outcomes), options.max_fallback_rate, "fallback rate {:.1%}, at most {:.1%}"),
        (_p95(outcomes, False), options.max_p95, "p95 of short clips {:.2f} s, at most {:.2f} s"),
        (_p95(outcomes, True), options.max_p95_long, "p95 of long clips {:.2f} s, at most {:.2f} s"),
    ):
        if bound is not None:
            # Comparison with NaN (nothing measured) is False.
            found.append((measured <= bound, what.format(measured, bound)))
    return found


async def run(options: argparse.Namespace) -> int:
    """Send the recordings and print the report. Returns the exit status."""
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
        print(f"smoke: no recordings found; give --audio files, or folders with {', '.join(SUFFIXES)} files")
        return 2
    async with SttClient(options.server, api_key=options.api_key, timeout=options.timeout, tls=tls) as client:
        if not await client.health():
            print(f"smoke: {options.server} is not SERVING or unreachable; check that the service runs and is ready")
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
    parser.add_argument("--api-key", help="API key")
    parser.add_argument("--ca", type=Path, help="root certificates to trust, in PEM format")
    parser.add_argument("--audio", nargs="+", type=Path, required=True, metavar="DIR|FILE")
    parser.add_argument("--language", default="", help="language to force (default: the folder's name)")
    parser.add_argument("--requests", type=int, default=0, help="total number of requests (default: each case once)")
    parser.add_argument("--concurrency", type=int, default=1, help="concurrent requests (default: 1)")
    parser.add_argument("--long-seconds", type=float, default=60, help="length of joined clips; 0: none (default: 60)")
    parser.add_argument("--timeout", type=float, default=120, help="timeout of a call in seconds (default: 120)")
    parser.add_argument("--max-fallback-rate", type=float, metavar="0..1")
    parser.add_argument("--max-p95", type=float, metavar="SECONDS", help="of short clips")
    parser.add_argument("--max-p95-long", type=float, metavar="SECONDS", help="of joined recordings")
    parser.add_argument("--max-errors", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(asyncio.run(run(parse_arguments(None))))
