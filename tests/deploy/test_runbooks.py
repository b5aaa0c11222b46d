"""docs/runbooks.md covers every alert, and every error that an operator has to act on."""

from __future__ import annotations

import re

import yaml

from protos.stt.v1.errors import ERRORS, FALLBACK_CODES
from stt_server.testing.paths import ROOT

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
OPERATOR_ERRORS = {
    "rate_limited",
    "unauthenticated",
    "deadline_exceeded",
    "payload_too_large",
    "audio_too_long",
}


def test_runbooks_cover_every_alert() -> None:
    files = ("alerts.yml", "slo.yml", "canary.yml")
    texts = [(ROOT / "deploy" / "prometheus" / file).read_text() for file in files]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts
    assert {alert for alert in alerts if alert not in RUNBOOKS} == set()


def test_runbooks_cover_errors_for_operators() -> None:
    for_operators = {kind.type for kind in ERRORS.values() if kind.http in (502, 503)} | OPERATOR_ERRORS
    assert {type_ for type_ in for_operators if f"`{type_}`" not in RUNBOOKS and f" {type_}`" not in RUNBOOKS} == set()


def test_runbooks_cover_fallback_errors() -> None:
    elsewhere = {"empty_audio", "unsupported_audio", "invalid_argument", "fallback_failed", "internal"}  # errors.md
    assert {code for code in FALLBACK_CODES if f"`{code}`" not in RUNBOOKS} <= elsewhere


def test_runbooks_cover_route_reasons() -> None:
    proto = (ROOT / "protos" / "stt" / "v1" / "speech.proto").read_text()
    reasons = set(re.findall(r"ROUTE_REASON_(\w+) = [1-9]", proto))
    assert {reason for reason in reasons if f"**`{reason.lower()}`**" not in RUNBOOKS} == set()
