"""`bench grid`: faster-whisper's fastest settings that are as accurate as our engine.

Greedy decoding without timestamps is its fastest way, but loses words wherever the model stops early. So each
combination of the given values is measured once on the same recordings, the language given, beside our engine with the
language given. A combination is complete if its word error rate exceeds ours by at most `TOLERANCE`, in English and in
the other languages. Other work on the machine affects processor time least: the table is sorted by it. Interrupted, it
prints what it has.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from rich.table import Table

from buildscripts.lib.bench.contenders import FasterWhisper, Measuring, Run
from buildscripts.lib.bench.engine import add_common, clips_of, progress_bar, write_json
from buildscripts.lib.bench.mixes import MIXES, choose
from buildscripts.lib.bench.report import Accuracy, accuracy_by_group, console, heading, rate_cells
from buildscripts.lib.load.closed_loop import Measurement, Recording
from buildscripts.lib.load.corpus import CorpusError
from stt_server.config import ConfigError
from stt_server.testing.processes import ProcessError

OURS = "ours-forced"
TOLERANCE = 0.01
"""Most that the word error rate of a complete combination exceeds ours, in each group of languages."""
_MODEL = ("num_workers", "cpu_threads")
"""Arguments of `WhisperModel`; others are those of `transcribe`."""
_BATCHED_ONLY = "batch_size"

Axis = tuple[str, tuple[Any, ...]]
Groups = tuple[Accuracy, Accuracy]
"""In English, and in other languages."""


def axis(text: str) -> Axis:
    """Parse an argument such as beam_size=1,5 or temperature=0,default."""
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE,VALUE")
    try:
        return name, tuple(None if value == "default" else ast.literal_eval(value) for value in values.split(","))
    except (ValueError, SyntaxError):
        raise argparse.ArgumentTypeError(f"a value of {text} is neither `default` nor a Python literal") from None


def combinations(axes: Sequence[Axis]) -> Iterator[FasterWhisper]:
    """Every combination once, named by what varies.

    Arguments that are `default` are not passed, and `batch_size` is only to batches.

    Args:
        axes: arguments of faster-whisper and their values; `batched`: whether to use BatchedInferencePipeline.
    """
    seen = set()
    varied = {name for name, values in axes if len(values) > 1}
    for values in product(*(values for _, values in axes)):
        chosen = {name: value for (name, _), value in zip(axes, values) if value is not None}
        batched = bool(chosen.pop("batched", False))
        if not batched:
            chosen.pop(_BATCHED_ONLY, None)
        named = [f"{name}={value}" for name, value in chosen.items() if name in varied]
        what = " ".join(["batched"] * (batched and "batched" in varied) + named) or "nothing varied"
        if what not in seen:
            seen.add(what)
            model = {name: value for name, value in chosen.items() if name in _MODEL}
            call = {name: value for name, value in chosen.items() if name not in _MODEL}
            yield FasterWhisper(what, model, call, forced=True, batched=batched)


def is_complete(theirs: Groups, ours: Groups) -> bool:
    """Whether neither word error rate exceeds ours by more than `TOLERANCE`."""
    rates = [(their.rate, our.rate) for their, our in zip(theirs, ours)]
    return all(their - our <= TOLERANCE for their, our in rates if their is not None and our is not None)


def table(found: Mapping[str, Measurement], recordings: Sequence[Recording]) -> Table:
    """Table of ours and the combinations, those with the most audio per processor second first."""
    own = accuracy_by_group(recordings, [found[OURS].texts])
    out = Table(title=f"{len(recordings)} recordings, {found[OURS].audio:.0f} s", title_justify="left")
    columns = ("", "audio s / s", "/ processor s", "errors en", "others", "words lost en", "others", "complete")
    for name in columns:
        out.add_column(name, justify="right" if name else "left")
    for name, measurement in sorted(found.items(), key=lambda item: (item[0] != OURS, item[1].cpu or 0.0)):
        groups = accuracy_by_group(recordings, [measurement.texts])
        out.add_row(
            name,
            f"{measurement.throughput:.1f}",
            f"{measurement.audio / (measurement.cpu or 1.0):.1f}",
            *rate_cells(*groups),
            "yes" if is_complete(groups, own) else "no",
        )
    return out


async def measure(args: argparse.Namespace, recordings: Sequence[Recording], found: dict[str, Measurement]) -> None:
    """Measure our engine and all combinations, each once, and add them to `found` by name."""
    (callers,) = args.callers
    configurations = list(combinations(args.axis))
    async with Measuring(Run(args.model, True, dict(args.set), recordings)) as measuring:
        with progress_bar() as bar:
            task = bar.add_task(OURS, total=len(configurations) + 1)
            found[OURS] = await measuring.ours(OURS, callers)
            for configuration in configurations:
                bar.update(task, advance=1, description=configuration.what)
                measured = await measuring.faster_whisper(configuration.what, configuration, callers)
                found[configuration.what] = measured


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench grid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser, callers="8", rounds=1, clips=16)
    parser.add_argument("--mix", choices=MIXES, default="middle", help="as in bench engine; default: middle")
    parser.add_argument(
        "--axis",
        type=axis,
        action="append",
        default=[],
        metavar="NAME=VALUE,VALUE",
        help="an argument of WhisperModel or transcribe, or `batched=True,False`; the value `default` passes none",
    )
    args = parser.parse_args(argv)
    if len(args.callers) != 1 or args.rounds != 1:
        parser.error("a grid takes one number of callers and one round")
    found: dict[str, Measurement] = {}
    try:
        recordings = [Recording.of(clip) for clip in choose(clips_of(args), args.mix, args.clips)]
        asyncio.run(measure(args, recordings, found))
    except (CorpusError, ConfigError, ProcessError) as error:
        print(f"bench grid: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if OURS not in found:
            return 130
    out, head = console(), heading("grid", argv)
    out.print(head, highlight=False, markup=False, soft_wrap=True)
    out.print(table(found, recordings))
    if args.json:
        write_json(args.json, head, recordings, list(found.values()))
    return 0
