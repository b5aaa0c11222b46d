"""Values that schemathesis cannot generate from /openapi.json: recordings, and the scripted model's languages."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from tests.support.services import speech

LANGUAGES = ("de", "en", "fr")

schemathesis.openapi.format("binary", st.just(speech()))
schemathesis.openapi.format("language", st.sampled_from(LANGUAGES))
schemathesis.openapi.format("languages", st.lists(st.sampled_from(LANGUAGES), max_size=3).map(",".join))


@schemathesis.hook
def filter_body(context: schemathesis.HookContext, body: object) -> bool:
    """Skip bodies with values other than text: a form cannot express them."""
    return not isinstance(body, dict) or all(isinstance(value, (str, bytes)) for value in body.values())
