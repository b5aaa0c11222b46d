"""`bench languages`: which languages are found in recordings, in their beginnings, and in pairs of them.

Recordings of the corpus of up to 28 s are recognized whole and cut after `--beginning` seconds, with the language
detected. Then random pairs of short ones are joined with a second of silence: in different languages, which are to be
cut, and in one, which are not. The words of a pair are compared with those of each recording alone, in its language.
The model runs in this process, in the wiring of the service. `--constant` shows what another value of the engine's
constants does, such as LIKELY_RIVAL=2 (no language is decided by its text) or LIKELY_CHANGE=0.8.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

from rich.progress import Progress

from buildscripts.lib.bench.contenders import Answering, answering, settings_text
from buildscripts.lib.bench.engine import add_corpus, clips_of, key_value, progress_bar
from buildscripts.lib.bench.language_report import (
    Detection,
    Joined,
    Pair,
    beginnings,
    detection_table,
    joined_result,
    mixed_pairs,
    pair_clip,
    pairs_line,
    same_line,
    same_pairs,
    wrong_lines,
)
from buildscripts.lib.bench.report import console, heading
from buildscripts.lib.load.closed_loop import Recording
from buildscripts.lib.load.corpus import Clip, CorpusError
from stt_server.config import ConfigError

LONGEST_S = 28.0
PARTS = ("recordings", "beginnings", "pairs", "same")
_ENGINE = "stt_server.engine."


@dataclass(frozen=True)
class Plan:
    """What is recognized."""

    recordings: list[Clip]
    beginnings: list[Clip]
    pairs: list[Pair]
    """In different languages."""
    same: list[Pair]
    """In one language."""

    @property
    def recognitions(self) -> int:
        return len(self.recordings) + len(self.beginnings) + 3 * (len(self.pairs) + len(self.same))


@dataclass(frozen=True)
class Found:
    """Results, in the order of the plan."""

    recordings: list[Detection]
    beginnings: list[Detection]
    pairs: list[Joined]
    same: list[Joined]


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench languages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_corpus(parser, model="base")
    parser.add_argument("--parts", type=_parts, default=PARTS, help=f"some of {','.join(PARTS)}; default: all")
    parser.add_argument("--beginning", type=float, default=2.5, help="seconds; default: 2.5")
    parser.add_argument("--pairs", type=int, default=40, help="in different languages; default: 40")
    parser.add_argument("--same", type=int, default=14, help="most pairs in each language; default: 14")
    parser.add_argument("--seed", type=int, default=5, help="of the choice of pairs; default: 5")
    parser.add_argument(
        "--constant",
        type=key_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of stt_server/engine, a number",
    )
    return parser.parse_args(argv)


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    if unknown := sorted({*parts} - {*PARTS}):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return parts


class ConstantError(Exception):
    """A constant of the engine that can't be set; the message is one line."""


@contextmanager
def constants(values: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Give constants of the engine other values, in all of its modules.

    Raises:
        ConstantError: there is no such constant, or the value is no number.
    """
    with ExitStack() as stack:
        for name, text in values:
            modules = [m for key, m in sys.modules.items() if key.startswith(_ENGINE) and hasattr(m, name)]
            try:
                value = type(getattr(modules[0], name))(text)
            except IndexError:
                raise ConstantError(f"--constant: stt_server/engine has no {name}") from None
            except (ValueError, TypeError):
                raise ConstantError(f"--constant: {name} can't be {text!r}") from None
            for module in modules:
                stack.enter_context(mock.patch.object(module, name, value))
        yield


def plan_of(args: argparse.Namespace, clips: Sequence[Clip]) -> Plan:
    """What to recognize of a corpus."""
    short = [clip for clip in clips if clip.seconds <= LONGEST_S]
    return Plan(
        short if "recordings" in args.parts else [],
        beginnings(short, args.beginning) if "beginnings" in args.parts else [],
        mixed_pairs(clips, args.pairs, args.seed) if "pairs" in args.parts else [],
        same_pairs(clips, args.same, args.seed) if "same" in args.parts else [],
    )


class Measuring:
    """Recognizes one recording after the other."""

    def __init__(self, answer: Answering, bar: Progress, total: int) -> None:
        self._answer = answer
        self._bar = bar
        self._task = bar.add_task("recognizing", total=total)
        self._alone: dict[str, str] = {}
        """Texts of recordings in their given language, by name."""

    async def detection(self, clip: Clip) -> Detection:
        answer = await self._answer(Recording.of(clip), None)
        self._bar.advance(self._task)
        return Detection(clip.name, clip.language, answer.language, answer.language_probability, answer.text)

    async def joined(self, pair: Pair) -> Joined:
        alone = [await self._text_alone(clip) for clip in pair]
        answer = await self._answer(Recording.of(pair_clip(pair)), None)
        self._bar.advance(self._task)
        found = [segment.language or answer.language for segment in answer.segments]
        return joined_result(pair, alone, found, answer.text)

    async def _text_alone(self, clip: Clip) -> str:
        if clip.name not in self._alone:
            self._alone[clip.name] = (await self._answer(Recording.of(clip), clip.language)).text
        self._bar.advance(self._task)
        return self._alone[clip.name]


async def measure(args: argparse.Namespace, plan: Plan) -> Found:
    async with answering(settings_text(args.model, dict(args.set))) as answer:
        with progress_bar() as bar:
            run = Measuring(answer, bar, plan.recognitions)
            return Found(
                [await run.detection(clip) for clip in plan.recordings],
                [await run.detection(clip) for clip in plan.beginnings],
                [await run.joined(pair) for pair in plan.pairs],
                [await run.joined(pair) for pair in plan.same],
            )


def write_json(path: Path, head: str, found: Found) -> None:
    written = {"run": head.splitlines(), **asdict(found)}
    path.write_text(json.dumps(written, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    args = arguments(argv)
    try:
        with constants(args.constant):
            found = asyncio.run(measure(args, plan_of(args, clips_of(args))))
    except (CorpusError, ConfigError, ConstantError) as error:
        print(f"bench languages: {error}", file=sys.stderr)
        return 1
    head = heading("languages", argv)
    report(head, found, args.beginning)
    if args.json:
        write_json(args.json, head, found)
    return 0


def report(head: str, found: Found, beginning_s: float) -> None:
    out = console()
    out.print(head, highlight=False, markup=False, soft_wrap=True)
    if found.recordings or found.beginnings:
        out.print(detection_table(found.recordings, found.beginnings, beginning_s))
    lines = wrong_lines(found.recordings, found.beginnings)
    lines += [pairs_line(found.pairs)] if found.pairs else []
    lines += [same_line(found.same)] if found.same else []
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
