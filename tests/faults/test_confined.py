"""A service works without privileges on a read-only file system."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stt_client import SttClient
from stt_server.testing.audio_samples import encode
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import running
from tests.faults.callers import http, post
from tests.faults.confined import USER, confined_primary
from tests.faults.test_starting import refused
from tests.support.speech import RATE, samples_of, words

FOX = "the quick brown fox jumps over the lazy dog"


@pytest.mark.model
async def test_user_10001_on_a_read_only_root_decodes_and_transcribes(tmp_path: Path) -> None:
    process = confined_primary(tmp_path / "service")
    with running(process):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s+{USER}\s+{USER}$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        for capabilities in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert re.search(rf"^{capabilities}:\s+0+$", status, re.MULTILINE), capabilities
        mounts = Path(f"/proc/{process.pid}/mounts").read_text()
        options = dict(re.findall(r"^\S+ (\S+) \S+ (\w+)", mounts, re.MULTILINE))
        assert (options["/"], options["/tmp"], options["/usr"]) == ("ro", "rw", "ro")
        flac = encode(samples_of(SPEECH), RATE, "flac", "flac")  # decoded in a decoder process
        async with SttClient(process.target) as client, http(process) as rest:
            assert words((await client.transcribe(flac)).text) == FOX
            assert words((await post(rest, flac)).json()["text"]) == FOX
        assert process.children() != []
        assert process.stop() == 0
    assert "Traceback" not in process.log_text()


def test_without_a_temporary_folder_the_start_fails_clearly(tmp_path: Path) -> None:
    process = confined_primary(tmp_path / "service", Script(), writable_tmp=False)
    refused(process, 1, "temporary folder", "/tmp", "TMPDIR")
