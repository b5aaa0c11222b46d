"""Requirements of tests besides Python: missing ones fail on CI and skip elsewhere."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(sentence: str) -> NoReturn:
    """End a test that can't run here: fail if `CI` is set, skip otherwise."""
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)
