"""`models check FOLDER`: shortened windows of a model against the full one, and what to configure for it.

Every recording is transcribed with the full window and with each length of the silence after the audio, in turn, with
its language given. The shortest silence that makes no more errors than the full window is recommended: what was
measured on one model is not assumed of another. The recordings are samples/, or your own with --corpus: some hundred
of them, as your callers send them, tell more than the few samples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from buildscripts.lib.bench.report import Accuracy, accuracy
from buildscripts.lib.load.closed_loop import Recording
from buildscripts.lib.load.corpus import Clip, CorpusError
from buildscripts.lib.load.corpus import load as load_corpus
from buildscripts.lib.models.measure import folder_of
from buildscripts.lib.models.pins import ROOT, FetchError
from buildscripts.lib.models.shape import NOTICE
from stt_server.audio import split
from stt_server.engine.loading import ModelLoadError, ModelOptions
from stt_server.engine.model_file import read_shape
from stt_server.engine.types import ChunkJob, DecodeOptions, join_text
from stt_server.engine.windows import CAUTIOUS, TAILS

if TYPE_CHECKING:
    from stt_server.engine.whisper import WhisperRecognizer

FULL = None
"""The full window, in place of a number of seconds of silence."""
TAILS_TRIED = (2.0, 3.0, 4.0, 6.0)
"""Seconds of silence after the audio."""
TOLERATED = 0.003
"""Errors more than the full window's, as a share of the words, that count as none: batching alone changes as much."""
WORTHWHILE = 0.95
"""Share of the full window's time above which a shortened window is not worth its risk."""


@dataclass(frozen=True)
class Outcome:
    """All recordings with one setting."""

    accuracy: Accuracy
    changed: int
    """Recordings with another text than on the full window."""
    seconds: float
    """Time of recognition."""

    @property
    def defects(self) -> int:
        """Texts that loop or are cut short."""
        return self.accuracy.looped + self.accuracy.cut_short


def recommended(outcomes: Mapping[float | None, Outcome]) -> float | None:
    """Seconds of silence to configure; None: the full window."""
    full = outcomes[FULL]
    most = full.accuracy.errors + max(1, round(TOLERATED * full.accuracy.words))
    for tail, outcome in sorted((tail, found) for tail, found in outcomes.items() if tail is not None):
        same = outcome.accuracy.errors <= most and outcome.defects <= full.defects
        if same and outcome.seconds < WORTHWHILE * full.seconds:
            return tail
    return FULL


def configuration(tail: float | None, width: int) -> str:
    """Lines for the configuration file."""
    if tail is None:
        return "ENCODER_WINDOW=full"
    built_in = TAILS.get(width, CAUTIOUS).encoded
    note = "  # as built in for this width; may be left empty" if tail == built_in else ""
    return f"ENCODER_WINDOW=adaptive\nENCODER_TAIL_S={tail:g}{note}"


def table(outcomes: Mapping[float | None, Outcome], audio: float) -> str:
    """Markdown table with a line per setting.

    Args:
        audio: seconds of audio in all recordings.
    """
    full = outcomes[FULL]
    lines = [
        "| window | word error rate | looped | cut short | texts unlike full's | s per s of audio | of full |",
        "|" + "---|" * 7,
    ]
    for tail, outcome in outcomes.items():
        name = "full" if tail is None else f"adaptive, {tail:g} s of silence"
        rate = "" if outcome.accuracy.rate is None else f"{outcome.accuracy.rate:.1%}"
        cells = (name, rate, outcome.accuracy.looped, outcome.accuracy.cut_short, outcome.changed)
        times = (f"{outcome.seconds / audio:.3f}", f"{outcome.seconds / full.seconds:.2f}")
        lines.append("| " + " | ".join(map(str, (*cells, *times))) + " |")
    return "\n".join(lines)


