"""The confinement of decoder processes."""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stt_server.testing.paths import ROOT
from tests.support.decoders import GOOD, good, pool


async def test_child_process_holds_nothing_to_misuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "a secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "file").open("w") as file:
        for inherited in (listener, file):
            os.set_inheritable(inherited.fileno(), True)
        async with pool() as decoders:
            proc = Path(f"/proc/{decoders.pids[0]}")
            assert sorted(entry.name for entry in (proc / "fd").iterdir()) == ["0", "1", "2"]
            limits = dict(re.findall(r"^(.+?)  +\S+ +(\S+) ", (proc / "limits").read_text(), re.MULTILINE))
            hard = {name: limits[f"Max {name}"] for name in ("open files", "processes", "file size", "core file size")}
            assert hard == {"open files": "3", "processes": "0", "file size": "0", "core file size": "0"}
            assert int(limits["Max address space"]) < 1 << 30
            status = (proc / "status").read_text()
            assert ("NoNewPrivs:\t1" in status, "Seccomp:\t2" in status) == (True, True)
            assert b"SECRET" not in (proc / "environ").read_bytes()
            assert str((proc / "cwd").readlink()).endswith(" (deleted)")
            assert [path.name for path in tmp_path.iterdir()] == ["file"]


def run_confined(confinement: str, program: str) -> str:
    """Run `program` after the function `confinement`: its output, the last line of its error, or its signal."""
    code = (
        "import os, resource, signal, socket\n"
        "from stt_server.audio.sandbox.confinement import *\n"
        f"{confinement}(64 << 20, os.getppid())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + program],
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.PIPE,
    )
    if done.returncode < 0:
        return str(done.returncode)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("open('/etc/passwd')", "Too many open files"),
        ("open('/tmp/x', 'w')", "Too many open files"),
        ("socket.socket()", "Too many open files"),
        ("os.pipe()", "Too many open files"),
        ("os.dup(0)", "Too many open files"),
        ("os.close(0); os.write(os.open('/dev/shm', os.O_TMPFILE | os.O_RDWR), b'x')", "File too large"),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); print(os.getuid() == 0)", "not allowed to raise"),
        ("os.fork()", "Resource temporarily unavailable"),
        ("import threading; threading.Thread(target=print).start()", "can't start new thread"),
        ("bytearray(128 << 20)", "MemoryError"),
        ("os.kill(os.getpid(), signal.SIGTERM); print('still here')", "still here"),
    ],
)
def test_limits_hold(program: str, output: str) -> None:
    if os.getuid() == 0 and any(name in program for name in ("RLIMIT_NOFILE", "fork", "Thread")):
        pytest.skip("these limits don't apply to root")
    assert output in run_confined("set_limits", program)


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("os.close(0); os.open('/etc/passwd', os.O_RDONLY)", "not permitted"),
        ("os.close(0); socket.socket()", "not permitted"),
        ("os.close(0); os.pipe()", "not permitted"),
        ("os.fork()", "not permitted"),
        ("os.execv('/bin/true', ['true'])", "not permitted"),
        ("os.kill(os.getppid(), 0)", "not permitted"),
        ("os.unlink('/tmp/none')", "not permitted"),
        ("os.listdir('/')", "not permitted"),
        ("resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (9, 9))", "not permitted"),
        ("print(len(bytearray(16 << 20)))", str(16 << 20)),
        ("grant_cpu(1)\nwhile True: pass", str(-signal.SIGXCPU)),
    ],
)
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no seccomp filter for this machine")
def test_seccomp_filter_denies_harmful_calls(program: str, output: str) -> None:
    assert output in run_confined("confine", program)


async def test_child_process_ignores_sigterm_and_sigint() -> None:
    async with pool() as decoders:
        before = decoders.pids
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(before[0], number)
        assert good(await decoders.decode(GOOD))
        assert decoders.pids == before
