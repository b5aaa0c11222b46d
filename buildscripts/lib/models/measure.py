"""`models measure NAME...`: cost of models on this machine's CPU, as a Markdown table.

Each model is measured in its own process and loaded as the services load it. Load time assumes that the files are in
the system's cache. Resident size is that of the process after one inference per window. The cost of a further request
is the rise of peak memory from one to four concurrent requests, divided by three, each with a full window. Time per
token is the slope between a short and a long text of forced length, so that random weights (models shape) cost as much
as real ones. Times are medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from buildscripts.lib.models.pins import ROOT, FetchError
from buildscripts.lib.models.shape import NOTICE

WINDOWS = (10, 15, 20, 30)
SHORT_TEXT, LONG_TEXT = 12, 76
"""Tokens, including the prompt."""
CONCURRENT = 4
_MODULE = "buildscripts.lib.models.measure"
_CLEAR_PEAK = "5"
"""Written to /proc/self/clear_refs to reset the peak resident size."""


@dataclass(frozen=True)
class Costs:
    name: str
    threads: int
    random: bool
    """Whether the weights are random numbers."""
    load_s: float
    resident_mib: float
    request_mib: float
    encode_s: dict[str, float]
    """By window length in seconds."""
    token_ms: float


def measure(folder: Path, name: str, threads: int, compute_type: str, rounds: int) -> Costs:
    """Load and run the model in this process: call it only once per process."""
    from stt_server.engine.loading import ModelOptions, load

    began = time.perf_counter()
    options = ModelOptions(
        folder, name, device="cpu", compute_type=compute_type, cpu_threads=threads, workers=CONCURRENT
    )
    whisper, _ = load(options)
    load_s = time.perf_counter() - began
    model = _Model(whisper)
    encoded = {window: model.encode(window) for window in WINDOWS}
    model.write(encoded[WINDOWS[0]], SHORT_TEXT)
    resident = _memory("VmRSS")
    encode_s = {str(window): _median_time(lambda w=window: model.encode(w), rounds) for window in WINDOWS}  # type: ignore[misc]
    return Costs(
        name=name,
        threads=threads,
        random=(folder / NOTICE).exists(),
        load_s=load_s,
        resident_mib=resident,
        request_mib=_rise(model),
        encode_s=encode_s,
        token_ms=_token_ms(model, encoded[WINDOWS[0]], rounds),
    )


class _Model:
    """The two model calls of a request."""

    def __init__(self, whisper: Any) -> None:
        from faster_whisper.tokenizer import Tokenizer

        self._whisper = whisper
        multilingual = whisper.model.is_multilingual
        self._tokenizer = Tokenizer(whisper.hf_tokenizer, multilingual, "transcribe", "en" if multilingual else None)
        self._samples = np.random.default_rng(0).normal(0, 0.05, 16000).astype(np.float32)

    def encode(self, window: int) -> Any:
        import ctranslate2

        from stt_server.engine.windows import features

        mel = features(self._whisper.feature_extractor, self._samples, window)
        return self._whisper.model.encode(ctranslate2.StorageView.from_array(mel), to_cpu=False)

    def write(self, encoded: Any, tokens: int) -> int:
        """Decode greedily to a length of `tokens` including the prompt; return the number of tokens written."""
        (result,) = self._whisper.model.generate(
            encoded,
            [[*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]],
            beam_size=1,
            max_length=tokens,
            suppress_blank=False,
            suppress_tokens=[self._tokenizer.eot],
        )
        return len(result.sequences_ids[0])


def _median_time(call: Callable[[], object], rounds: int) -> float:
    def once() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return median(once() for _ in range(rounds))


def _token_ms(model: _Model, encoded: Any, rounds: int) -> float:
    """Milliseconds per token."""
    short, long = (model.write(encoded, length) for length in (SHORT_TEXT, LONG_TEXT))
    times = [_median_time(lambda n=n: model.write(encoded, n), rounds) for n in (SHORT_TEXT, LONG_TEXT)]  # type: ignore[misc]
    return 1000 * (times[1] - times[0]) / (long - short)


def _rise(model: _Model) -> float:
    """MiB that each further concurrent request adds to the peak."""

    def request(_: int) -> None:
        model.write(model.encode(WINDOWS[-1]), LONG_TEXT)

    request(0)
    peaks = []
    for callers in (1, CONCURRENT):
        Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(request, range(2 * callers)))
        peaks.append(_memory("VmHWM"))
    return max(0.0, peaks[1] - peaks[0]) / (CONCURRENT - 1)


def _memory(field: str) -> float:
    """Field of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith(field + ":")]
    return int(line.split()[1]) / 1024


