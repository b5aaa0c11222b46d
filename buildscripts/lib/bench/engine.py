"""`bench engine`: our engine against faster-whisper, with the same model and recordings.

Each of the two runs in a process of its own: ours with what the services set at their start
(`stt_server/lifecycle/cpu_libraries.py`), faster-whisper as any program that imports it.

Contenders take turns within each round, in rotating order, so that a slow phase of the machine affects all of them.
Ours, being fast, runs before each of the others, and its mean counts. Recordings are decoded beforehand. Our engine
does all the work of the service: voice activity detection, chunks, features, batched recognition, text checks.
faster-whisper is `transcribe`, to the last segment. Without --corpus the clips are samples/, which are few, short and
read by a machine: prefer a corpus of your own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from buildscripts.lib.bench.contenders import OURS, THEIRS, Measuring, Run, theirs
from buildscripts.lib.bench.mixes import MIXES, choose
from buildscripts.lib.bench.plots import plot_speed
from buildscripts.lib.bench.report import accuracy_table, console, heading, speed_table
from buildscripts.lib.load.closed_loop import Measurement, Recording
from buildscripts.lib.load.corpus import Clip, CorpusError, load
from buildscripts.lib.models.pins import ROOT
from stt_server.config import ConfigError
from stt_server.lifecycle.process_limits import usable_cores
from stt_server.testing.processes import ProcessError


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, callers="1,2,4,8,16", rounds=3, clips=16)
    names = ", ".join([*OURS, *THEIRS])
    parser.add_argument(
        "--mix", choices=MIXES, default="short", help="under 10 s, 10 to 30 s, minutes, a mixture, or each clip once"
    )
    parser.add_argument("--contenders", type=_contenders, help=f"some of {names}; default: by mix")
    parser.add_argument(
        "--language", choices=("detected", "forced"), default="detected", help="for contenders that allow it"
    )
    parser.add_argument("--png", type=Path, help="write a plot (needs the extra `bench`)")
    args = parser.parse_args(argv)
    if args.png and find_spec("matplotlib") is None:
        parser.error("--png needs matplotlib: pip install 'stt-pair[bench]'")
    return args


def add_common(parser: argparse.ArgumentParser, *, callers: str, rounds: int, clips: int) -> None:
    """Add the arguments that benchmarks of requests share."""
    add_subject(parser, model="base", rounds=rounds)
    parser.add_argument("--clips", type=_positive, default=clips, help=f"requests per measurement; default: {clips}")
    parser.add_argument("--callers", type=numbers, default=callers, help=f"concurrent callers; default: {callers}")


def add_subject(parser: argparse.ArgumentParser, *, model: str, rounds: int) -> None:
    """Add the arguments for the model, the corpus and the number of rounds."""
    add_corpus(parser, model=model)
    parser.add_argument("--rounds", type=_positive, default=rounds, help=f"default: {rounds}")


def add_corpus(parser: argparse.ArgumentParser, *, model: str) -> None:
    """Add the arguments for the model, its configuration, the corpus and the results."""
    parser.add_argument(
        "--model", type=model_folder, default=model, help=f"base, tiny.en, ... or a model folder; default: {model}"
    )
    parser.add_argument("--corpus", type=Path, default=ROOT / "samples", help="folder with a manifest.jsonl")
    parser.add_argument("--languages", type=_codes, default=(), help="only clips in these languages, such as en,de")
    parser.add_argument(
        "--set",
        type=key_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="configure ours",
    )
    parser.add_argument("--json", type=Path, help="write all measurements, with their texts")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def numbers(text: str) -> tuple[int, ...]:
    """Parse an argument such as 1,2,4."""
    return tuple(_positive(part) for part in text.split(","))


def _codes(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def key_value(text: str) -> tuple[str, str]:
    """Parse an argument such as BEAM_SIZE=1."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")
    return name, value


def _contenders(text: str) -> tuple[str, ...]:
    names = _codes(text)
    for name in names:
        if name not in (*OURS, *THEIRS):
            raise argparse.ArgumentTypeError(f"unknown contender {name}")
    return names


def model_folder(name: str) -> Path:
    """Folder of a model, given by its name under models/ or by its path."""
    folder = Path(name) if Path(name).is_dir() else ROOT / "models" / f"whisper-{name}-ct2"
    if not (folder / "model.bin").is_file():
        raise argparse.ArgumentTypeError(f"no model in {folder}; run buildscripts/models to fetch one")
    return folder


def clips_of(args: argparse.Namespace) -> list[Clip]:
    """Clips of the corpus in the selected languages that the model knows.

    Raises:
        CorpusError: there are none.
    """
    # OpenAI's suffix for English-only models.
    languages = args.languages or (("en",) if ".en" in args.model.name else ())
    clips = [clip for clip in load(args.corpus) if not languages or clip.language in languages]
    if not clips:
        raise CorpusError(f"{args.corpus} has no clips in {', '.join(languages)}")
    return clips


