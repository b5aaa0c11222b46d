"""Coverage-guided fuzzing of the parsers written in Python, a hundred times faster than `buildscripts/fuzz`.

`python -m buildscripts.lib.fuzz.coverage_guided {wav,form,openai_form,content_type,config} [-max_total_time=60, ...]`

Needs atheris (`pip install atheris`), which nothing else uses. FFmpeg's decoders are not instrumented. An input that
crashes is kept in buildscripts/lib/fuzz/corpus.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile

OURS = [
    "stt_server.audio.wav",
    "stt_server.config",
    "gateway.http.multipart",
    "gateway.http.fields",
    "gateway.openai.form",
    "gateway.rest.form",
    "python_multipart",
    "dotenv",
]


def main(argv: list[str]) -> None:
    import atheris

    name, *options = argv
    with atheris.instrument_imports(include=OURS):
        targets = importlib.import_module("buildscripts.lib.fuzz.targets")
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs every malformed form
    run = getattr(targets, name)
    kept = targets.CORPUS / ("decoder" if name == "wav" else name)
    with tempfile.TemporaryDirectory(prefix="stt-fuzz-") as grown:
        atheris.Setup([sys.argv[0], f"-artifact_prefix={kept}/found-", *options, grown, str(kept)], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
