"""What tests need besides Python: a failure where CI runs, left out with a sentence on a machine without it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(sentence: str) -> NoReturn:
    """Ends a test that can't run here: skipped on a person's machine, failed with `CI` set, where nothing may lack."""
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)