def default_contenders(mix: str, language: str) -> tuple[str, ...]:
    ours = ("ours", "ours-forced") if language == "detected" else ("ours",)
    batched = ("batched", "batched-best") if mix in ("long", "mix") else ()
    return (*ours, "defaults", "handbook", "best", *batched)


def compared_with(contenders: Sequence[str]) -> Callable[[str], str | None]:
    """Which of our contenders another is compared with: where its language is forced, ours is forced too."""
    ways = theirs(1)

    def ours(name: str) -> str | None:
        if name not in ways:
            return "ours" if name == "ours-full" and "ours" in contenders else None
        wanted = "ours-forced" if ways[name].forced and "ours-forced" in contenders else "ours"
        return wanted if wanted in contenders else None

    return ours


def turns(
    contenders: Sequence[str], callers: Sequence[int], rounds: int, quick: Sequence[str] = ()
) -> Iterator[tuple[int, int, str]]:
    """Round, number of callers and contender of each measurement; the first contender rotates.

    Args:
        quick: contenders whose runs are so short that a moment's disturbance shows; run before each of the others.
    """
    slow = [name for name in contenders if name not in quick] or list(contenders)
    often = [name for name in contenders if name not in slow]
    for number in range(rounds):
        for place, count in enumerate(callers):
            shift = (number + place) % len(slow)
            for name in (*slow[shift:], *slow[:shift]):
                for turn in (*often, name):
                    yield number + 1, count, turn


def progress_bar() -> Progress:
    """Progress bar on standard error."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


async def measure(
    args: argparse.Namespace, contenders: Sequence[str], recordings: Sequence[Recording]
) -> list[Measurement]:
    measurements = []
    plan = list(turns(contenders, args.callers, args.rounds, quick=("ours", "ours-forced")))
    ways = theirs(usable_cores())
    async with Measuring(Run(args.model, args.language == "forced", dict(args.set), recordings)) as measuring:
        with progress_bar() as bar:
            task = bar.add_task("loading", total=len(plan))
            for number, callers, name in plan:
                bar.update(task, description=f"round {number}, callers {callers}, {name}")
                if name in OURS:
                    measurements.append(await measuring.ours(name, callers, number))
                else:
                    measurements.append(await measuring.faster_whisper(name, ways[name], callers, number))
                bar.advance(task)
    order = {name: place for place, name in enumerate(contenders)}
    return sorted(measurements, key=lambda m: (m.callers, order[m.contender], m.round))


def write_json(path: Path, head: str, recordings: Sequence[Recording], measurements: Sequence[Measurement]) -> None:
    clips = [{"name": r.name, "language": r.language, "seconds": r.seconds, "text": r.text} for r in recordings]
    found = {"run": head.splitlines(), "clips": clips, "measurements": [asdict(m) for m in measurements]}
    path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    args = arguments(argv)
    contenders = args.contenders or default_contenders(args.mix, args.language)
    try:
        recordings = [Recording.of(clip) for clip in choose(clips_of(args), args.mix, args.clips)]
        measurements = asyncio.run(measure(args, contenders, recordings))
    except (CorpusError, ConfigError, ProcessError) as error:
        print(f"bench engine: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report(args, heading("engine", argv), contenders, recordings, measurements)
    return 0


def report(
    args: argparse.Namespace,
    head: str,
    contenders: Sequence[str],
    recordings: Sequence[Recording],
    measurements: Sequence[Measurement],
) -> None:
    out = console()
    out.print(head, highlight=False, markup=False, soft_wrap=True)
    whats = OURS | {name: way.what for name, way in theirs(usable_cores()).items()}
    for name in contenders:
        out.print(f"  {name}: {whats[name]}", highlight=False, markup=False)
    seconds = sum(recording.seconds for recording in recordings)
    mix = f"{len(recordings)} {args.mix} clips, {seconds:.0f} s, language {args.language}, {args.rounds} rounds"
    for callers in args.callers:
        title = f"{callers} caller{'s' * (callers > 1)}; {mix}"
        out.print(speed_table(measurements, callers, compared_with(contenders), title))
    out.print(accuracy_table(measurements, recordings))
    out.print("Median over the rounds (minimum to maximum); ratios are computed per round.", highlight=False)
    out.print("Processor ratio: audio per second of processor time, which other load affects less.", highlight=False)
    if args.json:
        write_json(args.json, head, recordings, measurements)
    if args.png:
        plot_speed(measurements, tuple(OURS), f"{args.model.name}: {mix}", args.png)
