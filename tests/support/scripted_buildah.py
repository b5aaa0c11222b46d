"""Stand-in for buildah: its images all have one file system, and the labels of their build arguments.

A program of its own: copied to a folder with the file system in `image` and the ENTRYPOINT, as JSON, in `entrypoint`.
Writes to `removed`, for each container that is removed, how many processes run in its file system.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

FOLDER = Path(sys.argv[0]).parent


def main(arguments: Sequence[str]) -> None:
    command = arguments[0]
    if command == "build":
        pairs = [after for before, after in pairwise(arguments) if before == "--build-arg"]
        (FOLDER / "arguments").write_text(json.dumps(dict(pair.split("=", 1) for pair in pairs)))
    elif command == "inspect":
        print(json.dumps({"Docker": {"config": config(json.loads((FOLDER / "arguments").read_text()))}}))
    elif command == "from":
        print("container")
    elif command == "mount":
        print(FOLDER / "image")
    elif command == "rm":
        with (FOLDER / "removed").open("a") as removed:
            print(processes(), file=removed)


def config(arguments: dict[str, str]) -> dict[str, object]:
    names = {"version": "VERSION", "created": "CREATED", "revision": "COMMIT", "source": "SOURCE"}
    return {
        "User": "10001:10001",
        "Env": ["PATH=/usr/bin"],
        "Entrypoint": json.loads((FOLDER / "entrypoint").read_text()),
        "Healthcheck": {"Test": ["CMD", "/usr/bin/python"]},
        "Labels": {f"org.opencontainers.image.{label}": arguments[name] for label, name in names.items()},
    }


def processes() -> int:
    """Number of processes with this root."""
    count = 0
    for root in Path("/proc").glob("[0-9]*/root"):
        with contextlib.suppress(OSError):
            count += root.samefile(FOLDER / "image")
    return count


if __name__ == "__main__":
    main(sys.argv[1:])
