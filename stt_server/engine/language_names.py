"""Languages by the names that callers use: Whisper's codes, English names, ISO 639 codes and locales."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from protos.stt.v1.languages import NAMES

AUTOMATIC = "auto"
"""Names no language: it is detected."""

_LOCALE = re.compile(r"(?:zh[-_](?=yue\b))?([a-z]{2,3})((?:[-_][a-z0-9]{1,8})*)([.@].*)?")
"""A BCP 47 tag or a POSIX locale, in lower case; the language is the first group. `zh-yue` is an older tag of `yue`."""


def language_code(name: str) -> str | None:
    """Whisper's code for a language by any common name, in any case; None if the name is unknown.

    Args:
        name: a code, a locale of it (`pt_BR`, `zh-Hans-CN`) or an English name. Not `auto`, which names no language.
    """
    plain = " ".join(re.split(r"[\s_-]+", name.strip().casefold()))
    locale = _LOCALE.fullmatch(name.strip().lower())
    return _aliases().get(plain) or (_aliases().get(locale[1]) if locale else None)


@lru_cache(maxsize=1)
def _aliases() -> Mapping[str, str]:
    return {alias.casefold(): code for code, names in NAMES.items() for alias in (code, *names)}