def compare(
    model: WhisperRecognizer, recordings: Sequence[Recording], on_done: Callable[[], None] = lambda: None
) -> dict[float | None, Outcome]:
    """Transcribe the recordings with each setting.

    Args:
        on_done: called after each recording.
    """
    from stt_server.engine.whisper import WhisperRecognizer

    settings: dict[float | None, WhisperRecognizer] = {}
    for tail in (FULL, *TAILS_TRIED):
        options = replace(model.options, encoder_window="full" if tail is None else "adaptive", encoder_tail=tail)
        settings[tail] = WhisperRecognizer(options, model.whisper)
        settings[tail].warm_up()
    texts: dict[float | None, list[str]] = {tail: [] for tail in settings}
    seconds = dict.fromkeys(settings, 0.0)
    for recording in recordings:
        chunks = split(recording.samples, vad_filter=True)
        for tail, recognizer in settings.items():  # in turn, so that a slow phase of the machine affects all
            began = time.perf_counter()
            jobs = [ChunkJob(chunk, DecodeOptions(language=recording.language)) for chunk in chunks]
            texts[tail].append(join_text(recognizer.recognize_batch([job])[0].text for job in jobs))
            seconds[tail] += time.perf_counter() - began
        on_done()
    return {tail: _outcome(recordings, texts[tail], texts[FULL], seconds[tail]) for tail in settings}


def _outcome(recordings: Sequence[Recording], texts: list[str], full: list[str], seconds: float) -> Outcome:
    changed = sum(one != other for one, other in zip(texts, full, strict=True))
    return Outcome(accuracy(recordings, [texts], lambda language: True), changed, seconds)


def _recordings(folder: Path, languages: Sequence[str], limit: int | None) -> list[Recording]:
    clips: list[Clip] = [clip for clip in load_corpus(folder) if clip.language in languages]
    if not clips:
        raise FetchError(f"{folder} has no recordings in a language of the model; give others with --corpus")
    return [Recording.of(clip) for clip in clips[:limit]]


def main(argv: Sequence[str], say: Callable[[str], None] = print) -> None:
    """Print the comparison and the recommendation.

    Raises:
        FetchError: the model can't be loaded, or there are no recordings.
        SystemExit: invalid arguments.
    """
    from stt_server.engine.whisper import WhisperRecognizer

    args = _arguments(argv)
    folder = folder_of(args.folder, args.models_dir)
    try:
        shape = read_shape(folder / "model.bin")
        options = ModelOptions(
            folder, folder.name, args.device, compute_type=args.compute_type, cpu_threads=args.threads
        )
        model = WhisperRecognizer(options)
        recordings = _recordings(args.corpus, model.info.languages, args.clips)
    except (ModelLoadError, CorpusError, ValueError) as error:
        raise FetchError(str(error)) from error
    audio = sum(recording.seconds for recording in recordings)
    info = model.info
    say(
        f"{folder.name}: width {shape.width}, {shape.encoder_layers} + {shape.decoder_layers} layers, {shape.mels} mel "
        f"bands, {len(info.languages)} languages; {info.compute_type} on {info.device}; "
        f"{len(recordings)} recordings, {audio:.0f} s"
    )
    outcomes = compare(model, recordings)
    say(table(outcomes, audio))
    if (folder / NOTICE).exists():
        say("The weights are random: the times are right, the texts mean nothing, and nothing is recommended.")
        return
    say(f"Recommended for {folder.name}:\n{configuration(recommended(outcomes), shape.width)}")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/models check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", help="model folder, or base, tiny.en, shape-turbo, ...")
    parser.add_argument("--corpus", type=Path, default=ROOT / "samples", help="default: samples/")
    parser.add_argument("--clips", type=int, help="only the first so many recordings")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--compute-type", default="default", help="as COMPUTE_TYPE; default: default")
    parser.add_argument("--threads", type=int, default=1, help="of one inference on the CPU; default: 1")
    parser.add_argument("--models-dir", type=Path, default=ROOT / "models", help="default: models/ of the repository")
    return parser.parse_args(argv)
