"""Runs the Node clients of `tests/node`."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from tests.support.needs import lacking

NODE = Path(__file__).resolve().parent.parent / "node"


def require_node(package: str) -> None:
    """Skip or fail the test if Node or a package is not installed.

    Args:
        package: folder in `node_modules`, such as `openai`.
    """
    if shutil.which("node") is None:
        lacking("`node` is not on the PATH: install Node 20 or newer")
    if not (NODE / "node_modules" / package).is_dir():
        lacking(f"{package} is missing: run `npm install --no-save --prefix tests/node` (buildscripts/test does)")


async def run_node(script: str, *args: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `node SCRIPT ARGS`.

    Args:
        script: file in `tests/node`.
        env: additional environment variables.
    """
    process = await asyncio.create_subprocess_exec(
        "node",
        str(NODE / script),
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, out.decode(), err.decode()
