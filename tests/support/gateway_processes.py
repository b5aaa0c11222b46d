"""`stt-gateway` as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from protos.stt.v1.wire import ReadyLine
from tests.support.services import ROOT


@dataclass
class GatewayProcess:
    """A stand-alone gateway in front of a target. `folder` holds its log."""

    folder: Path
    target: str
    arguments: tuple[str, ...] = ()
    port: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> GatewayProcess:
        """Once more on the port that it had, if it had one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "gateway", "--target", self.target, "--host", "127.0.0.1"]
        with (self.folder / "stderr.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), *self.arguments],
                env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log_text()[-2000:]
        self.port = ReadyLine.parse(line).http_port
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log_text(self) -> str:
        return (self.folder / "stderr.log").read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
