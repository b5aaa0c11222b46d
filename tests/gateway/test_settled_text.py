"""A transcript's text in pieces."""

from __future__ import annotations

import pytest

from gateway.settled_text import SettledText
from stt_client.results import Segment


def segment(text: str) -> Segment:
    return Segment(0, 1, text, -0.1, 0.0, 1.0, "tiny")


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        ((), ""),
        (("Hello.",), "Hello."),
        (("Hello.", "World."), "Hello. World."),
        (("你好。", "世界。"), "你好。世界。"),
        (("Hello.", "", "World."), "Hello. World."),
        (("Hello.",), "Hello. And a rest."),
        ((), "All at once."),
    ],
)
def test_pieces_put_together_are_the_text(texts: tuple[str, ...], whole: str) -> None:
    text = SettledText()
    pieces = [text.add(segment(each)) for each in texts]
    last, given = text.finish(whole)
    assert given == whole == "".join((*pieces, last))


@pytest.mark.parametrize(
    ("texts", "whole", "given"),
    [
        (("你好。", "世界。"), "你好。 世界。 再见。", "你好。世界。 再见。"),
        (("half", "way"), "halfway there", "half way there"),
    ],
)
def test_text_that_differs_in_white_space_is_given_as_its_pieces_have_it(
    texts: tuple[str, ...], whole: str, given: str
) -> None:
    text = SettledText()
    pieces = [text.add(segment(each)) for each in texts]
    assert text.finish(whole) == (given.removeprefix("".join(pieces)), given)
