"""Parses the lines of an `.env` file.

python-dotenv's parser reads the lines, without its `load_dotenv` and interpolation; envparse's `Env` applies the
schema. Neither reads or writes `os.environ` here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dotenv.parser import Binding, parse_stream
from envparse import NOTSET, ConfigurationError, Env

from stt_server.config import casts
from stt_server.config.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEW_LINE = re.compile(r"\r\n|\r|\n")


class Entry(NamedTuple):
    """Value of a key, and where it was set."""

    value: str
    line: int
    """Line number from 1."""


def read_entries(text: str, source: str) -> dict[str, Entry]:
    """Parse `text` into entries by key. Values are not interpolated: `$` has no special meaning.

    Raises:
        ConfigError: a line isn't `KEY=VALUE`, a key is set twice, or a value contains a control character (an unclosed
            quote makes the following lines part of the value).
    """
    entries: dict[str, Entry] = {}
    for binding in parse_stream(io.StringIO(text.removeprefix("\ufeff"), newline="")):
        line = _line_of(binding)
        if binding.key is None and not binding.error:
            continue
        # A broken line is not quoted: it may contain part of a secret.
        if binding.error or binding.value is None or binding.key is None:
            raise ConfigError(source, "expected KEY=VALUE (unclosed quote?)", line=line)
        if not _NAME.fullmatch(binding.key):
            raise ConfigError(source, "invalid key name; expected letters, digits and _ before the '='", line=line)
        if _CONTROL.search(binding.value):
            problem = "contains a line break or control character; expected one line (unclosed quote?)"
            raise ConfigError(source, problem, line=line, key=binding.key)
        if binding.key in entries:
            first = entries[binding.key].line
            raise ConfigError(source, f"duplicate key (first set on line {first})", line=line, key=binding.key)
        entries[binding.key] = Entry(binding.value, line)
    return entries


def _line_of(binding: Binding) -> int:
    """Line of the key. python-dotenv counts from the blank lines before it."""
    written = binding.original.string
    blank = written[: len(written) - len(written.lstrip())]
    return binding.original.line + len(_NEW_LINE.findall(blank))


class FileEnv(Env):  # type: ignore[misc]
    """envparse's `Env` over a mapping instead of `os.environ`, with strict casts. An empty value means the default.

    Replaced behaviour of envparse 0.2.0: it reads `os.environ`, resolves (and crashes on) `{{OTHER}}`, returns defaults
    without casting them, reads `-0.5` as 0.5 and `1e-3` as 13.0, takes any unknown word for False, accepts `1_000` as
    an integer, and drops or splits items of lists and dicts wrongly.
    """

    _STRICT: Mapping[Any, Callable[[str], Any]] = {
        bool: casts.boolean,
        int: casts.integer(-(10**18) + 1, 10**18 - 1),
        float: casts.number(float("-inf"), float("inf")),
    }
    _UNSUPPORTED = frozenset({list, tuple, dict, set})

    def __init__(self, values: Mapping[str, str], **schema: Mapping[str, Any]) -> None:
        """
        Args:
            values: text by key.
            schema: `{"cast": ..., "default": text}` by key; a key without a default is required.
        """
        super().__init__(**schema)
        self._values = values

    def __call__(self, var: str, default: Any = NOTSET, cast: Any = None) -> Any:
        """Cast the value of `var`. Raises ConfigurationError if it is missing or invalid."""
        row: Mapping[str, Any] = self.schema.get(var, {})
        text = self._values.get(var, "")
        if not text:
            text = row.get("default", NOTSET) if default is NOTSET else default
        if text is NOTSET:
            raise ConfigurationError(f"{var} is missing")
        return self.cast(text, row.get("cast", str) if cast is None else cast)

    @classmethod
    def cast(cls, value: str, cast: Any = str, subcast: Any = None) -> Any:
        """Cast `value`. Raises ConfigurationError if it is invalid."""
        if subcast is not None or cast in cls._UNSUPPORTED:
            raise TypeError("envparse splits lists unreliably; use casts.comma_list")
        return super().cast(value, cls._STRICT.get(cast, cast))

    @staticmethod
    def read_envfile(path: Any = None, **overrides: Any) -> None:
        """Not supported: envparse searches parent folders and writes to `os.environ`."""
        raise TypeError("use stt_server.config.load")
