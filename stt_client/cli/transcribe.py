"""`stt transcribe`: transcribe recordings."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stt_client.cli.connection import add_connection, options_of, servers_of
from stt_client.cli.errors import UsageError, explain
from stt_client.cli.output import Style, for_stdout, plan, write
from stt_client.cli.progress import Bar
from stt_client.cli.recordings import Found, Recording, find
from stt_client.cli.speech_options import add_speech, raw_format_of, speech_of
from stt_client.cli.subtitle_options import add_subtitles, layout_of
from stt_client.errors import SttError
from stt_client.pool import SttPool
from stt_client.request import CallOptions
from stt_client.results import Progress, TranscribeEvent, Transcript

if TYPE_CHECKING:
    from stt_client.cli.journals import Journals

TIMEOUT_S = 600.0
"""Default timeout of each recording: an hour of audio takes minutes on a CPU."""
JOBS_PER_SERVER = 2
"""Default of `--jobs`."""

_EPILOG = """\
examples:
  stt transcribe talk.wav
  stt transcribe recordings/ --output texts --srt --vtt
  stt transcribe call.wav --channels
  arecord -f S16_LE -r 16000 -t raw -d 5 | stt transcribe - --raw-rate 16000
"""


@dataclass(frozen=True)
class _Job:
    """A recording, and where its results go."""

    number: int
    """From 0."""
    recording: Recording
    paths: Sequence[Path]
    """Output files; empty: standard output."""


@dataclass(frozen=True)
class _Call:
    """What all recordings of a run share."""

    options: CallOptions
    journals: Journals
    style: Style


@dataclass(frozen=True)
class _Outcome:
    """Transcript or error of one recording."""

    transcript: Transcript | None = None
    error: str = ""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "transcribe",
        help="transcribe recordings",
        description="Transcribe recordings in parallel and print the results in the order given.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE|DIR|-", help="a recording, a folder, or - for standard input")
    speech = add_speech(parser)
    speech.add_argument(
        "--channels", action="store_true", help="transcribe each channel by itself: [1] and [2] in text and subtitles"
    )
    _add_output(parser)
    add_subtitles(parser)
    add_connection(
        parser,
        timeout=TIMEOUT_S,
        timeout_help=f"timeout of each recording, or of each part of a long one (default: {TIMEOUT_S:g})",
    )
    parser.add_argument(
        "--jobs",
        type=_count,
        metavar="N",
        help=f"recordings to transcribe in parallel (default: {JOBS_PER_SERVER} per --server)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run of the same files and options: what it transcribed is kept",
    )
    parser.set_defaults(run=run, parser=parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    for format_, what in (
        ("json", "JSON with all details"),
        ("srt", "SubRip subtitles"),
        ("vtt", "WebVTT subtitles"),
    ):
        group.add_argument(
            f"--{format_}", action="append_const", const=format_, dest="formats", help=f"{what} instead of text"
        )
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--output", type=Path, metavar="DIR", help="write files to DIR: talk.txt for talk.wav, and so on"
    )
    where.add_argument("--beside", action="store_true", help="write files beside the recordings")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit status: 0, or 1 if a recording failed. Raises UsageError."""
    servers = servers_of(arguments)
    formats = arguments.formats or ["txt"]
    to_files = arguments.beside or arguments.output is not None
    if len(formats) > 1 and not to_files:
        raise UsageError("several formats require --output DIR or --beside; standard output takes one")
    if arguments.raw_encoding and not arguments.raw_rate:
        raise UsageError("--raw-encoding requires --raw-rate HZ")
    found = find(arguments.files, raw=bool(arguments.raw_rate))
    for problem in found.problems:
        print(f"stt: {problem}", file=sys.stderr)
    paths: Sequence[Sequence[Path]] = [()] * len(found.recordings)
    if to_files:
        paths = plan(found.recordings, arguments.output, formats)
    jobs = [_Job(number, *pair) for number, pair in enumerate(zip(found.recordings, paths, strict=True))]
    # Imported here: it takes numpy, which the rest of the command does without.
    from stt_client.cli.journals import Journals

    journals = Journals(resume=arguments.resume)
    try:
        failed = asyncio.run(_transcribe_all(arguments, servers, jobs, found, formats[0], journals)) if jobs else 0
    finally:
        if journals.has_parts:
            print("stt: the parts done are kept; run it again with --resume to continue", file=sys.stderr)
    if not failed:
        journals.delete()
    return 1 if failed or found.problems else 0


async def _transcribe_all(
    arguments: argparse.Namespace,
    servers: Sequence[str],
    jobs: Sequence[_Job],
    found: Found,
    format_: str,
    journals: Journals,
) -> int:
    """Transcribe, write and print all. Returns the number of failures."""
    failed = 0
    gate = asyncio.Semaphore(arguments.jobs or JOBS_PER_SERVER * len(servers))
    call = _Call(_call_options(arguments), journals, Style(layout_of(arguments), arguments.words))
    with Bar(len(jobs)) as bar:
        async with SttPool(servers, **options_of(arguments)) as pool:
            tasks = [asyncio.create_task(_transcribe(pool, job, call, gate, bar)) for job in jobs]
            try:
                for job, task in zip(jobs, tasks, strict=True):
                    outcome = await task
                    failed += bool(outcome.error)
                    with bar.hidden():
                        _print_outcome(job, outcome, format_, found.labelled, call.style)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    return failed


async def _transcribe(pool: SttPool, job: _Job, call: _Call, gate: asyncio.Semaphore, bar: Bar) -> _Outcome:
    from stt_client.recordings.splitting import job_of, last_of, transcribe

    async with gate:
        try:
            recording = await job_of(job.recording.audio, call.options, live=True)
            journal = await asyncio.to_thread(call.journals.open, recording)
            events = transcribe(pool, replace(recording, journal=journal))
            transcript = await last_of(_shown(events, job.number, bar))
            write(transcript, job.paths, call.style)
        except (SttError, OSError) as error:
            return _Outcome(error=explain(error, job.recording.name))
        finally:
            bar.finish(job.number)
    return _Outcome(transcript)


async def _shown(
    events: AsyncGenerator[TranscribeEvent, None], number: int, bar: Bar
) -> AsyncGenerator[TranscribeEvent, None]:
    """Pass on the events of a recording, and show its progress."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Progress):
                bar.update(number, event)
            yield event


def _print_outcome(job: _Job, outcome: _Outcome, format_: str, labelled: bool, style: Style) -> None:
    if outcome.transcript is None:
        print(f"stt: {job.recording.name}: {outcome.error}", file=sys.stderr)
    elif job.paths:
        for path in job.paths:
            print(path)
    else:
        name = job.recording.name if labelled else None
        sys.stdout.write(for_stdout(outcome.transcript, format_, name, style))
    # A reader of a pipe gets each result as soon as it is complete.
    sys.stdout.flush()


def _call_options(arguments: argparse.Namespace) -> CallOptions:
    own = {"encoding": raw_format_of(arguments), "separate_channels": arguments.channels}
    if not {"srt", "vtt"}.isdisjoint(arguments.formats or ()):
        own["word_timestamps"] = True
    return cast(CallOptions, {**speech_of(arguments), **own})


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"invalid number {text}: must be at least 1")
    return count
