"""Fixtures of the rpc tests: a started service with a scripted model, and a stub to call it with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stt_server.app import Service
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.services import running, stub_of


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
async def service(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Service]:
    async with running(tmp_path, "primary", model) as started:
        yield started


@pytest.fixture
async def stub(service: Service) -> AsyncIterator[Any]:
    async with stub_of(service) as found:
        yield found
