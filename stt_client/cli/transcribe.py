"""`stt transcribe`: recordings in, text out."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stt_client.cli.advice import explain
from stt_client.cli.connection import UsageError, add_connection, options_of, servers_of
from stt_client.cli.output import for_stdout, plan, write
from stt_client.cli.progress import Bar
from stt_client.cli.recordings import Found, Recording, find
from stt_client.errors import SttError
from stt_client.pool import SttPool
from stt_client.request import ENCODINGS, ROUTINGS, TASKS, AudioFormat, CallOptions
from stt_client.results import Transcript

TIMEOUT_S = 600.0
"""For each recording: an hour of audio takes minutes on a CPU."""
JOBS_A_SERVER = 2
RAW_RATES_HZ = (4000, 192_000)

_EPILOG = """\
examples:
  stt transcribe talk.wav
  stt transcribe recordings/ --output texts --srt --vtt
  arecord -f S16_LE -r 16000 -t raw -d 5 | stt transcribe - --raw-rate 16000
"""


@dataclass(frozen=True)
class _Job:
    recording: Recording
    paths: Sequence[Path]
    """Where to write the results; empty: standard output."""


@dataclass(frozen=True)
class _Outcome:
    transcript: Transcript | None = None
    error: str = ""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "transcribe",
        help="transcribe recordings",
        description="Transcribes recordings, several at a time, and prints the results in the order given.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE|DIR|-", help="a recording, a folder of them, or - (stdin)")
    _add_speech(parser)
    _add_output(parser)
    add_connection(parser, timeout=TIMEOUT_S, timeout_help=f"longest wait for each recording (default: {TIMEOUT_S:g})")
    parser.add_argument(
        "--jobs",
        type=_count,
        metavar="N",
        help=f"recordings at a time (default: {JOBS_A_SERVER} for each --server)",
    )
    parser.set_defaults(run=run, parser=parser)


def _add_speech(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speech")
    group.add_argument("--language", metavar="CODE", help="such as en; left out: detected")
    group.add_argument("--candidate-languages", type=_list, default=(), metavar="CODE,...", help="detect among these")
    group.add_argument("--task", choices=tuple(TASKS), default="transcribe", help="translate: to English")
    group.add_argument("--prompt", default="", metavar="TEXT", help="text before the audio: style and vocabulary")
    group.add_argument("--hotwords", type=_list, default=(), metavar="WORD,...", help="words to listen for")
    group.add_argument("--words", action="store_true", help="each word's time, in --json")
    group.add_argument("--routing", choices=tuple(ROUTINGS), default="auto", help="which model answers")
    group.add_argument("--raw-rate", type=_rate, metavar="HZ", help="the input is headerless, at this sample rate")
    group.add_argument("--raw-encoding", choices=tuple(ENCODINGS), help="of headerless input (default: linear16)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    for format_, what in (
        ("json", "all there is to know"),
        ("srt", "SubRip subtitles"),
        ("vtt", "WebVTT subtitles"),
    ):
        group.add_argument(
            f"--{format_}", action="append_const", const=format_, dest="formats", help=f"{what}, not the text"
        )
    where = group.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, metavar="DIR", help="write talk.txt for talk.wav in DIR, and so on")
    where.add_argument("--beside", action="store_true", help="write talk.txt beside talk.wav, and so on")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns the exit status: 0, or 1 if a recording failed. Raises UsageError."""
    servers = servers_of(arguments)
    formats = arguments.formats or ["txt"]
    to_files = arguments.beside or arguments.output is not None
    if len(formats) > 1 and not to_files:
        raise UsageError("standard output takes one of --json, --srt and --vtt; give --output DIR for several")
    if arguments.raw_encoding and not arguments.raw_rate:
        raise UsageError("--raw-encoding needs --raw-rate HZ")
    found = find(arguments.files, raw=bool(arguments.raw_rate))
    for problem in found.problems:
        print(f"stt: {problem}", file=sys.stderr)
    paths: Sequence[Sequence[Path]] = [()] * len(found.recordings)
    if to_files:
        paths = plan(found.recordings, arguments.output, formats)
    jobs = [_Job(*pair) for pair in zip(found.recordings, paths, strict=True)]
    failed = asyncio.run(_transcribe_all(arguments, servers, jobs, found, formats[0])) if jobs else 0
    return 1 if failed or found.problems else 0


async def _transcribe_all(
    arguments: argparse.Namespace, servers: Sequence[str], jobs: Sequence[_Job], found: Found, format_: str
) -> int:
    """Transcribes, writes and prints. Returns how many failed."""
    failed = 0
    gate = asyncio.Semaphore(arguments.jobs or JOBS_A_SERVER * len(servers))
    options = _call_options(arguments)
    with Bar(len(jobs)) as bar:
        async with SttPool(servers, **options_of(arguments)) as pool:
            tasks = [asyncio.create_task(_transcribe(pool, job, options, gate, bar)) for job in jobs]
            try:
                for job, task in zip(jobs, tasks, strict=True):
                    outcome = await task
                    failed += bool(outcome.error)
                    with bar.aside():
                        _tell(job, outcome, format_, found.labelled)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    return failed


async def _transcribe(pool: SttPool, job: _Job, options: CallOptions, gate: asyncio.Semaphore, bar: Bar) -> _Outcome:
    async with gate:
        try:
            transcript = await pool.transcribe(job.recording.audio, **options)
            write(transcript, job.paths)
        except (SttError, OSError) as error:
            return _Outcome(error=explain(error, job.recording.name))
        finally:
            bar.advance()
    return _Outcome(transcript)


def _tell(job: _Job, outcome: _Outcome, format_: str, labelled: bool) -> None:
    if outcome.transcript is None:
        print(f"stt: {job.recording.name}: {outcome.error}", file=sys.stderr)
    elif job.paths:
        for path in job.paths:
            print(path)
    else:
        name = job.recording.name if labelled else None
        sys.stdout.write(for_stdout(outcome.transcript, format_, name))
    # Whoever reads along a pipe gets each result when it is there.
    sys.stdout.flush()


def _call_options(arguments: argparse.Namespace) -> CallOptions:
    rate = arguments.raw_rate
    return CallOptions(
        language=arguments.language,
        candidate_languages=arguments.candidate_languages,
        task=arguments.task,
        prompt=arguments.prompt,
        hotwords=arguments.hotwords,
        word_timestamps=arguments.words,
        routing=arguments.routing,
        encoding=AudioFormat(arguments.raw_encoding or "linear16", rate) if rate else None,
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return count


def _rate(text: str) -> int:
    low, high = RAW_RATES_HZ
    if not low <= (rate := int(text)) <= high:
        raise argparse.ArgumentTypeError(f"{text} is not within {low} to {high} Hz")
    return rate
