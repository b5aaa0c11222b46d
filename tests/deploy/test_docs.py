"""README, CONTRIBUTING and docs/: links lead to existing files and anchors, and named configuration keys exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stt_server.config import KEYS
from stt_server.testing.paths import ROOT

PAGES = tuple(str(page.relative_to(ROOT)) for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]))
WITHOUT_KEYS = {"CHANGELOG.md", "docs/contract.md", "docs/errors.md", "docs/stubs.md"}
"""Pages whose words in capitals may be of earlier versions, of gRPC or of speech.proto."""
NOT_KEYS = {
    "BASE_IMAGE",
    "CLOSE_CODES",
    "CHANGE_PAUSE_S",
    "CONFIG_PATH",
    "CUBLAS_STATUS_NOT_SUPPORTED",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "CT2_FORCE_CPU_ISA",
    "CT2_USE_MKL",
    "DEADLINE_EXCEEDED",
    "GOMP_SPINCOUNT",
    "GRAFANA_PASSWORD",
    "HF_ENDPOINT",
    "HTTPS_PROXY",
    "INVALID_ARGUMENT",
    "LIKELY_CHANGE",
    "LIKELY_RIVAL",
    "LOGS_ENDPOINT",
    "LOGS_FOLDER",
    "MALLOC_ARENA_MAX",
    "NODE_EXTRA_CA_CERTS",
    "NOT_SERVING",
    "OMP_DYNAMIC",
    "OMP_THREAD_LIMIT",
    "OMP_WAIT_POLICY",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "PCI_BUS_ID",
    "RATE_LIMIT_RSP",  # a misspelt key in an example
    "RESOURCE_EXHAUSTED",
    "S16_LE",
    "SERVER_READY",
    "STT_API_KEY",
    "STT_COMMIT",
    "STT_CONFIGS",
    "STT_REGISTRY",
    "STT_TAG",
    "XDG_CACHE_HOME",
}
"""Words in capitals that are not configuration keys."""


def anchors(text: str) -> set[str]:
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        where = page.parent / file if file else page
        if "://" not in target and (not where.exists() or (anchor and anchor not in anchors(where.read_text()))):
            yield target


@pytest.mark.parametrize("name", PAGES)
def test_links_are_not_broken(name: str) -> None:
    assert list(broken_links(ROOT / name)) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    links = "[a](#he_re) [b](#gone) [c](gone.md) [d](https://example.com/x) [e](#code)"
    page.write_text(f"# He_re\n{links}\n```\n# Code\n```\n")
    assert list(broken_links(page)) == ["#gone", "gone.md", "#code"]


@pytest.mark.parametrize("name", [name for name in PAGES if name not in WITHOUT_KEYS])
def test_named_keys_exist(name: str) -> None:
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", (ROOT / name).read_text()))
    assert named - {key.name for key in KEYS} - NOT_KEYS == set()
