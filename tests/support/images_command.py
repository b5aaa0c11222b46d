"""buildscripts/images as a command, with stand-ins for docker, podman and buildah."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from stt_server.testing.paths import ROOT

PROGRAMS = ("bash", "cp", "date", "dirname", "git", "grep", "mkdir", "mktemp", "rm", "sed")
STAND_IN = """#!/bin/sh
printf '%s\\n' "{name} $*" >> "{log}"
case "$*" in
  info) exit {info} ;;
  save*) cp "{folder}/image.tar" "$3" ;;
  *docker-archive:*) file=${{4#docker-archive:}}; cp "{folder}/image.tar" "${{file%%:*}}" ;;
esac
"""


def build(
    folder: Path, tools: dict[str, int], *args: str, root: Path = ROOT, sbom: str = "off", **environ: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run buildscripts/images of `root`; return its outcome, and the calls of tools except `info`.

    Args:
        folder: for the stand-ins; may have image.tar, the archive of each image.
        tools: those that are installed, with the exit status of `info`.
        sbom: value of --sbom.
    """
    log = folder / "log"
    log.touch()
    for name, info in tools.items():
        tool = folder / name
        tool.write_text(STAND_IN.format(info=info, name=name, log=log, folder=folder))
        tool.chmod(0o755)
    for name in PROGRAMS:
        found = next(Path(path) / name for path in os.environ["PATH"].split(":") if (Path(path) / name).exists())
        if not (folder / name).exists():
            (folder / name).symlink_to(found)
    command = [str(folder / "bash"), str(root / "buildscripts" / "images"), "--sbom", sbom, *args]
    environ["PATH"] = str(folder)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done, [line for line in log.read_text().splitlines() if not line.endswith(" info")]
