"""Subtitles of `stt transcribe` and `stt stream` against a scripted server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from protos.stt.v1 import speech_pb2
from stt_client.cli import main
from tests.support.contract_messages import transcript
from tests.support.contract_script import Script
from tests.support.contract_service import serving

TEXTS = ("Once", "upon", "a", "time,", "there", "was", "a", "king.")


async def stt(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, list(map(str, arguments)))


def fairy_tale() -> speech_pb2.TranscribeResponse:
    """Transcript whose words pause for 3 s after the comma."""
    response = transcript(" ".join(TEXTS))
    (segment,) = response.segments
    del segment.words[:]
    for number, text in enumerate(TEXTS):
        at = number * 500 + (3000 if number > 3 else 0)
        word = segment.words.add(text=f" {text}")
        word.start.FromMilliseconds(at)
        word.end.FromMilliseconds(at + 500)
    return response


async def test_cues_follow_the_words_and_the_layout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(response=fairy_tale())) as served:
        layout = ["--max-line-width", "12", "--max-line-count", "2"]
        assert await stt("transcribe", folder / "a.wav", "--srt", *layout, "--server", served.target) == 0
    assert capsys.readouterr().out == (
        "1\n00:00:00,000 --> 00:00:02,000\nOnce upon\na time,\n\n2\n00:00:05,000 --> 00:00:07,000\nthere was\na king.\n"
    )


@pytest.mark.parametrize(("arguments", "words"), [((), False), (("--words",), True)])
async def test_json_beside_subtitles_has_words_only_if_they_were_asked_for(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], words: bool
) -> None:
    async with serving(Script(response=fairy_tale())) as served:
        files: list[str | Path] = ["transcribe", folder / "a.wav", "--output", tmp_path]
        assert await stt(*files, "--json", "--vtt", "--server", served.target, *arguments) == 0
    assert served.script.requests[0].options.word_timestamps
    assert bool(json.loads((tmp_path / "a.json").read_text())["segments"][0]["words"]) == words
    assert (tmp_path / "a.vtt").read_text().count("-->") == 2


async def test_text_asks_for_no_words(folder: Path) -> None:
    async with serving() as served:
        assert await stt("transcribe", folder / "a.wav", "--server", served.target) == 0
    assert not served.script.requests[0].options.word_timestamps


@pytest.mark.parametrize("command", ["transcribe", "stream"])
@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--max-line-width", "9", "10 to 200"),
        ("--max-line-count", "x", "1 to 10"),
        ("--max-line-count", "11", "1 to 10"),
    ],
)
def test_values_out_of_range_are_refused(
    command: str, option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "a.wav", "--srt", option, value])
    assert exit_.value.code == 2
    assert f"argument {option}: invalid number {value}: must be {expected}" in capsys.readouterr().err
