"""Production service with a scripted model, as a process: `python -m stt_server.testing.scripted_service primary`.

The environment variable STT_SCRIPT names a JSON file with the fields of `Script`. It is read before each inference, so
that the model's behaviour can be changed while the service runs.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import cast

from gateway.embedded import make_gateway
from stt_server.config import Role, Settings
from stt_server.lifecycle.run import run
from stt_server.testing.scripted_model import Script, ScriptedModel


def load_model(settings: Settings) -> ScriptedModel:
    path = Path(os.environ["STT_SCRIPT"])
    threading.Event().wait(Script.read(path).load_seconds)
    return ScriptedModel(name=settings.model_name, path=path, echo_prompt=True)


def main() -> int:
    service = sys.argv.pop(1)
    return run(cast(Role, service), make_gateway, load_model)


if __name__ == "__main__":
    sys.exit(main())
