"""Malformed and hostile forms, sent to a real process."""

from __future__ import annotations

import json

import pytest

from stt_server.testing.services import ServiceProcess
from tests.faults.hostile import FORM, assert_error, form, header_of, part, post, status_of
from tests.support.services import speech

BODY = form(part("audio", b"RIFF", '; filename="a.wav"'))
WAV = part("audio", speech(), '; filename="a.wav"')


@pytest.mark.parametrize(
    ("content_type", "body", "type_"),
    [
        (f"multipart/form-data; boundary={'b' * 12_000}", BODY, "invalid_argument"),
        ("multipart/form-data", BODY, "invalid_argument"),
        ("multipart/form-data; boundary=", BODY, "invalid_argument"),
        ("multipart/form-data; boundary=\xe9", BODY, "invalid_argument"),
        ("multipart/mixed; boundary=frontier", BODY, "invalid_argument"),
        ("application/json", b"{}", "invalid_argument"),
        (None, form(part("audio", b"x", "\r\nX-A: " + "a" * 100_000)), "invalid_argument"),
        (None, form(part("audio", b"x", "".join(f"\r\nX-{n}: a" for n in range(1000)))), "invalid_argument"),
        (None, form(WAV, WAV), "invalid_argument"),
        (None, form(WAV, part("language", b"en"), part("language", b"de")), "invalid_argument"),
        (None, form(WAV, *(part("hotwords", b"a") for _ in range(10_000))), "invalid_argument"),
        (None, form(WAV, part("nonsense\r\nX-Injected: 1", b"a")), "invalid_argument"),
        (None, form(WAV, part("\0", b"a")), "invalid_argument"),
        (None, form(WAV, part("a" * 3000, b"a")), "invalid_argument"),
        (None, form(WAV, part("language", b"xx\r\nX-Injected: 1\0\xe2\x80\xae")), "invalid_argument"),
        (None, form(WAV, part("task", "überset\0zen\r\n".encode())), "invalid_argument"),
        (None, form(WAV, part("prompt", b"\xff\xfe")), "invalid_argument"),
        (None, form(WAV, part("prompt", b"a" * 70_000)), "invalid_argument"),
        (None, form(WAV)[:-20], "invalid_argument"),
        (None, b"--frontier\r\n" * 50_000, "invalid_argument"),
        (None, form(part("audio", b"")), "empty_audio"),
        (None, form(part("language", b"en")), "empty_audio"),
        (None, form(part("audio", bytes(2**20 + 1))), "payload_too_large"),
    ],
    ids=range(23),
)
def test_malformed_forms_are_rejected(
    attacked: ServiceProcess, content_type: str | None, body: bytes, type_: str
) -> None:
    named = f"Content-Type: {content_type}" if content_type else FORM
    answer = post(attacked, body, named)
    assert_error(answer, type_)
    assert not header_of(answer, "X-Injected")


def test_boundary_of_70_kb_exceeds_the_head_limit(attacked: ServiceProcess) -> None:
    named = f"Content-Type: multipart/form-data; boundary={'b' * 70_000}"
    answer = post(attacked, BODY, named)
    assert_error(answer, "invalid_argument", status_of(answer))
    assert status_of(answer) in (400, 431)


@pytest.mark.parametrize(
    "name", ["a\0b.wav", "naïve \U0001f600 \u202e.wav", "../../etc/passwd", "a" * 3000, "", "%0d%0aX-Injected: 1"]
)
def test_file_name_may_be_anything(attacked: ServiceProcess, name: str) -> None:
    body = form(part("audio", speech(), f'; filename="{name}"'))
    answer = post(attacked, body)
    assert status_of(answer) in (200, 400)
    assert not header_of(answer, "X-Injected")
    if "\0" not in name:
        assert status_of(answer) == 200


@pytest.mark.parametrize(
    "prompt", ["line\r\nX-Injected: 1", "nul\0", "naïve 你好 \U0001f600 \u202e", "\x1b[31m", "\x7f\x80"]
)
def test_prompt_text_appears_only_in_the_body(attacked: ServiceProcess, prompt: str) -> None:
    body = form(WAV, part("prompt", prompt.encode()))
    answer = post(attacked, body)
    assert status_of(answer) == 200
    headers, _, text = answer.partition(b"\r\n\r\n")
    assert prompt.strip() in json.loads(text)["text"] or " ".join(prompt.split()) in json.loads(text)["text"]
    assert not header_of(answer, "X-Injected")
    assert headers.isascii()
