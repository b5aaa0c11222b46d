"""Options of `buildscripts/run`; the module prints its help with any Python, before .venv exists."""

from __future__ import annotations

import argparse
from pathlib import Path

from buildscripts.lib.models.pins import ROOT

DESCRIPTION = """\
Run the pair on this machine, transcribe a sample, and serve until Ctrl-C.

By default the multilingual model base is the primary, and the same weights with 5 beams in float32 are its fallback:
that shows the routing, not a gain. --english uses tiny.en with base behind it, a real cascade.
"""

MODEL_NAMES = ("base", "tiny.en", "small", "medium")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--models",
        nargs=2,
        choices=MODEL_NAMES,
        default=("base", "base"),
        metavar=("PRIMARY", "FALLBACK"),
        help="two of " + ", ".join(MODEL_NAMES) + "; small and medium come with: buildscripts/models small medium",
    )
    which.add_argument(
        "--english",
        action="store_const",
        dest="models",
        const=("tiny.en", "base"),
        help="same as --models tiny.en base",
    )
    parser.add_argument("--ports", choices=("default", "free"), default="default", help="free: any free ports")
    parser.add_argument("--once", action="store_true", help="stop after the demonstration")
    parser.add_argument("--run-dir", type=Path, default=ROOT / ".cache" / "run", help="for configurations and logs")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments()
