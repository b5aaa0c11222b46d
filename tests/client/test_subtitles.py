"""SRT and VTT."""

from __future__ import annotations

from stt_client import Segment
from stt_client.subtitles import to_srt, to_vtt


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start, end, text, -0.1, 0.0, 1.0, "tiny")


TWO = [segment(0.0, 1.5, " Hello there."), segment(3599.9996, 3661.0004, "Bye.")]


def test_srt_has_numbers_and_decimal_commas() -> None:
    assert to_srt(TWO) == ("1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n01:00:00,000 --> 01:01:01,000\nBye.\n")


def test_vtt_has_a_header_and_decimal_points() -> None:
    assert to_vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n01:00:00.000 --> 01:01:01.000\nBye.\n"
    )


def test_no_segments_are_valid_files() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"


def test_text_stays_on_one_line() -> None:
    broken = [segment(0, 1, "one\n\ntwo\r\nthree\u2028four")]
    assert to_srt(broken).splitlines()[2] == "one two three four"
    assert to_vtt(broken).splitlines()[3] == "one two three four"


def test_markup_and_arrows_in_text_are_escaped() -> None:
    nasty = [segment(0, 1, "a --> b & <i>c</i>")]
    assert to_vtt(nasty).splitlines()[3] == "a --&gt; b &amp; &lt;i&gt;c&lt;/i&gt;"
    assert to_srt(nasty).count("-->") == 1


def test_segments_without_text_are_skipped() -> None:
    assert to_srt([segment(0, 1, "  "), segment(1, 2, "x")]).startswith("1\n00:00:01,000")


def test_a_cue_ends_after_it_starts() -> None:
    assert "00:00:02.000 --> 00:00:02.001" in to_vtt([segment(2, 2, "x")])
