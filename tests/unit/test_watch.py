"""Detection of changed files: by content, once they have settled."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stt_server.config.watch import SETTLE_S, TRUNCATED_SETTLE_S, ChangeDetector, FileView
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stt.env"
    path.write_text("DEVICE=cpu\n")
    return path


@pytest.fixture
def detector(clock: ManualClock, file: Path) -> ChangeDetector:
    """Detector that has accepted the content of `file`."""
    detector = ChangeDetector(clock)
    detector.accept(digests_of(file))
    return detector


def digests_of(*paths: Path) -> dict[Path, str]:
    view = FileView()
    view.preload(paths)
    return view.digests()


def test_change_is_reported_once_it_has_settled(detector: ChangeDetector, clock: ManualClock, file: Path) -> None:
    file.write_text("DEVICE=cuda\n")
    assert not detector.due(digests_of(file))
    clock.now += SETTLE_S - 0.01
    assert not detector.due(digests_of(file))
    clock.now += 0.02
    assert detector.due(digests_of(file))
    detector.accept(digests_of(file))
    assert not detector.due(digests_of(file))


def test_every_further_change_restarts_the_wait(detector: ChangeDetector, clock: ManualClock, file: Path) -> None:
    for piece in range(10):
        file.write_text("DEVICE=cuda\n" * piece)
        clock.now += SETTLE_S * 0.9
        assert not detector.due(digests_of(file))
    clock.now += SETTLE_S
    assert detector.due(digests_of(file))


def test_half_written_file_gets_longer_to_settle(detector: ChangeDetector, clock: ManualClock, file: Path) -> None:
    file.write_text("DEVICE=cu")
    for seconds, due in ((SETTLE_S, False), (TRUNCATED_SETTLE_S, True)):
        detector.due(digests_of(file), truncated=True)
        clock.now += seconds
        assert detector.due(digests_of(file), truncated=True) == due


def test_reverted_change_is_not_reported(detector: ChangeDetector, clock: ManualClock, file: Path) -> None:
    file.write_text("")
    detector.due(digests_of(file))
    file.write_text("DEVICE=cpu\n")
    for _ in range(2):
        clock.now += 10
        assert not detector.due(digests_of(file))


def test_only_content_counts_not_times_or_links(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link"
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes())
    link.symlink_to(file)
    before = digests_of(link)
    link.unlink()
    link.symlink_to(other)
    assert digests_of(link) == before
    size, times = other.stat().st_size, other.stat()
    other.write_text("DEVICE=abc\n")
    assert other.stat().st_size == size
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digests_of(link) != before


def test_missing_file_differs_from_an_empty_one(file: Path) -> None:
    before = digests_of(file)
    file.write_text("")
    empty = digests_of(file)
    file.unlink()
    assert len({str(digests) for digests in (before, empty, digests_of(file))}) == 3


def test_unreadable_file_raises_the_same_error_again(file: Path) -> None:
    file.unlink()
    view = FileView()
    view.preload([file])
    file.write_text("DEVICE=cpu\n")
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            view.read(file)
        assert caught.value.errno == errno.ENOENT


def test_view_reads_each_file_once(file: Path) -> None:
    view = FileView()
    assert view.read(file) == b"DEVICE=cpu\n"
    file.write_text("API_KEYS=secret")
    assert view.read(file) == b"DEVICE=cpu\n"
    assert not view.lacks_final_newline(file)


def test_digests_contain_no_content(file: Path) -> None:
    file.write_text("API_KEYS=secret")
    assert "secret" not in str(digests_of(file))


@pytest.mark.parametrize(("content", "lacks"), [(b"", True), (b"A=1", True), (b"A=1\n", False), (b"A=1\r\n", False)])
def test_missing_final_newline_is_recognized(file: Path, content: bytes, lacks: bool) -> None:
    file.write_bytes(content)
    view = FileView()
    view.preload([file])
    assert view.lacks_final_newline(file) == lacks
