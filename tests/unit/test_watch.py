"""When a changed file is read: by content, once it stands still."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stt_server.config.watch import STILL_S, TORN_STILL_S, Look, Settling
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stt.env"
    path.write_text("DEVICE=cpu\n")
    return path


def seen(*paths: Path) -> dict[Path, str]:
    look = Look()
    look.glance(paths)
    return look.digests()


def test_a_change_is_told_once_it_has_stood_still(clock: ManualClock, file: Path) -> None:
    settling = Settling(clock)
    settling.take(seen(file))
    file.write_text("DEVICE=cuda\n")
    assert not settling.due(seen(file))
    clock.now += STILL_S - 0.01
    assert not settling.due(seen(file))
    clock.now += 0.02
    assert settling.due(seen(file))
    settling.take(seen(file))
    assert not settling.due(seen(file))


def test_a_file_that_goes_on_changing_is_waited_for(clock: ManualClock, file: Path) -> None:
    settling = Settling(clock)
    settling.take(seen(file))
    for piece in range(10):
        file.write_text("DEVICE=cuda\n" * piece)
        clock.now += STILL_S * 0.9
        assert not settling.due(seen(file))
    clock.now += STILL_S
    assert settling.due(seen(file))


def test_what_looks_half_written_is_given_longer(clock: ManualClock, file: Path) -> None:
    settling = Settling(clock)
    settling.take(seen(file))
    file.write_text("DEVICE=cu")
    for told, still in ((False, STILL_S), (True, TORN_STILL_S)):
        settling.due(seen(file), torn=True)
        clock.now += still
        assert settling.due(seen(file), torn=True) == told


def test_a_change_taken_back_is_none(clock: ManualClock, file: Path) -> None:
    settling = Settling(clock)
    settling.take(seen(file))
    file.write_text("")
    settling.due(seen(file))
    file.write_text("DEVICE=cpu\n")
    clock.now += 10
    assert not settling.due(seen(file))
    clock.now += 10
    assert not settling.due(seen(file))


def test_times_and_links_do_not_matter_and_content_does(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link"
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes())
    link.symlink_to(file)
    before = seen(link)
    link.unlink()
    link.symlink_to(other)
    assert seen(link) == before
    size, times = other.stat().st_size, other.stat()
    other.write_text("DEVICE=abc\n")
    assert other.stat().st_size == size
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert seen(link) != before


def test_a_missing_file_differs_from_an_empty_one_and_is_refused_alike_each_time(file: Path) -> None:
    before = seen(file)
    file.write_text("")
    empty = seen(file)
    file.unlink()
    look = Look()
    look.glance([file])
    file.write_text("DEVICE=cpu\n")
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            look.read(file)
        assert caught.value.errno == errno.ENOENT
    assert len({str(digests) for digests in (before, empty, look.digests())}) == 3


def test_a_look_reads_each_file_once_and_keeps_no_secret_for_the_next(file: Path) -> None:
    look = Look()
    assert look.read(file) == b"DEVICE=cpu\n"
    file.write_text("API_KEYS=secret")
    assert look.read(file) == b"DEVICE=cpu\n"
    assert not look.ends_within_a_line(file)
    later = Look()
    later.glance([file])
    assert later.ends_within_a_line(file)
    assert "secret" not in str(later.digests())


@pytest.mark.parametrize(("content", "torn"), [(b"", True), (b"A=1", True), (b"A=1\n", False), (b"A=1\r\n", False)])
def test_a_file_without_an_end_of_its_last_line_looks_half_written(file: Path, content: bytes, torn: bool) -> None:
    file.write_bytes(content)
    look = Look()
    look.glance([file])
    assert look.ends_within_a_line(file) == torn
