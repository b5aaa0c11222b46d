"""buildscripts/chaos: rules of the ledger, and a short run."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from buildscripts.lib.chaos import run as chaos_run
from buildscripts.lib.chaos.deployment import Deployment
from buildscripts.lib.chaos.faults import FAULTS
from buildscripts.lib.chaos.ledger import GRACE_S, Entry, Impact, Window, violation_of
from buildscripts.lib.chaos.transports import Connections, Transports, WrongAnswer
from buildscripts.lib.load.recordings import EncodedClip
from stt_server.testing.paths import ROOT

KILLED = Impact(down=frozenset({"a"}), cuts=True)
POISONED = Impact(down=frozenset({"a"}), silences=True)
RESTARTED = Impact(down=frozenset({"a"}))
NO_FALLBACK = Impact(fallback=True)
SAID = EncodedClip("", "en", "", b"", {})


def entry(**fields: Any) -> Entry:
    """A gRPC request to `a`, answered in time."""
    usual: dict[str, Any] = {
        "id": "q1q",
        "transport": "gRPC",
        "to": "a",
        "unsure": False,
        "container": "wav",
        "sent": 10.0,
    }
    return Entry(**{**usual, "deadline": 6.0, "done": 10.5, "outcome": "text", **fields})


def refused(type_: str, **fields: Any) -> Entry:
    return entry(outcome="refused", detail=type_, **fields)


def test_answer_in_time_breaks_no_rule() -> None:
    assert violation_of(entry(), []) == ""
    assert violation_of(entry(outcome="left"), []) == ""


def test_lost_late_and_wrong_answers_are_never_excused() -> None:
    assert "lost" in violation_of(entry(outcome="lost", done=None), [KILLED])
    assert "late" in violation_of(entry(done=20.0), [KILLED])
    assert "doubled" in violation_of(entry(outcome="wrong"), [KILLED])


def test_error_needs_a_fault_that_excuses_it() -> None:
    assert "without an active fault" in violation_of(refused("not_ready"), [])
    assert violation_of(refused("not_ready"), [RESTARTED]) == ""
    assert "without an active fault" in violation_of(refused("not_ready", to="b"), [RESTARTED])
    assert "without an active fault" in violation_of(refused("internal"), [KILLED])
    assert "without a type of the table" in violation_of(refused("oops"), [KILLED])
    assert violation_of(refused("unsupported_audio", may=("unsupported_audio",)), []) == ""


def test_pool_must_hide_the_loss_of_one_primary() -> None:
    assert "without an active fault" in violation_of(
        refused("upstream_unavailable", transport="pool", to="pool"), [KILLED]
    )
    assert "no error of the table" in violation_of(entry(transport="pool", to="pool", outcome="broken"), [KILLED])


def test_only_a_killed_process_may_cut_connections() -> None:
    assert violation_of(entry(outcome="broken"), [KILLED]) == ""
    assert violation_of(entry(outcome="broken", to="gateway"), [KILLED]) == ""
    assert "stopped, not killed" in violation_of(entry(outcome="broken"), [RESTARTED])
    assert violation_of(entry(outcome="unreachable"), [RESTARTED]) == ""
    assert "by a healthy process" in violation_of(entry(outcome="broken", to="b"), [KILLED])


def test_fallback_failure_excuses_only_requests_that_need_it() -> None:
    assert violation_of(refused("fallback_failed", to="b", unsure=True), [NO_FALLBACK]) == ""
    assert "without an active fault" in violation_of(refused("fallback_failed", to="b"), [NO_FALLBACK])
    assert "without an active fault" in violation_of(refused("fallback_failed", to="a", unsure=True), [NO_FALLBACK])
    assert violation_of(refused("fallback_failed", to="pool"), [NO_FALLBACK, POISONED]) == ""
    assert "without an active fault" in violation_of(refused("fallback_failed", to="b"), [NO_FALLBACK, POISONED])


def test_fault_excuses_requests_in_flight_and_a_grace_period() -> None:
    window = Window("kill", KILLED, began=10.2, over=12.0)
    assert window.touches(entry())
    assert not window.touches(entry(done=10.1))
    assert window.touches(entry(sent=12.0 + GRACE_S - 0.1, done=14.0))
    assert not window.touches(entry(sent=12.0 + GRACE_S + 0.1, done=14.0))


@pytest.mark.parametrize("text", ["the primary says q2q", "the primary says q1q the primary says q2q", "", "hello"])
def test_text_must_have_the_requests_own_marker_alone(text: str) -> None:
    transports = Transports(
        cast(Deployment, SimpleNamespace(scripted=True)), cast(Connections, None), [], random.Random(1)
    )
    transports.check_answer(entry(), SAID, "the primary says q1q", "q1q")
    with pytest.raises(WrongAnswer):
        transports.check_answer(entry(), SAID, text, "q1q")
    with pytest.raises(WrongAnswer):
        transports.check_answer(entry(), SAID, "the primary says q1q", "q2q")


def test_unknown_fault_is_refused_with_the_known_ones() -> None:
    run = subprocess.run(
        [str(ROOT / "buildscripts/chaos"), "--faults", "flood"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert all(kind in run.stderr for kind in FAULTS)


def test_short_run_loses_and_doubles_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = tmp_path / "ledger.jsonl"
    faults = "kill-primary,kill-fallback,hostile"
    status = chaos_run.main(["--minutes", "0.1", "--seed", "3", "--faults", faults, "--ledger", str(ledger)])
    output = capsys.readouterr().out
    assert status == 0, output
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert {"pool", "gRPC", "REST", "OpenAI", "stream", "WebSocket", "Wyoming"} <= {line["transport"] for line in lines}
    assert any(line["outcome"] == "text" and line["during"] for line in lines)
    assert f"{len(lines)} requests" in output
    assert "lost 0, doubled or wrong 0, 0 broke a rule; seed 3" in output
