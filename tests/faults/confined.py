"""A service as in a container: user 10001 without privileges, on a read-only file system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stt_server.testing.paths import MODELS, ROOT
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess
from tests.support.needs import lacking

USER = 10001

SCRIPT = """
set -eu
umask 022
root=$1 writable=$2
shift 2
mount -t tmpfs -o mode=755 root "$root"
mkdir "$root/tmp" "$root/proc" "$root/dev"
if [ "$writable" = yes ]; then mount -t tmpfs -o mode=1777,size=64m tmp "$root/tmp"; fi
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
    shift
done
shift
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid=$USER --regid=$USER --clear-groups --no-new-privs --inh-caps=-all \\
    --bounding-set=-all -- env --chdir=/ "$@"
"""


def confined_primary(folder: Path, script: Script | None = None, *, writable_tmp: bool = True) -> ServiceProcess:
    """A primary, not started yet, that will run confined and owns its configuration file."""
    process = ServiceProcess("primary", folder, {}, script, prefix=_confinement(folder, writable_tmp=writable_tmp))
    os.chown(process.config, USER, USER)
    return process


def _confinement(folder: Path, *, writable_tmp: bool) -> tuple[str, ...]:
    """Command prefix that confines a command to its own root, read-only except for /tmp (if `writable_tmp`).

    Args:
        folder: the service's files. The root holds them, the code, the models, the interpreter and the system.
    """
    if os.geteuid() != 0 or _unable():
        lacking("mount namespaces can't be made here: run as root, outside of a container without CAP_SYS_ADMIN")
    root = folder.parent / f"{folder.name}-root"
    root.mkdir()
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    # An interpreter outside of /usr, and the targets of the repository's links.
    prefixes = (Path(sys.base_prefix), Path(sys.prefix).resolve())
    system = [Path(name) for name in ("/usr", "/bin", "/lib", "/lib64", "/etc") if Path(name).exists()]
    ours = [path for path in (*prefixes, ROOT, MODELS.resolve(), folder) if not path.is_relative_to("/usr")]
    shown = map(str, (*system, *ours))
    script = SCRIPT.replace("$USER", str(USER))
    writable = "yes" if writable_tmp else "no"
    return ("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", str(root), writable, *shown, "--")


def _unable() -> bool:
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return tried.returncode != 0
