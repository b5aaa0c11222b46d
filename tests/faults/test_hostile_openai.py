"""Malformed and hostile forms at the paths of OpenAI's API, sent to a real process."""

from __future__ import annotations

import json

import pytest

from stt_server.testing.services import ServiceProcess
from tests.faults.hostile import (
    BEARER,
    CLOSE,
    FORM,
    Wire,
    alive,
    chunked,
    form,
    head,
    header_of,
    length,
    part,
    post,
    status_of,
)
from tests.support.services import speech

PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
WAV = part("file", speech(), '; filename="a.wav"')
BODY = form(WAV)


def assert_openai_error(answer: bytes, code: str, status: int = 400) -> None:
    """Assert that an answer is one error in OpenAI's shape, whose headers say the same."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert status_of(answer) == status, answer
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert sorted(error) == ["code", "message", "param", "request_id", "type"]
    assert error["code"] == code
    assert error["message"] == header_of(answer, "X-Error-Message")
    assert error["message"].isascii() and error["message"].isprintable() and 0 < len(error["message"]) <= 256
    assert error["request_id"] == header_of(answer, "X-Req-Id") == header_of(answer, "x-request-id") != ""
    assert not header_of(answer, "X-Injected")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content_type", "body", "code", "status"),
    [
        (f"multipart/form-data; boundary={'b' * 12_000}", BODY, "invalid_value", 400),
        ("multipart/form-data", BODY, "invalid_value", 400),
        ("multipart/form-data; boundary=\xe9", BODY, "invalid_value", 400),
        ("application/json", b"{" * 100_000, "invalid_value", 400),
        (None, form(part("file", b"x", "\r\nX-A: " + "a" * 100_000)), "invalid_value", 400),
        (None, form(part("other", b"x", "".join(f"\r\nX-{n}: a" for n in range(1000)))), "invalid_value", 400),
        (None, form(WAV, WAV), "invalid_value", 400),
        (None, form(WAV, part("prompt", b"a"), part("prompt", b"b")), "invalid_value", 400),
        (None, form(WAV, *(part("a", b"a") for _ in range(10_000))), "invalid_value", 400),
        (None, form(WAV, *(part("hotwords[]", b"a") for _ in range(10_000))), "invalid_value", 400),
        (None, form(WAV, part("routing", b"xx\r\nX-Injected: 1\0\xe2\x80\xae")), "invalid_value", 400),
        (None, form(WAV, part("temperature", b"9" * 60_000)), "invalid_value", 400),
        (None, form(WAV, part("prompt", b"\xff\xfe")), "invalid_value", 400),
        (None, form(WAV, part("prompt", b"a" * 70_000)), "invalid_value", 400),
        (None, form(WAV)[:-20], "invalid_value", 400),
        (None, b"--frontier\r\n" * 50_000, "invalid_value", 400),
        (None, form(part("file", b"")), "empty_audio", 400),
        (None, form(part("file[]", speech())), "empty_audio", 400),
        (None, form(part("file", b"#EXTM3U\n/etc/passwd\n")), "unsupported_audio", 400),
        (None, form(part("file", bytes(2**20 + 1))), "payload_too_large", 413),
        (None, form(WAV, part("other", bytes(3 * 2**20))), "payload_too_large", 413),
    ],
    ids=range(21),
)
def test_malformed_forms_are_rejected(
    attacked: ServiceProcess, path: str, content_type: str | None, body: bytes, code: str, status: int
) -> None:
    named = f"Content-Type: {content_type}" if content_type else FORM
    assert_openai_error(post(attacked, body, named, path), code, status)


@pytest.mark.parametrize(
    "name",
    [
        "\0",
        "a" * 3000,
        "__proto__",
        "file ",
        "FILE",
        "audio",
        "a[b][c][]" * 100,
        "\u202e",
        "%s{0}",
        "a\r\nX-Injected: 1",
    ],
)
def test_unknown_fields_are_skipped_whatever_they_hold(attacked: ServiceProcess, name: str) -> None:
    body = form(part(name, b"\xff\0\r\n--frontie" + bytes(100_000), '; filename="x"'), WAV)
    answer = post(attacked, body, path=PATHS[0])
    assert status_of(answer) in (200, 400)
    assert not header_of(answer, "X-Injected")
    if "\0" not in name:
        assert status_of(answer) == 200


def test_language_of_control_characters_is_quoted_harmlessly(attacked: ServiceProcess) -> None:
    body = form(WAV, part("language", b"xx\r\nX-Injected: 1\0\x1b[31m\xe2\x80\xae"))
    assert_openai_error(post(attacked, body, path=PATHS[0]), "invalid_value")


@pytest.mark.parametrize("path", ["/v1/models/" + "a" * 8000, "/v1/models/X-Injected:%201", "/v1/models/..%2f"])
def test_absurd_models_are_not_found(attacked: ServiceProcess, path: str) -> None:
    with Wire(attacked.http_port) as wire:
        wire.send(head(BEARER, CLOSE, start=f"GET {path} HTTP/1.1"))
        assert_openai_error(wire.read(), "model_not_found", 404)


def test_refused_upload_is_answered_while_it_is_sent(attacked: ServiceProcess) -> None:
    body = form(part("file", bytes(20 * 2**20)))
    start = f"POST {PATHS[0]} HTTP/1.1"
    for key, code, status in ((BEARER, "payload_too_large", 413), ("X-None: 1", "invalid_api_key", 401)):
        for raw in (head(key, FORM, length(body), start=start) + body, _undeclared(key, body, start)):
            with Wire(attacked.http_port) as wire:
                wire.send(raw)  # all of it, before the answer is read
                assert_openai_error(wire.read(), code, status)
    alive(attacked)


def _undeclared(key: str, body: bytes, start: str) -> bytes:
    return head(key, FORM, "Transfer-Encoding: chunked", start=start) + chunked(body)


def test_caller_that_leaves_a_stream_disturbs_nobody(attacked: ServiceProcess) -> None:
    body = form(WAV, part("stream", b"true"))
    for _ in range(20):
        with Wire(attacked.http_port) as wire:
            wire.send(head(BEARER, FORM, length(body), start=f"POST {PATHS[0]} HTTP/1.1") + body)
    alive(attacked)
