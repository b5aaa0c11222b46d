"""docs/contract.md is generated from the comments of a .proto file, and each declaration needs one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from buildscripts.lib.contract_page import UndocumentedError, page

PROTO = """\
syntax = "proto3";
package stt.v1;
// Calls.
service Speech {
  // Talks. An example:
  //   one, two
  rpc Talk(Words) returns (stream Words);
}
// Text, or none.
message Words {
  string text = 1;  // In UTF-8.
  // Seconds, 0 to max_seconds.
  optional float length = 2;
  // Either.
  oneof kind {
    Mood mood = 3;  // A mood.
  }
  repeated Words more = 5;  // Further ones | others.
}
// A mood.
enum Mood {
  MOOD_UNSPECIFIED = 0;  // None.
}
"""


def generated(folder: Path, text: str) -> str:
    (folder / "speech.proto").write_text(text)
    return page(folder, "speech.proto")


def test_every_declaration_is_listed_with_its_comment(tmp_path: Path) -> None:
    rows = generated(tmp_path, PROTO).splitlines()
    assert "| `Talk` | [Words](#words) | stream of [Words](#words) | Talks. An example: `one, two`. |" in rows
    assert "| `text` | 1 | string | In UTF-8. |" in rows
    assert "| `length` | 2 | optional float | Seconds, 0 to `max_seconds`. |" in rows
    assert "| `mood` | 3 | [Mood](#mood), oneof `kind` | A mood. |" in rows
    assert "| `more` | 5 | repeated [Words](#words) | Further ones \\| others. |" in rows
    assert "| `MOOD_UNSPECIFIED` | 0 | None. |" in rows


@pytest.mark.parametrize(
    ("comment", "name"),
    [
        ("// Calls.", "Speech"),
        ("// Text, or none.", "Words"),
        ("// In UTF-8.", "Words.text"),
        ("// None.", "Mood.MOOD_UNSPECIFIED"),
    ],
)
def test_a_declaration_without_a_comment_is_reported(tmp_path: Path, comment: str, name: str) -> None:
    with pytest.raises(UndocumentedError, match=f"^{re.escape(name)} has no comment"):
        generated(tmp_path, PROTO.replace(comment, ""))
