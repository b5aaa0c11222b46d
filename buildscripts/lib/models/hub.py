"""The real pair from the Hugging Face hub, at pinned revisions and hashes, with resumable downloads.

huggingface_hub provides addresses, headers, redirects and the transfer. Its `hf_hub_download` discards a partial file
when the process ends, so partial files are managed here.
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
"""Base class of the errors of the HTTP library below huggingface_hub, which depends on its version."""

DEFAULT_ENDPOINT = "https://huggingface.co"

_NOT_THERE = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)


@dataclass(frozen=True)
class HubModel:
    folder: str
    """Folder below models/."""
    repo: str
    revision: str
    """Full commit id: branches and tags can move."""
    files: tuple[PinnedFile, ...]


# All multilingual Whisper models up to large-v2 share the tokenizer.
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
    """Download `model` below `models_dir`, unless it is there and verified.

    Downloads are kept in a hidden folder beside it until all files are verified; the next call resumes them.

    Raises:
        FetchError: the hub can't be reached, or offers or sends other files than the pinned ones.
    """
    target = models_dir / model.folder
    if not mismatch(target, model.files):
        say(f"{model.folder}: already there, verified.")
        return
    stage = models_dir / f".{model.folder}.{model.revision[:12]}.partial"
    stage.mkdir(parents=True, exist_ok=True)
    say(f"Downloading {model.repo} at {model.revision[:12]} ({megabytes(sum(f.size for f in model.files))}) ...")
    try:
        _check_announcement(model, endpoint)
        for file in model.files:
            _fetch_file(model, file, stage, endpoint)
    except _NOT_THERE as error:
        raise FetchError(
            f"{endpoint} has no {model.repo} at revision {model.revision}: {_first_line(error)}"
        ) from error
    except HfHubHTTPError as error:
        raise FetchError(f"{endpoint} refused: {_first_line(error)}. Run the same command again to resume.") from error
    except (HTTPError, OSError) as error:
        raise FetchError(
            f"{endpoint} can't be reached or broke off ({_first_line(error)}). Run the same command again to resume;"
            "--endpoint or HF_ENDPOINT sets a mirror."
        ) from error
    replace_folder(stage, target)
    say(f"{model.folder}: downloaded and verified.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_announcement(model: HubModel, endpoint: str) -> None:
    """Compare the hub's listing with the pins before the download."""
    paths = [file.name for file in model.files]
    infos = HfApi(endpoint=endpoint, token=False).get_paths_info(model.repo, paths, revision=model.revision)
    announced = {info.path: info for info in infos if isinstance(info, RepoFile)}
    for file in model.files:
        info = announced.get(file.name)
        if info is None:
            raise FetchError(f"{model.repo} has no {file.name} at revision {model.revision}.")
        sha256 = info.lfs.sha256 if info.lfs else file.sha256  # the hub lists only git hashes of small files
        _compare(f"{endpoint} lists {file.name} with", file, info.size, sha256)


def _compare(who: str, file: PinnedFile, size: int | None, sha256: str | None) -> None:
    if size != file.size:
        raise FetchError(f"{who} {size} bytes, expected {file.size}. Nothing was installed.")
    if sha256 != file.sha256:
        raise FetchError(f"{who} sha256 {sha256}, expected {file.sha256}. Nothing was installed.")


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
        part.unlink()  # resuming it could never succeed
    _compare(f"{endpoint} sent {file.name} with", file, file.size, sha256)
    part.rename(done)


def _transfer(model: HubModel, file: PinnedFile, part: Path, have: int, endpoint: str) -> None:
    url = hf_hub_url(model.repo, file.name, revision=model.revision, endpoint=endpoint)
    remote = get_hf_file_metadata(url, token=False, endpoint=endpoint)
    if remote.commit_hash != model.revision:
        raise FetchError(f"{endpoint} answers for revision {remote.commit_hash}, expected {model.revision}.")
    with part.open("ab") as out:
        http_get(
            remote.location,
            out,
            resume_size=have,
            headers={"Accept-Encoding": "identity"},  # a compressed response can't be resumed
            expected_size=file.size,
            displayed_filename=f"{model.folder}/{file.name}",
        )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(f"{folder} has {megabytes(free)} free, {megabytes(needed)} needed.")


def fetch_hub_models(names: Sequence[str], models_dir: Path, endpoint: str, say: Say) -> None:
    """Call `fetch_hub_model` for each name of `HUB_MODELS`."""
    for name in names:
        fetch_hub_model(HUB_MODELS[name], models_dir, endpoint.rstrip("/"), say)
