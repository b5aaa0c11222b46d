"""The scripted service process answers, follows its script, and drains."""

from __future__ import annotations

from pathlib import Path

from stt_client import SttClient
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running


async def test_a_scripted_pair_answers_routes_and_exits(tmp_path: Path) -> None:
    fallback = ServiceProcess("fallback", tmp_path / "fallback", {}, Script(text="the larger model says"))
    with running(fallback):
        keys: dict[str, object] = {"FALLBACK_URL": f"grpc://{fallback.target}"}
        primary = ServiceProcess("primary", tmp_path / "primary", keys, Script())
        with running(primary):
            async with SttClient(primary.target) as client:
                sure = await client.transcribe(SPEECH, prompt="number 1")
                assert sure.text == "the quick brown fox jumps over the lazy dog number 1"
                primary.act(Script(confidence=0.1))
                unsure = await client.transcribe(SPEECH, prompt="number 2")
                assert (unsure.text, unsure.routing.fallback_used) == ("the larger model says number 2", True)
            assert primary.stop() == 0
        assert fallback.stop() == 0