def table(costs: Sequence[Costs]) -> str:
    """Markdown table with a line per model and number of threads."""
    windows = " | ".join(f"encode {window} s" for window in WINDOWS)
    lines = [
        f"| model | threads | load s | resident MiB | each further request MiB | {windows} | ms per token |",
        "|" + "---|" * (6 + len(WINDOWS)),
    ]
    for cost in costs:
        name = f"{cost.name} (random weights)" if cost.random else cost.name
        encode = " | ".join(f"{cost.encode_s[str(window)]:.2f}" for window in WINDOWS)
        lines.append(
            f"| {name} | {cost.threads} | {cost.load_s:.1f} | {cost.resident_mib:.0f} | {cost.request_mib:.0f} "
            f"| {encode} | {cost.token_ms:.1f} |"
        )
    return "\n".join(lines)


def _in_process(args: argparse.Namespace, name: str, threads: int) -> Costs:
    command = [sys.executable, "-m", _MODULE, name, "--threads", str(threads), "--json"]
    command += ["--compute-type", args.compute_type, "--rounds", str(args.rounds), "--models-dir", str(args.models_dir)]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise FetchError(f"{name} could not be measured with {threads} threads; see the message above")
    return Costs(**json.loads(found.stdout))


def folder_of(name: str, models_dir: Path) -> Path:
    """Folder of a model given by name (`base`, `shape-small`, ...) or path.

    Raises:
        FetchError: there is no such model.
    """
    for folder in (models_dir / f"whisper-{name}-ct2", models_dir / f"{name}-ct2", Path(name)):
        if (folder / "model.bin").is_file():
            return folder
    raise FetchError(f"no model {name} in {models_dir}")


def main(argv: Sequence[str], say: Callable[[str], None] = print) -> None:
    """Print the table.

    Raises:
        FetchError: a model is missing or can't be run.
        SystemExit: invalid arguments.
    """
    parser = argparse.ArgumentParser(
        prog="buildscripts/models measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="base, tiny.en, shape-small, ... or a folder")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads per inference; default: 1 2")
    parser.add_argument("--compute-type", default="int8", help="default: int8")
    parser.add_argument("--rounds", type=int, default=3, help="measurements per time; default: 3")
    parser.add_argument("--models-dir", type=Path, default=ROOT / "models", help="default: models/ of the repository")
    parser.add_argument("--service", action="store_true", help="measure start-up and memory of a whole service instead")
    parser.add_argument(
        "--requests",
        type=int,
        nargs="+",
        default=[200],
        help="with --service: between memory readings; default: 200",
    )
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.json:
        folder = folder_of(args.names[0], args.models_dir)
        costs = measure(folder, args.names[0], args.threads[0], args.compute_type, args.rounds)
        say(json.dumps(asdict(costs)))
        return
    folders = [(name, folder_of(name, args.models_dir)) for name in args.names]
    if args.service:
        from buildscripts.lib.models.measure_service import measure_services, service_table

        say(service_table(measure_services(folders, args.requests), args.requests))
        return
    say(table([_in_process(args, name, threads) for name, _ in folders for threads in args.threads]))


if __name__ == "__main__":
    main(sys.argv[1:])
