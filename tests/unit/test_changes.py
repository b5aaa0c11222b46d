"""Changes of the configuration: which are applied, and which need a restart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stt_server.config import KEYS, ConfigError
from stt_server.config.changes import compare, refuse_removed_keys
from tests.support.config_files import Reader, make_model


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(make_model(tmp_path))


def test_live_keys_are_applied_and_others_wait(read: Reader) -> None:
    running = read("API_KEYS=a:0123456789abcdef\nGRPC_PORT=1000\nLOG_LEVEL=info\n")
    wanted = read("API_KEYS=b:0123456789abcdef\nGRPC_PORT=2000\nLOG_LEVEL=debug\nMAX_BATCH_SIZE=3\n")
    found = compare(running, wanted)
    assert (found.applied, found.waiting) == (("API_KEYS", "LOG_LEVEL"), ("MAX_BATCH_SIZE", "GRPC_PORT"))
    assert found.settings == dataclasses.replace(running, api_keys=wanted.api_keys, log_level="debug")
    assert not found.names_fallback


def test_equal_settings_are_no_change(read: Reader) -> None:
    running = read("LOG_LEVEL=info\n# a comment\n")
    found = compare(running, read("RATE_LIMIT_RPS=15\n"))
    assert (found.settings, found.applied, found.waiting) == (running, (), ())


def test_keys_of_the_contract_are_live() -> None:
    live = {key.name for key in KEYS if key.live}
    assert {"API_KEYS", "RATE_LIMIT_RPS", "RATE_LIMIT_BURST", "LOG_LEVEL"} <= live
    assert {key.name for key in KEYS if key.name.startswith(("CONF_", "FALLBACK_", "MIN_WORDS"))} <= live


def test_keys_without_effect_here_are_no_change(read: Reader) -> None:
    running = read("", "fallback")
    found = compare(running, read("FALLBACK_TIMEOUT_S=5\n", "fallback"))
    assert (found.applied, found.waiting) == ((), ())
    assert "FALLBACK_TIMEOUT_S" in found.settings.warnings[0]


def test_change_of_the_fallback_is_recognized(read: Reader) -> None:
    assert compare(read(), read("FALLBACK_URL=grpc://f:1\n")).names_fallback


@pytest.mark.parametrize("lines", ["", "LOG_LEVEL=info\n", "# API_KEYS=a\n"])
def test_removal_of_api_keys_is_refused(read: Reader, lines: str) -> None:
    running = read("API_KEYS=a:0123456789abcdef\n")
    with pytest.raises(ConfigError, match=r"^x\.env: API_KEYS: was removed; refusing to disable authentication"):
        refuse_removed_keys(running, read(lines), lines.encode(), source="x.env")


@pytest.mark.parametrize(("before", "lines"), [("", ""), ("API_KEYS=a:0123456789abcdef\n", "API_KEYS=\n")])
def test_authentication_can_be_disabled_deliberately(read: Reader, before: str, lines: str) -> None:
    refuse_removed_keys(read(before), read(lines), lines.encode(), source="x.env")
