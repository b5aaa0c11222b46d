"""The `stt` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from stt_client.cli import status, stream, transcribe
from stt_client.cli.connection import UsageError

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0; 1 where something failed; 130 after Ctrl-C.

    Raises:
        SystemExit: 2 for bad usage, 0 for `--help`.
    """
    arguments = build_parser().parse_args(argv)
    # A name or a text that the terminal can't show must not end the run.
    for file in (sys.stdout, sys.stderr):
        if hasattr(file, "reconfigure"):
            file.reconfigure(errors="backslashreplace")
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except UsageError as error:
        arguments.parser.error(str(error))
    except KeyboardInterrupt:
        print("stt: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # What the commands read and write they tell of themselves: this is standard output, on a full disk.
        print(f"stt: can't write the output: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run` and `parser`."""
    parser = argparse.ArgumentParser(prog="stt", description="Speech to text, by a service near or far.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (transcribe, stream, status):
        command.add_to(commands)
    return parser
