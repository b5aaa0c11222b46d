"""Two copies of a model with different numbers of threads, where one copy can't change its own."""

from __future__ import annotations

from typing import Any

MAX_FILE_BYTES = 512 * 2**20
"""Largest model.bin that is loaded twice: Whisper small has 461 MiB in float16, and half of that loaded in int8."""


class TwoCopies:
    """Stands in for CTranslate2's model: each call goes to the copy that is in use when it begins."""

    def __init__(self, narrow: Any, wide: Any) -> None:
        """
        Args:
            narrow: `ctranslate2.models.Whisper` with one thread for each inference.
            wide: the same model with several.
        """
        self._narrow = narrow
        self._wide = wide
        self._used = wide

    def set_narrow(self, narrow: bool) -> None:
        """Choose the copy for the calls that begin from now on."""
        self._used = self._narrow if narrow else self._wide

    def __getattr__(self, name: str) -> Any:
        return getattr(self._used, name)
