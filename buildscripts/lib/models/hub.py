"""Models from the Hugging Face hub, at pinned revisions and hashes, with resumable downloads.

huggingface_hub provides addresses, headers, redirects and the transfer. Its `hf_hub_download` discards a partial file
when the process ends, so partial files are managed here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
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

from buildscripts.lib.models.hub_models import HUB_MODELS, HubModel
from buildscripts.lib.models.pins import FetchError, PinnedFile, megabytes, mismatch, replace_folder, sha256_of

Say = Callable[[str], None]

HTTPError = errors.HTTPError  # type: ignore[attr-defined]
"""Base class of the errors of the HTTP library below huggingface_hub, which depends on its version."""

DEFAULT_ENDPOINT = "https://huggingface.co"

_NOT_THERE = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)


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
