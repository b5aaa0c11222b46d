"""What of a changed file is taken up, and what waits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stt_server.config import KEYS, ConfigError
from stt_server.config.changes import change, refuse_to_open
from tests.support.config_files import Reader, make_model


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(make_model(tmp_path))


def test_live_keys_are_taken_and_the_others_named(read: Reader) -> None:
    running = read("API_KEYS=a:0123456789abcdef\nGRPC_PORT=1000\nLOG_LEVEL=info\n")
    wanted = read("API_KEYS=b:0123456789abcdef\nGRPC_PORT=2000\nLOG_LEVEL=debug\nMAX_BATCH_SIZE=3\n")
    found = change(running, wanted)
    assert (found.taken, found.waiting) == (("API_KEYS", "LOG_LEVEL"), ("MAX_BATCH_SIZE", "GRPC_PORT"))
    assert found.settings == dataclasses.replace(running, api_keys=wanted.api_keys, log_level="debug")
    assert not found.names_fallback


def test_a_file_that_says_the_same_changes_nothing(read: Reader) -> None:
    running = read("LOG_LEVEL=info\n# a comment\n")
    found = change(running, read("RATE_LIMIT_RPS=15\n"))
    assert (found.settings, found.taken, found.waiting) == (running, (), ())


def test_the_contracts_keys_are_live() -> None:
    live = {key.name for key in KEYS if key.live}
    assert {"API_KEYS", "RATE_LIMIT_RPS", "RATE_LIMIT_BURST", "LOG_LEVEL"} <= live
    assert {key.name for key in KEYS if key.name.startswith(("CONF_", "FALLBACK_", "MIN_WORDS"))} <= live


def test_keys_without_an_effect_here_are_no_change(read: Reader) -> None:
    running = read("", "fallback")
    found = change(running, read("FALLBACK_TIMEOUT_S=5\n", "fallback"))
    assert (found.taken, found.waiting) == ((), ())
    assert "FALLBACK_TIMEOUT_S" in found.settings.warnings[0]


def test_a_new_address_of_the_fallback_says_so(read: Reader) -> None:
    assert change(read(), read("FALLBACK_URL=grpc://f:1\n")).names_fallback


@pytest.mark.parametrize("lines", ["", "LOG_LEVEL=info\n", "# API_KEYS=a\n"])
def test_a_file_that_lost_its_keys_is_refused(read: Reader, lines: str) -> None:
    running = read("API_KEYS=a:0123456789abcdef\n")
    with pytest.raises(ConfigError, match=r"^x\.env: API_KEYS: is gone, which would open the service"):
        refuse_to_open(running, read(lines), lines.encode(), source="x.env")


@pytest.mark.parametrize(("before", "lines"), [("", ""), ("API_KEYS=a:0123456789abcdef\n", "API_KEYS=\n")])
def test_an_open_service_may_stay_open_and_become_so_by_saying_it(read: Reader, before: str, lines: str) -> None:
    refuse_to_open(read(before), read(lines), lines.encode(), source="x.env")
