"""`bench decoder`: what a step of the decoder costs, by batch, beams and window, beside what it has to read.

Each step reads all weights of the decoder once for the whole batch, and the encoder's keys and values of each item.
Time is processor time of one single-threaded worker per step, the slope between a short and a long text of forced
length, so that other load hardly matters. Gigabytes per second are what a step reads in its time; a copy of a large
array in memory shows what one core of this machine reaches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from buildscripts.lib.bench.engine import model_folder, numbers
from buildscripts.lib.bench.report import heading
from stt_server.engine.encoding import as_batch
from stt_server.engine.loading import ModelOptions, load
from stt_server.engine.model_file import ModelShape, read_shape
from stt_server.engine.windows import POSITIONS_PER_SECOND, FloatArray

SHORT_TEXT, LONG_TEXT = 10, 42
"""Tokens, including the prompt."""
_FLOAT = 4
_COPIED = 1 << 26
"""Numbers in the array that is copied: 256 MiB, more than any cache."""


@dataclass(frozen=True)
class Step:
    """One step of the decoder."""

    window: int
    batch: int
    beams: int
    milliseconds: float
    weights: int
    """Bytes."""
    keys: int
    """Bytes of keys and values of the whole batch; the beams of an item share them."""

    @property
    def rate(self) -> float:
        """Gigabytes read per second."""
        return (self.weights + self.keys) / self.milliseconds / 1e6


def weight_bytes(shape: ModelShape) -> int:
    """Bytes of int8 weights that a step reads: of each layer 14 squares of the width, and the vocabulary's embeddings.

    Four squares for self-attention, two for the query and output of cross-attention, eight for the feed-forward part.
    """
    return 14 * shape.width**2 * shape.decoder_layers + shape.tokens * shape.width


def key_bytes(shape: ModelShape, window: int) -> int:
    """Bytes of an item's float32 keys and values in all layers, for a window of this many seconds."""
    return 2 * shape.decoder_layers * window * POSITIONS_PER_SECOND * shape.width * _FLOAT


def processor_ms(call: Callable[[], object], rounds: int) -> float:
    """Median processor time of a call in milliseconds, all threads together."""

    def once() -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    return 1000 * median(once() for _ in range(rounds))


def measure(model: Any, shape: ModelShape, window: int, batch: int, beams: int, rounds: int) -> Step:
    """Time steps of a model that is loaded with one thread."""
    random = np.random.default_rng(0)
    output: FloatArray = random.normal(0, 1, (batch, window * POSITIONS_PER_SECOND, shape.width)).astype(np.float32)
    encoded = as_batch([_Output(each) for each in output])  # type: ignore[misc]
    tokenizer = model.hf_tokenizer
    start, end = (tokenizer.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "endoftext"))

    def write(tokens: int) -> None:
        model.model.generate(
            encoded, [[start]] * batch, beam_size=beams, max_length=tokens, suppress_blank=False, suppress_tokens=[end]
        )

    write(SHORT_TEXT)
    short, long = (processor_ms(lambda n=n: write(n), rounds) for n in (SHORT_TEXT, LONG_TEXT))  # type: ignore[misc]
    # CTranslate2 counts the prompt in its maximum, and generates at most half of it.
    steps = LONG_TEXT // 2 - SHORT_TEXT // 2
    return Step(window, batch, beams, (long - short) / steps, weight_bytes(shape), batch * key_bytes(shape, window))


@dataclass(frozen=True)
class _Output:
    """Stands for `Encoded`, of which only the output is used."""

    output: FloatArray


def copy_rate(rounds: int) -> float:
    """Gigabytes per second, read and written, of copying a large array on one core."""
    source = np.ones(_COPIED, dtype=np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / processor_ms(lambda: np.copyto(target, source), rounds) / 1e6


def table(steps: Sequence[Step]) -> str:
    """Markdown table with a line per measurement."""
    lines = [
        "| window s | batch | beams | ms per step | ms per item | MB of weights | MB of keys and values | GB/s |",
        "|" + "---|" * 8,
    ]
    for step in steps:
        sizes = f"{step.weights / 1e6:.1f} | {step.keys / 1e6:.1f}"
        times = f"{step.milliseconds:.1f} | {step.milliseconds / step.batch:.1f}"
        lines.append(f"| {step.window} | {step.batch} | {step.beams} | {times} | {sizes} | {step.rate:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench decoder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=model_folder, default="base", help="as of bench engine; default: base")
    parser.add_argument("--windows", type=numbers, default="8,23", help="seconds; default: 8,23")
    parser.add_argument("--batches", type=numbers, default="1,4,8", help="default: 1,4,8")
    parser.add_argument("--beams", type=numbers, default="1,5", help="default: 1,5")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    args = parser.parse_args(argv)
    folder: Path = args.model
    shape = read_shape(folder / "model.bin")
    model, _ = load(ModelOptions(folder, folder.name, device="cpu", compute_type="int8"))
    steps = [
        measure(model, shape, window, batch, beams, args.rounds)
        for window in args.windows
        for beams in args.beams
        for batch in args.batches
    ]
    print(heading("decoder", argv))
    print(table(steps))
    print(f"Copying in memory: {copy_rate(args.rounds):.1f} GB/s read and written by one core.")
    return 0
