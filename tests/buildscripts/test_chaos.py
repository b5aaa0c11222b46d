"""buildscripts/chaos: the rules that its ledger holds requests to, and a short run of it."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from buildscripts.lib.chaos import run as chaos_run
from buildscripts.lib.chaos.callers import Callers, Wrong
from buildscripts.lib.chaos.faults import FAULTS
from buildscripts.lib.chaos.ledger import GRACE_S, Entry, Harm, Ledger, Window, breach_of
from buildscripts.lib.chaos.stage import Stage
from buildscripts.lib.load.recordings import Spoken
from stt_server.testing.paths import ROOT

KILLED = Harm(down=frozenset({"a"}), cuts=True)
POISONED = Harm(down=frozenset({"a"}), silences=True)
RESTARTED = Harm(down=frozenset({"a"}))
NO_FALLBACK = Harm(fallback=True)
SAID = Spoken("", "en", "", b"", {})


def entry(**fields: Any) -> Entry:
    """A request by gRPC to `a` that was answered in time."""
    usual: dict[str, Any] = {"id": "q1q", "way": "gRPC", "to": "a", "unsure": False, "container": "wav", "sent": 10.0}
    return Entry(**{**usual, "deadline": 6.0, "done": 10.5, "outcome": "text", **fields})


def refused(type_: str, **fields: Any) -> Entry:
    return entry(outcome="refused", detail=type_, **fields)


def test_an_answer_in_time_breaks_no_rule() -> None:
    assert breach_of(entry(), []) == ""
    assert breach_of(entry(outcome="left"), []) == ""


def test_what_was_never_answered_or_late_or_anothers_is_a_breach_whatever_the_faults() -> None:
    assert "lost" in breach_of(entry(outcome="lost", done=None), [KILLED])
    assert "late" in breach_of(entry(done=20.0), [KILLED])
    assert "doubled" in breach_of(entry(outcome="wrong"), [KILLED])


def test_an_error_has_to_be_accounted_for_by_a_fault() -> None:
    assert "without a reason" in breach_of(refused("not_ready"), [])
    assert breach_of(refused("not_ready"), [RESTARTED]) == ""
    assert "without a reason" in breach_of(refused("not_ready", to="b"), [RESTARTED])
    assert "without a reason" in breach_of(refused("internal"), [KILLED])
    assert "no type of the contract" in breach_of(refused("oops"), [KILLED])
    assert breach_of(refused("unsupported_audio", may=("unsupported_audio",)), []) == ""


def test_the_loss_of_one_primary_is_not_to_be_noticed_behind_the_pool() -> None:
    assert "without a reason" in breach_of(refused("upstream_unavailable", way="pool", to="pool"), [KILLED])
    assert "no error of the contract" in breach_of(entry(way="pool", to="pool", outcome="broken"), [KILLED])


def test_a_connection_may_be_cut_by_who_was_killed_and_not_by_who_was_told_to_stop() -> None:
    assert breach_of(entry(outcome="broken"), [KILLED]) == ""
    assert breach_of(entry(outcome="broken", to="gateway"), [KILLED]) == ""
    assert "told to finish" in breach_of(entry(outcome="broken"), [RESTARTED])
    assert breach_of(entry(outcome="unreachable"), [RESTARTED]) == ""
    assert "its process was well" in breach_of(entry(outcome="broken", to="b"), [KILLED])


def test_a_failing_fallback_is_told_only_to_who_needed_it_and_is_not_degraded_for() -> None:
    assert breach_of(refused("fallback_failed", to="b", unsure=True), [NO_FALLBACK]) == ""
    assert "without a reason" in breach_of(refused("fallback_failed", to="b"), [NO_FALLBACK])
    assert "without a reason" in breach_of(refused("fallback_failed", to="a", unsure=True), [NO_FALLBACK])
    assert breach_of(refused("fallback_failed", to="pool"), [NO_FALLBACK, POISONED]) == ""
    assert "without a reason" in breach_of(refused("fallback_failed", to="b"), [NO_FALLBACK, POISONED])


def test_a_fault_accounts_for_what_was_in_flight_from_its_beginning_to_a_moment_past_its_end() -> None:
    window = Window("kill", KILLED, began=10.2, over=12.0)
    assert window.touches(entry())
    assert not window.touches(entry(done=10.1))
    assert window.touches(entry(sent=12.0 + GRACE_S - 0.1, done=14.0))
    assert not window.touches(entry(sent=12.0 + GRACE_S + 0.1, done=14.0))


@pytest.mark.parametrize("text", ["the primary says q2q", "the primary says q1q the primary says q2q", "", "hello"])
def test_a_text_without_the_requests_own_mark_alone_is_wrong(text: str) -> None:
    callers = Callers(cast(Stage, SimpleNamespace(scripted=True)), Ledger(), [], random.Random(1), 6)
    callers.judge(entry(), SAID, "the primary says q1q", "q1q")
    with pytest.raises(Wrong):
        callers.judge(entry(), SAID, text, "q1q")
    with pytest.raises(Wrong):
        callers.judge(entry(), SAID, "the primary says q1q", "q2q")


def test_an_unknown_fault_is_refused_with_the_list() -> None:
    run = subprocess.run(
        [str(ROOT / "buildscripts/chaos"), "--faults", "flood"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert all(kind in run.stderr for kind in FAULTS)


def test_a_short_run_loses_and_doubles_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = tmp_path / "ledger.jsonl"
    faults = "kill-primary,kill-fallback,hostile"
    status = chaos_run.main(["--minutes", "0.1", "--seed", "3", "--faults", faults, "--ledger", str(ledger)])
    said = capsys.readouterr().out
    assert status == 0, said
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert {"pool", "gRPC", "REST", "stream", "WebSocket"} <= {line["way"] for line in lines}
    assert any(line["outcome"] == "text" and line["during"] for line in lines)
    assert f"{len(lines)} requests" in said
    assert "lost 0, doubled or wrong 0, 0 broke a rule; seed 3" in said
