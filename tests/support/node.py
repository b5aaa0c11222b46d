"""The Node clients of tests/node."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.needs import lacking

NODE = Path(__file__).resolve().parent.parent / "node"
NOT_INSTALLED = (
    "tests/node/node_modules is missing: run `npm install --no-save --prefix tests/node` first (buildscripts/test does)"
)
TIMEOUT_S = 120
"""Of a client that takes a few seconds, on a busy machine many more."""


def need_node(package: str) -> None:
    """Skip the test, or fail it where nothing may be lacking, unless Node and the package are installed."""
    if shutil.which("node") is None:
        lacking("`node` is not on the PATH: install Node 20 or newer")
    if not (NODE / "node_modules" / package).is_dir():
        lacking(NOT_INSTALLED)


async def run_node(script: Path, *args: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `node SCRIPT ARGS`."""
    process = await asyncio.create_subprocess_exec(
        "node", str(script), *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), err.decode()
