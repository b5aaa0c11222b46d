"""The lines of an `.env` file, and the environment that they make.

python-dotenv's parser reads the lines (its `load_dotenv` and its interpolation are not used) and envparse's `Env` holds
the schema. Neither touches `os.environ` here, for reading or for writing.
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
    """What one line says."""

    value: str
    line: int
    """Counted from 1."""


def read_entries(text: str, source: str) -> dict[str, Entry]:
    """The keys of `text` with their values and lines. Values are not interpolated: `$` is a character like any other.

    Raises ConfigError for a line that isn't `KEY=VALUE`, a key that is there twice, and control characters in a value
    (a quote closed on a later line swallows the keys in between).
    """
    entries: dict[str, Entry] = {}
    for binding in parse_stream(io.StringIO(text.removeprefix("\ufeff"), newline="")):
        line = _line_of(binding)
        if binding.key is None and not binding.error:
            continue
        # What stands on a broken line may be a piece of a secret: it isn't shown.
        if binding.error or binding.value is None or binding.key is None:
            raise ConfigError(source, "not a KEY=VALUE line (is a quote left open?)", line=line)
        if not _NAME.fullmatch(binding.key):
            raise ConfigError(source, "what stands before '=' is not the name of a key", line=line)
        if _CONTROL.search(binding.value):
            raise ConfigError(
                source,
                "takes one line without control characters (is a quote left open?)",
                line=line,
                key=binding.key,
            )
        if binding.key in entries:
            first = entries[binding.key].line
            raise ConfigError(source, f"is there twice, on lines {first} and {line}", line=line, key=binding.key)
        entries[binding.key] = Entry(binding.value, line)
    return entries


def _line_of(binding: Binding) -> int:
    """The line of the key: python-dotenv counts from the blank lines before it."""
    written = binding.original.string
    blank = written[: len(written) - len(written.lstrip())]
    return binding.original.line + len(_NEW_LINE.findall(blank))


class FileEnv(Env):  # type: ignore[misc]
    """envparse's `Env` on a mapping of our own, with sound casts in the place of those that surprise.

    What envparse 0.2.0 does and this doesn't: look into `os.environ`; look behind (and crash over) `{{OTHER}}`; hand a
    default back uncast; read `-0.5` as 0.5 and `1e-3` as 13.0; take any unknown word for False; let int() take `1_000`;
    drop or mis-split the items of lists and dicts. An empty value means the default.
    """

    _SOUND: Mapping[Any, Callable[[str], Any]] = {
        bool: casts.boolean,
        int: casts.integer(-(10**18) + 1, 10**18 - 1),
        float: casts.number(float("-inf"), float("inf")),
    }
    _UNSOUND = frozenset({list, tuple, dict, set})

    def __init__(self, values: Mapping[str, str], **schema: Mapping[str, Any]) -> None:
        """`schema`: for each key `{"cast": ..., "default": text}`; without a default the key is required."""
        super().__init__(**schema)
        self._values = values

    def __call__(self, var: str, default: Any = NOTSET, cast: Any = None) -> Any:
        """The value of `var`, cast. Raises ConfigurationError where it is missing or its cast refuses it."""
        row: Mapping[str, Any] = self.schema.get(var, {})
        text = self._values.get(var, "")
        if not text:
            text = row.get("default", NOTSET) if default is NOTSET else default
        if text is NOTSET:
            raise ConfigurationError(f"{var} is missing")
        return self.cast(text, row.get("cast", str) if cast is None else cast)

    @classmethod
    def cast(cls, value: str, cast: Any = str, subcast: Any = None) -> Any:
        """`value` as `cast` reads it. Raises ConfigurationError where it refuses."""
        if subcast is not None or cast in cls._UNSOUND:
            raise TypeError("envparse splits lists at random: use casts.comma_list")
        return super().cast(value, cls._SOUND.get(cast, cast))

    @staticmethod
    def read_envfile(path: Any = None, **overrides: Any) -> None:
        """Not for use: it walks up to parent folders and writes into `os.environ`."""
        raise TypeError("use stt_server.config.load")
