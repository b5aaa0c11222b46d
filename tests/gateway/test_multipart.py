"""Parsing forms and timing bodies, without a socket."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.errors import Refusal
from gateway.http.multipart import FormReader, boundary_of
from gateway.http.uploads import MIN_BYTES_PER_S, BodyDeadline
from gateway.rest.form import RULES
from tests.support.clock import ManualClock
from tests.support.raw_http import BOUNDARY, form, part

AUDIO_BYTES = b"\r\n--front\r\n--\0\xff" * 3


@given(cuts=st.lists(st.integers(0, 300)), audio=st.binary(max_size=100))
def test_form_parses_the_same_for_any_chunking(cuts: list[int], audio: bytes) -> None:
    body = form(part("prompt", "Zoë".encode()), part("audio", AUDIO_BYTES + audio, '; filename="a.wav"'))
    reader = FormReader(BOUNDARY.encode(), RULES, 1000)
    for start, end in pairwise(sorted({0, *cuts, len(body)})):
        reader.feed(body[start:end])
    found = reader.finish()
    assert found.audio == AUDIO_BYTES + audio
    assert found.fields == {"prompt": ["Zoë"]}


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_parsed_or_rejected(body: bytes) -> None:
    reader = FormReader(BOUNDARY.encode(), RULES, 1000)
    try:
        reader.feed(b"--frontier\r\n" + body)
        reader.finish()
    except Refusal as refusal:
        assert refusal.type in ("invalid_argument", "payload_too_large")


@pytest.mark.parametrize("name", ['"', "a\\b", "naïve \U0001f600.wav", "../../etc/passwd", "a;b=c", "x" * 2000])
def test_any_file_name_is_accepted(name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    reader = FormReader(BOUNDARY.encode(), RULES, 1000)
    reader.feed(form(part("audio", b"abc", f'; filename="{quoted}"')))
    assert reader.finish().audio == b"abc"


@pytest.mark.parametrize("name", ["a\r\nX-Injected: 1", "a\0b", "x" * 5000])
def test_file_name_that_breaks_its_header_is_harmless(name: str) -> None:
    reader = FormReader(BOUNDARY.encode(), RULES, 1000)
    try:
        reader.feed(form(part("audio", b"abc", f'; filename="{name}"')))
        assert reader.finish().audio == b"abc"
    except Refusal as refusal:
        assert refusal.type == "invalid_argument"


def test_content_transfer_encoding_is_rejected() -> None:
    more = "\r\nContent-Transfer-Encoding: base64"
    reader = FormReader(BOUNDARY.encode(), RULES, 1000)
    with pytest.raises(Refusal, match="Content-Transfer-Encoding"):
        reader.feed(form(part("audio", b"YWJj", more)))


def test_quoted_boundary_is_parsed() -> None:
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="a b"') == b"a b"


def test_paused_body_times_out() -> None:
    clock = ManualClock()
    deadline = BodyDeadline(30, clock)
    deadline.add(MIN_BYTES_PER_S * 1000)
    assert deadline.left_s() == 30


def test_trickling_body_times_out() -> None:
    clock = ManualClock()
    deadline = BodyDeadline(30, clock)
    while deadline.left_s() > 0:
        deadline.add(1)
        clock.now += 1
    assert clock.now == pytest.approx(130, abs=1.5)


def test_slow_line_passes() -> None:
    clock = ManualClock()
    deadline = BodyDeadline(30, clock)
    for _ in range(3600):
        deadline.add(MIN_BYTES_PER_S)
        clock.now += 1
        assert deadline.left_s() > 0
