"""Which inferences may use several threads, by what else runs."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from stt_server.engine import loading
from stt_server.engine.core_sharing import CoreSharing
from stt_server.engine.loading import ModelOptions
from stt_server.engine.parallel_regions import parallel_regions
from stt_server.engine.two_copies import TwoCopies


class Sharing(CoreSharing):
    """Remembers whether inferences are narrow, and lets the pause end when the test says so."""

    def __init__(self, threads: int, cores: int) -> None:
        self.narrow = False
        self._due: list[Callable[[], None]] = []
        super().__init__(threads, cores, self._switch, lambda seconds, callback: self._due.append(callback))

    def _switch(self, narrow: bool) -> None:
        self.narrow = narrow

    def pass_pause(self) -> None:
        due, self._due = self._due, []
        for callback in due:
            callback()


def test_an_inference_is_wide_while_it_runs_alone() -> None:
    sharing = Sharing(2, 2)
    for _ in range(2):
        with sharing.inference(draft=False):
            assert not sharing.narrow
            with sharing.inference(draft=False):
                assert sharing.narrow
            assert sharing.narrow, "the next one may begin at once"
        assert not sharing.narrow


def test_an_inference_is_wide_again_after_a_pause() -> None:
    sharing = Sharing(2, 2)
    with sharing.inference(draft=False):
        with sharing.inference(draft=False):
            pass
        with sharing.inference(draft=False):
            sharing.pass_pause()
            assert sharing.narrow, "another one has begun since"
        sharing.pass_pause()
        assert not sharing.narrow


def test_more_cores_take_several_wide_inferences() -> None:
    sharing = Sharing(4, 16)
    running = [sharing.inference(draft=False) for _ in range(5)]
    seen = []
    for inference in running:
        inference.__enter__()
        seen.append(sharing.narrow)
    assert seen == [False] * 4 + [True]
    running.pop().__exit__(None, None, None)
    assert sharing.narrow
    sharing.pass_pause()
    assert not sharing.narrow


def test_a_draft_is_narrow_and_so_is_what_runs_beside_it() -> None:
    sharing = Sharing(2, 2)
    with sharing.inference(draft=False):
        with sharing.inference(draft=True):
            assert sharing.narrow
        assert not sharing.narrow
    with sharing.inference(draft=True):
        assert sharing.narrow
    assert not sharing.narrow


def test_a_failed_inference_counts_no_longer() -> None:
    sharing = Sharing(2, 2)
    with pytest.raises(ValueError, match="the model failed"), sharing.inference(draft=False):
        raise ValueError("the model failed")
    with sharing.inference(draft=False):
        assert not sharing.narrow


def test_the_pause_passes_by_itself() -> None:
    widened = threading.Event()
    sharing = CoreSharing(2, 2, lambda narrow: None if narrow else widened.set())
    with sharing.inference(draft=False):
        with sharing.inference(draft=False):
            widened.clear()
        assert widened.wait(20)


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


class Loaded:
    """A loaded model that knows for how many threads."""

    def __init__(self, threads: int) -> None:
        self.model: object = Copy(threads)


@pytest.mark.parametrize(
    ("controlled", "alike", "megabytes", "environ", "threads", "copies"),
    [
        (True, True, 600, {}, 2, False),
        (True, False, 1, {}, 2, True),
        (True, False, 600, {}, 1, False),
        (False, False, 1, {}, 2, True),
        (False, False, 600, {}, 1, False),
        (True, False, 1, {"OMP_THREAD_LIMIT": "8"}, 1, False),
        (True, False, 1, {"OMP_DYNAMIC": "TRUE"}, 1, False),
    ],
)
def test_a_model_is_loaded_as_its_library_allows(
    controlled: bool,
    alike: bool,
    megabytes: int,
    environ: dict[str, str],
    threads: int,
    copies: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in (*loading._REQUIRED, "model.bin"):
        (tmp_path / name).touch()
    os.truncate(tmp_path / "model.bin", megabytes * 2**20)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    regions = SimpleNamespace(set_narrow=lambda model, narrow: None)
    monkeypatch.setattr(loading, "parallel_regions", lambda: regions if controlled else None)
    monkeypatch.setattr(loading, "computes_alike", lambda whisper, regions: alike)
    monkeypatch.setattr(loading, "_model", lambda options, threads: Loaded(threads))
    whisper, sharing = loading.load(ModelOptions(tmp_path, "it", device="cpu", workers=2, shared_cores=2))
    assert whisper.model.threads == threads
    assert isinstance(whisper.model, TwoCopies) is copies
    assert (sharing is not None) is (threads == 2)


def test_openmp_of_other_processors_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert parallel_regions.__wrapped__() is None
