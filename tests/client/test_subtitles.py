"""SRT and VTT: formats, cues, lines and times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_client import Segment, Word
from stt_client.cues import DEFAULT_LAYOUT, SubtitleLayout, cues_of
from stt_client.subtitles import to_srt, to_vtt
from stt_client.text_units import width

ONE_LINE = SubtitleLayout(max_line_count=1)


def segment(start: float, end: float, text: str, *, channel: int = 0, words: Sequence[Word] = ()) -> Segment:
    return Segment(start, end, text, -0.1, 0.0, 1.0, "tiny", words=tuple(words), channel=channel)


def spoken(*words: tuple[float, float, str], channel: int = 0) -> Segment:
    """Segment with word times, as the service sends them: a space before each word."""
    text = " ".join(text for _, _, text in words)
    timed = [Word(start, end, f" {text}", 0.9) for start, end, text in words]
    return segment(words[0][0], words[-1][1], text, channel=channel, words=timed)


def shown(*segments: Segment, layout: SubtitleLayout = DEFAULT_LAYOUT) -> list[tuple[int, int, str]]:
    return [(cue.start, cue.end, "\n".join(cue.lines)) for cue in cues_of(segments, layout)]


TWO = [segment(0.0, 1.5, " Hello there."), segment(3599.9996, 3661.0004, "Bye.")]


def test_srt_has_numbers_and_decimal_commas() -> None:
    assert to_srt(TWO) == ("1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n01:00:00,000 --> 01:00:07,000\nBye.\n")


def test_vtt_has_a_header_and_decimal_points() -> None:
    assert to_vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n01:00:00.000 --> 01:00:07.000\nBye.\n"
    )


def test_no_segments_are_valid_files() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"


def test_line_ends_in_text_are_spaces() -> None:
    broken = [segment(0, 1, "one\n\ntwo\r\nthree\u2028four")]
    assert to_srt(broken).splitlines()[2] == "one two three four"
    assert to_vtt(broken).splitlines()[3] == "one two three four"


def test_markup_and_arrows_in_text_are_escaped() -> None:
    nasty = [segment(0, 1, "a --> b ---> c & <i>d</i>")]
    assert to_vtt(nasty).splitlines()[3] == "a --&gt; b ---&gt; c &amp; &lt;i&gt;d&lt;/i&gt;"
    assert to_srt(nasty).count("-->") == 1


def test_segments_without_text_are_skipped() -> None:
    assert to_srt([segment(0, 1, "  "), segment(1, 2, "x")]).startswith("1\n00:00:01,000")


LONG = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "and so on until the end."
)


@pytest.mark.parametrize(
    ("segments", "cues"),
    [
        pytest.param(
            [segment(0, 9, LONG)],
            [
                (0, 5228, "It was the best of times, it was the\nworst of times, it was the age of wisdom,"),
                (5228, 9000, "it was the age of foolishness,\nand so on until the end."),
            ],
            id="breaks at commas; time in proportion to characters",
        ),
        pytest.param(
            [segment(0, 0.4, "No."), segment(0.4, 0.7, "No."), segment(0.7, 2, "I said no.")],
            [(0, 2000, "No. No. I said no.")],
            id="segments too short to be read are joined",
        ),
        pytest.param(
            [segment(0, 2, "First sentence."), segment(2, 4, "Second sentence.")],
            [(0, 2000, "First sentence."), (2000, 4000, "Second sentence.")],
            id="others are not",
        ),
        pytest.param(
            [segment(1, 1.2, "Yes."), segment(9, 9.4, "Off.")],
            [(1000, 2000, "Yes."), (9000, 10000, "Off.")],
            id="short cues stay into the silence",
        ),
        pytest.param(
            [spoken((0, 1, "Wait"), (1, 1.4, "for"), (3.5, 4, "it"), (4, 5, "here"))],
            [(0, 1400, "Wait for"), (3500, 5000, "it here")],
            id="no cue stays over a pause",
        ),
        pytest.param(
            [segment(0, 23.8, "Hmm.")],
            [(0, 7000, "Hmm.")],
            id="no longer than 7 s",
        ),
        pytest.param(
            [segment(0, 6, "Then Dr. Smith met Mr. Jones in the long corridor. They spoke for hours about nothing.")],
            [
                (0, 3464, "Then Dr. Smith met Mr.\nJones in the long corridor."),
                (3464, 6000, "They spoke for hours about nothing."),
            ],
            id="an abbreviation ends no sentence",
        ),
        pytest.param(
            [segment(0, 6, "今日はとても天気がいいですね。明日も晴れるといいのですが、どうでしょうか。")],
            [
                (0, 2432, "今日はとても天気がいいですね。"),
                (2432, 6000, "明日も晴れるといいのですが、\nどうでしょうか。"),
            ],
            id="wide characters take two columns, and lines begin with no closing punctuation",
        ),
        pytest.param(
            [segment(0, 2, "สวัสดีครับ")],
            [(0, 2000, "สวัสดีครับ")],
            id="Thai",
        ),
        pytest.param(
            [segment(0, 0.5, "你好。"), segment(0.5, 2, "再见。")],
            [(0, 2000, "你好。再见。")],
            id="joined without a space",
        ),
        pytest.param(
            [segment(0, 2, "x" * 100)],
            [(0, 1680, "x" * 42 + "\n" + "x" * 42), (1680, 2680, "x" * 16)],
            id="a word wider than a line is cut",
        ),
        pytest.param(
            [segment(2, 5, "Hello.", channel=1), segment(3, 6, "Hi.", channel=2)],
            [(2000, 3000, "[1] Hello."), (3000, 6000, "[2] Hi.")],
            id="channels that overlap",
        ),
        pytest.param(
            [segment(5, 4, "Back."), segment(2, 3, "Again.")],
            [(5000, 6000, "Back. Again.")],
            id="times that go back",
        ),
    ],
)
def test_cues(segments: list[Segment], cues: list[tuple[int, int, str]]) -> None:
    assert shown(*segments) == cues


def test_word_times_decide_where_cues_begin() -> None:
    words = [(0.0, 0.5, "One,"), (0.5, 1.0, "two,"), (6.0, 6.5, "three,"), (6.5, 8.0, "four.")]
    assert [cue[:2] for cue in shown(spoken(*words))] == [(0, 1000), (6000, 8000)]


@pytest.mark.parametrize(("end", "cue_end"), [(2.4, 2400), (9.0, 1500)])
def test_a_cue_lasts_to_the_end_of_its_segment_if_that_is_near(end: float, cue_end: int) -> None:
    assert shown(segment(0, end, "Hi.", words=[Word(0, 1.5, " Hi.", 0.9)])) == [(0, cue_end, "Hi.")]


def test_words_that_are_not_the_text_are_ignored() -> None:
    without = segment(0, 9, LONG)
    assert shown(segment(0, 9, LONG, words=[Word(0, 1, "It", 0.9)])) == shown(without)


def test_lines_are_balanced() -> None:
    (cue,) = shown(segment(0, 3, "a quick brown fox jumps over one lazy dog today"))
    assert cue[2] == "a quick brown fox jumps\nover one lazy dog today"


def test_layout_is_followed() -> None:
    cues = shown(segment(0, 9, LONG), layout=SubtitleLayout(max_line_width=20, max_line_count=1))
    assert cues[0] == (0, 1200, "It was the best of")


@pytest.mark.parametrize("options", [{"max_line_width": 9}, {"max_line_width": 201}, {"max_line_count": 0}])
def test_layout_out_of_range_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"invalid {next(iter(options))} .*: must be "):
        SubtitleLayout(**options)


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["Hello", "world,", "no.", "(well)", "今日は", "天気が。", "「何」", "สวัสดีครับ", "한국어", "—", "🎉"]
        ),
        st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=60),
    ),
    max_size=30,
).map(" ".join)
LAYOUTS = st.builds(SubtitleLayout, st.integers(10, 60), st.integers(1, 4))


@st.composite
def segments_(draw: st.DrawFn) -> list[Segment]:
    """Segments of one to three channels, some with word times, whose times may overlap and go back."""
    times = st.floats(0, 60)
    found = []
    for text in draw(st.lists(TEXTS, max_size=6)):
        words = (
            [Word(draw(times), draw(times), f" {word}", 0.5) for word in text.split()] if draw(st.booleans()) else []
        )
        found.append(segment(draw(times), draw(times), text, channel=draw(st.integers(0, 2)), words=words))
    return found


@given(segments_(), LAYOUTS)
def test_cues_never_overlap_nor_exceed_7_seconds(segments: list[Segment], layout: SubtitleLayout) -> None:
    cues = cues_of(segments, layout)
    assert all(0 <= cue.start < cue.end <= cue.start + 7000 for cue in cues)
    assert all(before.end <= after.start for before, after in pairwise(cues))


@given(segments_(), LAYOUTS)
def test_a_cue_under_a_second_ends_where_the_next_begins(segments: list[Segment], layout: SubtitleLayout) -> None:
    cues = cues_of(segments, layout)
    assert all(before.end - before.start >= 1000 or before.end == after.start for before, after in pairwise(cues))
    assert all(cue.end - cue.start >= 1000 for cue in cues[-1:])


@given(segments_(), LAYOUTS)
def test_lines_fit_the_layout(segments: list[Segment], layout: SubtitleLayout) -> None:
    cues = cues_of(segments, layout)
    assert all(1 <= len(cue.lines) <= layout.max_line_count for cue in cues)
    assert all(0 < width(line) <= layout.max_line_width for cue in cues for line in cue.lines)


@given(segments_(), LAYOUTS)
def test_every_character_of_a_channel_is_shown_in_order(segments: list[Segment], layout: SubtitleLayout) -> None:
    cues = cues_of(segments, layout)
    for channel in range(3):
        expected = "".join("".join(it.text.split()) for it in segments if it.channel == channel)
        label = f"[{channel}] " if channel else ""
        labelled = [cue.lines for cue in cues if _channel(cue.lines[0]) == channel]
        text = "".join("".join(lines).removeprefix(label) for lines in labelled)
        assert "".join(text.split()) == expected


def _channel(line: str) -> int:
    found = re.match(r"\[([12])\] ", line)
    return int(found[1]) if found else 0


def test_an_hour_of_speech_takes_a_number_of_steps_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(text: str) -> int:
        nonlocal calls
        calls += 1
        return width(text)

    monkeypatch.setattr("stt_client.cues.width", counted)
    cues_of([segment(9 * number, 9 * number + 9, LONG) for number in range(400)], DEFAULT_LAYOUT)
    assert calls <= 4 * 400 * len(LONG.split())
