"""docs/clients.md, deploy.md and runbooks.md: their links lead somewhere, and no alert or error is without a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from protos.stt.v1.errors import ERRORS, FALLBACK_CODES
from stt_server.config import KEYS

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = ("clients.md", "deploy.md", "runbooks.md")
OF_OTHERS = {"CUBLAS_STATUS_NOT_SUPPORTED", "CONFIG_PATH", "STT_TAG", "BASE_IMAGE", "NOT_SERVING"}
"""Words in capitals that are no keys of a configuration."""
AT_THE_SERVER = {
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


@pytest.mark.parametrize("name", (*PAGES, "errors.md"))
def test_links_lead_somewhere(name: str) -> None:
    assert list(broken_links(DOCS / name)) == []


def test_a_link_to_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](#here) [b](#gone) [c](gone.md) [d](https://example.com/x)")
    assert list(broken_links(page)) == ["#gone", "gone.md"]


@pytest.mark.parametrize("name", PAGES)
def test_keys_that_are_named_exist(name: str) -> None:
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", (DOCS / name).read_text()))
    assert named - {key.name for key in KEYS} - OF_OTHERS == set()


def test_every_alert_is_in_the_runbooks() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts
    text = (DOCS / "runbooks.md").read_text()
    assert {alert for alert in alerts if alert not in text} == set()


def test_every_error_that_an_operator_must_act_on_is_in_the_runbooks() -> None:
    text = (DOCS / "runbooks.md").read_text()
    on_our_side = {kind.type for kind in ERRORS.values() if kind.http in (502, 503)} | AT_THE_SERVER
    assert {type_ for type_ in on_our_side if f"`{type_}`" not in text and f" {type_}`" not in text} == set()


def test_every_reason_why_the_fallback_fails_is_in_the_runbooks() -> None:
    text = (DOCS / "runbooks.md").read_text()
    elsewhere = {"empty_audio", "unsupported_audio", "invalid_argument", "fallback_failed", "internal"}  # errors.md
    assert {code for code in FALLBACK_CODES if f"`{code}`" not in text} <= elsewhere


def test_every_route_reason_is_in_the_runbooks() -> None:
    text = (DOCS / "runbooks.md").read_text()
    proto = (ROOT / "protos" / "stt" / "v1" / "speech.proto").read_text()
    reasons = set(re.findall(r"ROUTE_REASON_(\w+) = [1-9]", proto))
    assert {reason for reason in reasons if f"**`{reason.lower()}`**" not in text} == set()
