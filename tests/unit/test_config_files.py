"""docs/configuration.md and configs/*.env agree with the table of keys."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest

from stt_server.config import KEYS, FallbackTarget, Key, Role, parse
from stt_server.config.envfile import read_entries
from stt_server.testing.services import MODEL_KEYS
from tests.support.config_files import Reader, make_model

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
MODELS: dict[Role, str] = {
    "primary": "/models/whisper-small-ct2",
    "fallback": "/models/whisper-medium-ct2",
}


def _documented(key: Key) -> str:
    default = f"`{key.default}`" if key.default else f"empty: {key.default_means}"
    if key.default is None:
        default = "required"
    if key.fallback_default is not None:
        default += f" (fallback: `{key.fallback_default}`)"
    return f"| `{key.name}` | {default} | {key.cast.expected} | {key.meaning} | {'live' if key.live else 'restart'} |"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_documentation_describes_each_key(key: Key) -> None:
    assert _documented(key) in DOC.splitlines()


def test_documentation_has_no_other_keys() -> None:
    rows = [line for line in DOC.splitlines() if line.startswith("| `")]
    assert len(rows) == len(KEYS)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_empty_default_is_explained(key: Key) -> None:
    assert bool(key.default_means) == (key.default == "")


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_shipped_file_lists_all_keys_of_its_service(service: Role) -> None:
    text = (ROOT / f"configs/stt_{service}.env").read_text(encoding="utf-8")
    assert list(read_entries(text, "x")) == [key.name for key in KEYS if service in key.services]


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_shipped_file_is_valid_and_has_the_defaults(service: Role, tmp_path: Path) -> None:
    text = (ROOT / f"configs/stt_{service}.env").read_text(encoding="utf-8")
    assert f"\n{MODEL_KEYS[service]}={MODELS[service]}\n" in text
    model = make_model(tmp_path)
    settings = parse(text.replace(MODELS[service], str(model)), service)
    assert settings.warnings == ()
    if service == "primary":
        assert settings.fallback == FallbackTarget("dns:///stt-fallback:50052", tls=False)
    assert dataclasses.replace(settings, fallback=None) == Reader(model)(service=service)


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_shipped_file_explains_each_key(service: Role) -> None:
    lines = (ROOT / f"configs/stt_{service}.env").read_text(encoding="utf-8").splitlines()
    bare = [line for above, line in pairwise(lines) if "=" in line and line[0] != "#" and above[:1] != "#"]
    assert bare == []


@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_shipped_file_marks_live_keys(service: Role) -> None:
    lines = (ROOT / f"configs/stt_{service}.env").read_text(encoding="utf-8").splitlines()
    marked = [line.partition("=")[0] for above, line in pairwise(lines) if above == "# Live."]
    assert marked == [key.name for key in KEYS if key.live and service in key.services]
