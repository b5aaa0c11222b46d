"""A program that recognizes a sentence alone and beside another inference, and prints what its threads did as JSON.

A process of its own: CTranslate2 chooses its libraries once per process, by the environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

from stt_server.audio import split
from stt_server.config import parse
from stt_server.engine.two_copies import TwoCopies
from stt_server.engine.types import DecodeOptions
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.lifecycle.whisper import load_whisper
from tests.support.speech import clip, samples_of

TIMES = 4
"""Both workers of the model take calls."""


def ticks() -> Mapping[str, int]:
    """Processor ticks of each thread of this process."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            found[task.name] = sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return found


def main() -> None:
    settings = f"CT2_SMALL_PATH={sys.argv[1]}\nDEVICE=cpu\nCOMPUTE_TYPE=int8\nMAX_CONCURRENCY=2\n"
    model = load_whisper(parse(settings, "primary"))
    assert isinstance(model, WhisperRecognizer)
    (chunk,) = split(samples_of(clip("en", "quick_brown_fox")), vad_filter=True)
    assert model.sharing is not None, "two cores are needed"
    found: dict[str, object] = {"copies": isinstance(model.whisper.model, TwoCopies)}
    for name, other in (("beside", model.sharing.inference(draft=True)), ("alone", nullcontext())):
        with other:
            before = ticks()
            texts = [model.recognize(chunk, DecodeOptions()).text for _ in range(TIMES)]
            spent = {thread: now - before.get(thread, 0) for thread, now in ticks().items()}
        found[name] = {"texts": texts, "ticks": spent}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
