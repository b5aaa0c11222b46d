"""The real pair from the Hugging Face hub: pinned revisions, pinned hashes, interrupted downloads taken up again.

huggingface_hub knows the hub's addresses, headers and redirects and does the transfer. Its `hf_hub_download` throws a
partial file away when a process ends, so the partial file and its place on disk are ours.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, errors, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile

from buildscripts.lib.models.pins import FetchError, PinnedFile, megabytes, mismatch, replace_folder, sha256_of

Say = Callable[[str], None]

HTTPError = errors.HTTPError  # type: ignore[attr-defined]
"""Base of what the HTTP library beneath huggingface_hub raises; which library that is has changed over the years."""

DEFAULT_ENDPOINT = "https://huggingface.co"

_NOT_THERE = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)


@dataclass(frozen=True)
class HubModel:
    folder: str
    """Below models/."""
    repo: str
    revision: str
    """A full commit id: a branch or tag can move."""
    files: tuple[PinnedFile, ...]


# The same tokenizer serves every multilingual Whisper up to large-v2.
_TOKENIZER = PinnedFile("tokenizer.json", 2203239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab")
_VOCABULARY = PinnedFile("vocabulary.txt", 459861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913")

HUB_MODELS: Mapping[str, HubModel] = {
    "small": HubModel(
        "whisper-small-ct2",
        "Systran/faster-whisper-small",
        "536b0662742c02347bc0e980a01041f333bce120",
        (
            PinnedFile("config.json", 2370, "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828"),
            PinnedFile("model.bin", 483546902, "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671"),
            _TOKENIZER,
            _VOCABULARY,
        ),
    ),
    "medium": HubModel(
        "whisper-medium-ct2",
        "Systran/faster-whisper-medium",
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
        (
            PinnedFile("config.json", 2257, "3622a2ddc41ec0e0fd4e68c13c6830f03b90c38d89aaad184de02c8c642cf807"),
            PinnedFile("model.bin", 1527906378, "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae"),
            _TOKENIZER,
            _VOCABULARY,
        ),
    ),
}
"""By the name that `buildscripts/models` takes."""


def fetch_hub_model(model: HubModel, models_dir: Path, endpoint: str, say: Say) -> None:
    """Lays out `model` below `models_dir`, unless it is there and right.

    What was fetched stays in a hidden folder beside it until all of it is verified; the next call goes on from there.

    Raises:
        FetchError: the hub can't be reached, announces other files than the pinned ones, or sent something else.
    """
    target = models_dir / model.folder
    if not mismatch(target, model.files):
        say(f"{model.folder}: already there, verified.")
        return
    stage = models_dir / f".{model.folder}.{model.revision[:12]}.partial"
    stage.mkdir(parents=True, exist_ok=True)
    say(f"Fetching {model.repo} at {model.revision[:12]} ({megabytes(sum(f.size for f in model.files))}) ...")
    try:
        _check_announcement(model, endpoint)
        for file in model.files:
            _fetch_file(model, file, stage, endpoint)
    except _NOT_THERE as error:
        raise FetchError(
            f"{endpoint} has no {model.repo} at revision {model.revision}: {_first_line(error)}"
        ) from error
    except HfHubHTTPError as error:
        raise FetchError(f"{endpoint} refused: {_first_line(error)}. Run the same command again to go on.") from error
    except (HTTPError, OSError) as error:
        raise FetchError(
            f"{endpoint} can't be reached or broke off ({_first_line(error)}). Run the same command again to go on "
            "where this stopped; --endpoint or HF_ENDPOINT names a mirror."
        ) from error
    replace_folder(stage, target)
    say(f"{model.folder}: laid out and verified.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_announcement(model: HubModel, endpoint: str) -> None:
    """Compares what the hub says it has with the pins, before anything large moves."""
    paths = [file.name for file in model.files]
    infos = HfApi(endpoint=endpoint, token=False).get_paths_info(model.repo, paths, revision=model.revision)
    announced = {info.path: info for info in infos if isinstance(info, RepoFile)}
    for file in model.files:
        info = announced.get(file.name)
        if info is None:
            raise FetchError(f"{model.repo} has no {file.name} at revision {model.revision}.")
        sha256 = info.lfs.sha256 if info.lfs else file.sha256  # small files have only a git hash there
        _compare(f"{endpoint} announces {file.name} with", file, info.size, sha256)


def _compare(who: str, file: PinnedFile, size: int | None, sha256: str | None) -> None:
    if size != file.size:
        raise FetchError(f"{who} {size} bytes; pinned are {file.size}. Nothing was laid out.")
    if sha256 != file.sha256:
        raise FetchError(f"{who} sha256 {sha256}; pinned is {file.sha256}. Nothing was laid out.")


def _fetch_file(model: HubModel, file: PinnedFile, stage: Path, endpoint: str) -> None:
    done = stage / file.name
    if not mismatch(stage, [file]):
        return
    done.unlink(missing_ok=True)
    part = stage / f"{file.name}.part"
    have = part.stat().st_size if part.exists() else 0
    if have > file.size:
        part.unlink()
        have = 0
    if have < file.size:
        _check_space(stage, file.size - have)
        _transfer(model, file, part, have, endpoint)
    sha256 = sha256_of(part)
    if sha256 != file.sha256:
        part.unlink()  # going on from here could never end well
    _compare(f"{endpoint} sent {file.name} with", file, file.size, sha256)
    part.rename(done)


def _transfer(model: HubModel, file: PinnedFile, part: Path, have: int, endpoint: str) -> None:
    url = hf_hub_url(model.repo, file.name, revision=model.revision, endpoint=endpoint)
    remote = get_hf_file_metadata(url, token=False, endpoint=endpoint)
    if remote.commit_hash != model.revision:
        raise FetchError(f"{endpoint} answers for revision {remote.commit_hash} instead of {model.revision}.")
    with part.open("ab") as out:
        http_get(
            remote.location,
            out,
            resume_size=have,
            headers={"Accept-Encoding": "identity"},  # a compressed answer has no range to go on from
            expected_size=file.size,
            displayed_filename=f"{model.folder}/{file.name}",
        )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(f"{folder} has {megabytes(free)} free; {megabytes(needed)} are needed.")


def fetch_hub_models(names: Sequence[str], models_dir: Path, endpoint: str, say: Say) -> None:
    """`fetch_hub_model` for each name of `HUB_MODELS`."""
    for name in names:
        fetch_hub_model(HUB_MODELS[name], models_dir, endpoint.rstrip("/"), say)
