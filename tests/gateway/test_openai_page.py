"""docs/openai.md: its examples run, its tables are those of the code; docs/integrations.md: its links resolve."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from gateway.openai.errors import OPENAI_ERRORS
from gateway.openai.form import TRANSCRIPTION_RULES
from stt_server.testing.paths import ROOT
from tests.support.certificates import authority, signed
from tests.support.node import NODE, need_node
from tests.support.services import running
from tests.support.speech import clip, linear16, samples_of

PAGE = (ROOT / "docs" / "openai.md").read_text()
UPLOADS, REALTIME = PAGE.split("## Realtime")


def examples(text: str) -> dict[str, str]:
    """Code by language."""
    return dict(re.findall(r"```(python|js|bash)\n(.*?)```", text, re.DOTALL))


EXAMPLES = examples(UPLOADS)
COMMANDS = {"python": (sys.executable, "-c"), "js": ("node", "-e"), "bash": ("bash", "-c")}


@pytest.mark.parametrize("language", COMMANDS)
async def test_an_example_prints_the_transcript(tmp_path: Path, language: str) -> None:
    if language == "js":
        need_node("openai")
    async with running(tmp_path, HTTP_PORT=0) as service:
        code = EXAMPLES[language].replace("localhost:8081", f"127.0.0.1:{service.http_port}")
        env = {"NODE_PATH": str(NODE / "node_modules"), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        process = await asyncio.create_subprocess_exec(
            *COMMANDS[language], code, cwd=ROOT, stdout=PIPE, stderr=PIPE, env=env
        )
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    assert "the quick brown fox jumps over the lazy dog" in " ".join(out.decode().split())
    assert len(EXAMPLES[language].splitlines()) <= 12


@pytest.mark.parametrize("language", ["python", "js"])
async def test_a_realtime_example_prints_the_transcript(tmp_path: Path, language: str) -> None:
    keys: dict[str, Any] = {}
    if language == "js":
        need_node("openai")
        ca = authority(tmp_path, "ca")
        server = signed(tmp_path, "server", ca)
        keys = {"TLS_CERT": server.cert, "TLS_KEY": server.key}
    (tmp_path / "speech.pcm").write_bytes(linear16(samples_of(clip("en", "quick_brown_fox")), 24000))
    async with running(tmp_path, HTTP_PORT=0, **keys) as service:
        code = examples(REALTIME)[language].replace("localhost:8081", f"localhost:{service.http_port}")
        env = {"NODE_PATH": str(NODE / "node_modules"), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        env["NODE_EXTRA_CA_CERTS"] = str(tmp_path / "ca.pem")
        process = await asyncio.create_subprocess_exec(
            *COMMANDS[language], code, cwd=tmp_path, stdout=PIPE, stderr=PIPE, env=env
        )
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    assert out.decode().strip() == "the quick brown fox jumps over the lazy dog"


def test_every_error_is_in_its_row() -> None:
    rows = re.findall(r"^\| (`.*) \| ([\d, ]+) \| `(\w+)` \| (.*) \| (.*) \| (yes|no) \|$", PAGE, re.MULTILINE)
    listed: dict[str, tuple[object, ...]] = {}
    for types, statuses, kind, code, param, retried in rows:
        for type_, status in zip(re.findall(r"`(\w+)`", types), [*statuses.split(", ")] * 2):
            row = (int(status), kind, type_ if code == "the same" else code.strip("`"), param.strip("`"), retried)
            listed.setdefault(type_, row)
    for type_, found in OPENAI_ERRORS.items():
        param = "the field" if type_ == "invalid_argument" else found.param or "-"
        row = (found.http, found.type, found.code, param, "yes" if found.should_retry else "no")
        assert type_ == "cancelled" or listed[type_] == row


def test_every_field_is_listed() -> None:
    for name in TRANSCRIPTION_RULES.fields:
        assert f"`{name.removesuffix('[]')}" in PAGE, name


@pytest.mark.parametrize("page", ["openai.md", "integrations.md"])
def test_every_linked_file_exists(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / page).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []
