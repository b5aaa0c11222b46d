"""The README's Python examples run, and its error table is right."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from protos.stt.v1.errors import ERRORS
from stt_server.testing.paths import ROOT, SPEECH
from tests.support.services import running
from tests.support.speech import samples_of

README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_prints_the_transcript(tmp_path: Path, number: int) -> None:
    assert len(EXAMPLES) == 4
    # Read by the example that transcribes standard input.
    pcm = (samples_of(SPEECH) * 32767).astype("<i2").tobytes()
    async with running(tmp_path, HTTP_PORT=0) as service:
        code = EXAMPLES[number].replace("localhost:50051", f"127.0.0.1:{service.grpc_port}")
        code = code.replace("localhost:8081", f"127.0.0.1:{service.http_port}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate(pcm)
    assert process.returncode == 0, err.decode()
    assert "the quick brown fox jumps over the lazy dog" in out.decode()


def test_the_error_table_is_complete() -> None:
    rows = re.findall(r"^\| (`.*) \| ([A-Z_ /]+) \| (\d+) \|$", README, re.MULTILINE)
    listed = {
        (type_, int(http)): statuses.split(" / ")
        for types, statuses, http in rows
        for type_ in re.findall(r"`([a-z_]+)`", types)
    }
    for (type_, http), statuses in listed.items():
        assert (ERRORS[type_].http, ERRORS[type_].status in statuses) == (http, True), type_
    assert {type_ for type_, _ in listed} == set(ERRORS) - {"cancelled", "upstream_unavailable"}
