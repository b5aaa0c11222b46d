"""The `stt` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from stt_client.cli import bench, status, stream, transcribe
from stt_client.cli.errors import UsageError

INTERRUPTED = 130
"""Exit status after Ctrl-C, by the convention of shells: 128 + SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0; 1 if something failed; 130 after Ctrl-C.

    Raises:
        SystemExit: 2 for invalid usage, 0 for `--help`.
    """
    arguments = build_parser().parse_args(argv)
    # Escape characters that the terminal can't encode instead of failing.
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
        # The reader, such as `head`, has exited. Keep Python's flush at exit from failing, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # The commands report errors of their own files. This is standard output, for example on a full disk.
        print(f"stt: can't write to standard output: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def build_parser() -> argparse.ArgumentParser:
    """Create the parser of all commands. Each command sets `run` and `parser`."""
    parser = argparse.ArgumentParser(prog="stt", description="Transcribe speech with a local or remote service.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (transcribe, stream, status, bench):
        command.add_to(commands)
    return parser
