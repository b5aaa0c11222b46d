"""Fuzz everything that accepts input, and count the outcomes.

Targets for bytes: the decoder (plain WAV in this process, other formats in a child process), multipart forms,
Content-Type headers, configuration files, messages of Realtime and Wyoming. Targets for requests, sent to a real
service: fields of Transcribe, fields of the REST form and of OpenAI's, first messages of a stream, events of a Realtime
session. The outcome is text or an error of the table; anything else is a crash. An input that crashes is minimized,
printed, and if it is bytes kept in buildscripts/lib/fuzz/corpus. The exit status is 1 if there was a crash.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from buildscripts.lib.fuzz import seeds as corpus_seeds
from buildscripts.lib.fuzz.mutation import mutated
from buildscripts.lib.fuzz.requests import REQUESTS, serving
from buildscripts.lib.fuzz.targets import CORPUS, TARGETS, corpus, target

ROUND = 500
"""Inputs per seed."""
SLOW_S = 2.0
PROGRESS_S = 10.0
LONGEST_SHOWN = 2000


@dataclass
class Tally:
    name: str
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    crashes: list[str] = field(default_factory=list)
    last: Any = None
    """Last input; after a crash the smallest one that crashes."""

    def line(self) -> str:
        total = sum(self.outcomes.values())
        counts = ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common())
        found = f"{len(self.crashes)} crashes, {self.slow} slow"
        return f"{self.name}: {self.seconds:.0f} s, {total} inputs, {found} ({counts})"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together; default: 10")
    parser.add_argument("--target", action="append", choices=[*TARGETS, *REQUESTS], help="repeatable; default: all")
    parser.add_argument("--seed", type=int, default=None, help="first seed; default: the time")
    parser.add_argument("--write-seeds", action="store_true", help="regenerate the valid files of the corpus, and exit")
    arguments = parser.parse_args(argv)
    if arguments.write_seeds:
        print(f"{corpus_seeds.write(CORPUS)} bytes in {CORPUS}")
        return 0
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs every malformed form
    first_seed = int(time.time()) if arguments.seed is None else arguments.seed
    names = arguments.target or [*TARGETS, *REQUESTS]
    print(f"seed {first_seed}; {arguments.minutes:g} minutes for {', '.join(names)}", flush=True)
    tallies = [_fuzz(name, arguments.minutes * 60 / len(names), first_seed) for name in names]
    print("\n".join(tally.line() for tally in tallies))
    print(f"seed {first_seed}; {sum(sum(tally.outcomes.values()) for tally in tallies)} inputs in all")
    return 1 if any(tally.crashes for tally in tallies) else 0


def _fuzz(name: str, seconds: float, first_seed: int) -> Tally:
    with ExitStack() as stack:
        if name in REQUESTS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stt-fuzz-")))
            strategy, run = REQUESTS[name]
            service = stack.enter_context(serving(folder))
            return _rounds(name, strategy, lambda sent: run(service, sent), seconds, first_seed)
        run_bytes = stack.enter_context(target(name))
        return _rounds(name, mutated(list(corpus(name).values())), run_bytes, seconds, first_seed)


def _rounds(
    name: str, strategy: st.SearchStrategy[Any], run: Callable[[Any], str], seconds: float, first_seed: int
) -> Tally:
    tally = Tally(name)
    spoken = tally.started
    number = first_seed
    while time.monotonic() < tally.started + seconds:
        try:
            _round(strategy, run, number, tally)()
        except Exception as error:
            tally.crashes.append(f"seed {number}: {type(error).__name__}: {error}")
            print(f"{name}: {tally.crashes[-1]}\n  of {_saved(name, tally.last)}", flush=True)
        number += 1
        tally.seconds = time.monotonic() - tally.started
        if time.monotonic() > spoken + PROGRESS_S:
            spoken = time.monotonic()
            print(tally.line(), flush=True)
    return tally


def _round(
    strategy: st.SearchStrategy[Any], run: Callable[[Any], str], number: int, tally: Tally
) -> Callable[[], None]:
    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(sent: Any) -> None:
        tally.last = sent
        began = time.monotonic()
        outcome = run(sent)
        tally.outcomes[outcome] += 1
        if time.monotonic() - began > SLOW_S:
            tally.slow += 1
            print(f"{tally.name}: {time.monotonic() - began:.1f} s, {outcome}: {_saved(tally.name, sent)}", flush=True)

    return one


def _saved(name: str, sent: Any) -> str:
    """Path of a saved input, or the input itself if it is not bytes."""
    if not isinstance(sent, bytes):
        return repr(sent)[:LONGEST_SHOWN]
    path = CORPUS / name / f"found-{hashlib.sha256(sent).hexdigest()[:8]}"
    path.write_bytes(sent)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
