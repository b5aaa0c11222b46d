"""docs/: links lead to existing anchors, and the runbooks cover every alert and error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from protos.stt.v1.errors import ERRORS, FALLBACK_CODES
from stt_server.config import KEYS
from stt_server.testing.paths import ROOT

DOCS = ROOT / "docs"
PAGES = ("clients.md", "deploy.md", "disaster-recovery.md", "rollout.md", "runbooks.md", "scaling.md", "slo.md")
NOT_KEYS = {
    "CUBLAS_STATUS_NOT_SUPPORTED",
    "CONFIG_PATH",
    "STT_TAG",
    "STT_CONFIGS",
    "STT_COMMIT",
    "BASE_IMAGE",
    "GRAFANA_PASSWORD",
    "NOT_SERVING",
    "XDG_CACHE_HOME",
}
"""Words in capitals that are not configuration keys."""
OPERATOR_ERRORS = {
    "rate_limited",
    "unauthenticated",
    "deadline_exceeded",
    "payload_too_large",
    "audio_too_long",
}


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        where = page.parent / file if file else page
        if "://" not in target and (not where.exists() or (anchor and anchor not in anchors(where.read_text()))):
            yield target


@pytest.mark.parametrize("name", (*PAGES, "errors.md", "contract.md", "stubs.md", "helm.md", "balancing.md"))
def test_links_are_not_broken(name: str) -> None:
    assert list(broken_links(DOCS / name)) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](#here) [b](#gone) [c](gone.md) [d](https://example.com/x)")
    assert list(broken_links(page)) == ["#gone", "gone.md"]


@pytest.mark.parametrize("name", PAGES)
def test_named_keys_exist(name: str) -> None:
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", (DOCS / name).read_text()))
    assert named - {key.name for key in KEYS} - NOT_KEYS == set()


def test_runbooks_cover_every_alert() -> None:
    files = ("alerts.yml", "slo.yml", "canary.yml")
    texts = [(ROOT / "deploy" / "prometheus" / file).read_text() for file in files]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts
    text = (DOCS / "runbooks.md").read_text()
    assert {alert for alert in alerts if alert not in text} == set()


def test_runbooks_cover_errors_for_operators() -> None:
    text = (DOCS / "runbooks.md").read_text()
    for_operators = {kind.type for kind in ERRORS.values() if kind.http in (502, 503)} | OPERATOR_ERRORS
    assert {type_ for type_ in for_operators if f"`{type_}`" not in text and f" {type_}`" not in text} == set()


def test_runbooks_cover_fallback_errors() -> None:
    text = (DOCS / "runbooks.md").read_text()
    elsewhere = {"empty_audio", "unsupported_audio", "invalid_argument", "fallback_failed", "internal"}  # errors.md
    assert {code for code in FALLBACK_CODES if f"`{code}`" not in text} <= elsewhere


def test_runbooks_cover_route_reasons() -> None:
    text = (DOCS / "runbooks.md").read_text()
    proto = (ROOT / "protos" / "stt" / "v1" / "speech.proto").read_text()
    reasons = set(re.findall(r"ROUTE_REASON_(\w+) = [1-9]", proto))
    assert {reason for reason in reasons if f"**`{reason.lower()}`**" not in text} == set()
