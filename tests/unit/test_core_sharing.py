"""Which inferences may use several threads, by what else runs."""

from __future__ import annotations

import pytest

from stt_server.engine.core_sharing import CoreSharing
from stt_server.engine.two_copies import TwoCopies


class Switch:
    """Remembers whether inferences are narrow."""

    def __init__(self) -> None:
        self.narrow = False

    def set(self, narrow: bool) -> None:
        self.narrow = narrow


def test_an_inference_is_wide_while_it_runs_alone() -> None:
    switch = Switch()
    sharing = CoreSharing(2, 2, switch.set)
    for _ in range(2):
        with sharing.inference(draft=False):
            assert not switch.narrow
            with sharing.inference(draft=False):
                assert switch.narrow
            assert switch.narrow, "the next one may begin at once"
        assert not switch.narrow


def test_more_cores_take_several_wide_inferences() -> None:
    switch = Switch()
    sharing = CoreSharing(4, 16, switch.set)
    running = [sharing.inference(draft=False) for _ in range(5)]
    seen = []
    for inference in running:
        inference.__enter__()
        seen.append(switch.narrow)
    for inference in running:
        inference.__exit__(None, None, None)
        seen.append(switch.narrow)
    assert seen == [False] * 4 + [True] + [True, True, False, False, False]


def test_a_draft_is_narrow_and_so_is_what_runs_beside_it() -> None:
    switch = Switch()
    sharing = CoreSharing(2, 2, switch.set)
    with sharing.inference(draft=False):
        with sharing.inference(draft=True):
            assert switch.narrow
        assert not switch.narrow
    with sharing.inference(draft=True):
        assert switch.narrow
    assert not switch.narrow


def test_a_failed_inference_counts_no_longer() -> None:
    switch = Switch()
    sharing = CoreSharing(2, 2, switch.set)
    with pytest.raises(ValueError, match="the model failed"):  # noqa: SIM117
        with sharing.inference(draft=False):
            with sharing.inference(draft=False):
                raise ValueError("the model failed")
    with sharing.inference(draft=False):
        assert not switch.narrow


class Copy:
    def __init__(self, threads: int) -> None:
        self.threads = threads

    def encode(self) -> int:
        return self.threads


def test_calls_go_to_the_copy_in_use_when_they_begin() -> None:
    copies = TwoCopies(Copy(1), Copy(2))
    assert copies.encode() == 2
    copies.set_narrow(True)
    assert (copies.encode(), copies.threads) == (1, 1)
    copies.set_narrow(False)
    assert copies.encode() == 2
