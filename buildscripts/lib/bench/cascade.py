"""`bench cascade`: which recordings benefit from the larger model, judged by the small model's confidence.

Both models transcribe every clip once; then all thresholds are applied to their answers. Prints word error rate and
inference time against the share of clips that fall back: for the mean and the combined signal, for random choice, and
for an oracle that knows the errors. Then prints the threshold for a wanted share or error rate, to paste into the
primary's .env file. Every threshold in the last table was chosen on one half of the recordings and applied to the other
half, and so shows what to expect of new recordings.

Use recordings of your own with reference texts: some hundred clips, as your callers send them.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from buildscripts.lib.bench import cascade_report as report
from buildscripts.lib.bench import report as bench_report
from buildscripts.lib.bench.cascade_clips import DEGRADED, MAX_SECONDS, Answer, Pair, answer_of, pairs_of
from buildscripts.lib.bench.cascade_curve import ALWAYS, Outcome
from buildscripts.lib.bench.plots import plot_cascade
from buildscripts.lib.load.corpus import CorpusError, load
from buildscripts.lib.models.pins import ROOT
from stt_server.engine.loading import ModelLoadError, ModelOptions
from stt_server.engine.types import Samples
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.routing import Thresholds, better_founded, combined_confidence, decide

Signal = Literal["mean", "combined"]
SIGNALS: tuple[Signal, ...] = ("mean", "combined")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="buildscripts/bench cascade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=_model, default="models/whisper-tiny.en-ct2", help="the primary's model folder")
    parser.add_argument("--large", type=_model, default="models/whisper-base-ct2", help="the fallback's model folder")
    parser.add_argument("--corpus", type=Path, action="append", help="a folder with a manifest.jsonl; repeatable")
    parser.add_argument("--language", help="only clips in this language; default: all languages")
    parser.add_argument("--conditions", type=_conditions, default=["plain"], help=f"some of {', '.join(DEGRADED)}")
    parser.add_argument("--beam-large", type=int, default=5)
    parser.add_argument("--beam-in-doubt", type=int, default=5, help="BEAM_SIZE_IN_DOUBT of the primary; default: 5")
    parser.add_argument("--compute-type", default="int8", help="of both models; default: int8")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="per model on a CPU; default: all cores")
    parser.add_argument("--share", type=_share, default=0.25, help="share of clips that may fall back; default: 0.25")
    parser.add_argument("--wer", type=_share, help="also find the threshold for this word error rate")
    parser.add_argument("--min-words", type=int, default=Thresholds.min_words, help="MIN_WORDS_FOR_CONF of the primary")
    parser.add_argument("--cache", type=Path, help="JSON file that caches the models' answers")
    parser.add_argument("--png", type=Path, help="write a plot (needs the extra `bench`)")
    args = parser.parse_args(argv)
    if args.png and find_spec("matplotlib") is None:
        parser.error("--png needs matplotlib: pip install 'stt-pair[bench]'")
    return args


def _model(text: str) -> Path:
    folder = ROOT / text if not Path(text).is_dir() else Path(text)
    if not (folder / "model.bin").is_file():
        raise argparse.ArgumentTypeError(f"no model in {folder}; run buildscripts/models to fetch one")
    return folder


def _conditions(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in DEGRADED]:
        raise argparse.ArgumentTypeError(f"unknown condition {unknown[0]}; expected some of {', '.join(DEGRADED)}")
    return names


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(argv: Sequence[str]) -> int:
    args = arguments(argv)
    try:
        pairs = listen(args)
    except (CorpusError, ModelLoadError) as error:
        print(f"bench cascade: {error}", file=sys.stderr)
        return 2
    outcomes: dict[str, list[Outcome]] = {signal: outcomes_of(pairs, signal, args.min_words) for signal in SIGNALS}
    console = bench_report.console()
    console.print(bench_report.heading("cascade", argv), highlight=False, markup=False, soft_wrap=True)
    small, large = args.small.name, f"{args.large.name} with {args.beam_large} beams"
    report.overview(console, outcomes["mean"], small, large)
    report.curves(console, outcomes)
    report.at_default(console, outcomes)
    report.across_halves(console, outcomes, args.share)
    report.recommend(console, outcomes, args.share, args.wer)
    if args.png:
        plot_cascade(outcomes, args.png, f"{small} with {large} as its fallback")
    return 0


def listen(args: argparse.Namespace) -> list[Pair]:
    """Both models' answers to every selected clip."""
    found = [clip for folder in args.corpus or [ROOT / "samples"] for clip in load(folder)]
    clips = [c for c in found if c.seconds <= MAX_SECONDS and args.language in (None, c.language)]
    if not clips:
        raise CorpusError(f"no clips of at most {MAX_SECONDS:g} s in the selected language")

    @functools.cache
    def models() -> tuple[WhisperRecognizer, WhisperRecognizer]:
        return _load(args, args.small, 1), _load(args, args.large, args.beam_large)

    def ask(language: str, samples: Samples) -> tuple[Answer, Answer]:
        small, large = models()
        return answer_of(samples, small.recognize, language), answer_of(samples, large.recognize, language)

    key = {
        "small": args.small.name,
        "large": args.large.name,
        "beam_large": args.beam_large,
        "doubt": args.beam_in_doubt,
    }
    key |= {"compute_type": args.compute_type, "beam_in_doubt": args.beam_in_doubt}
    return pairs_of(clips, args.conditions, ask, args.cache, key, lambda line: print(line, file=sys.stderr))


def _load(args: argparse.Namespace, folder: Path, beams: int) -> WhisperRecognizer:
    options = ModelOptions(
        folder,
        folder.name,
        device=args.device,
        compute_type=args.compute_type,
        cpu_threads=args.threads,
        beam_size=beams,
        beam_size_in_doubt=args.beam_in_doubt,
    )
    recognizer = WhisperRecognizer(options)
    recognizer.warm_up()
    return recognizer


def outcomes_of(pairs: Sequence[Pair], signal: Signal, min_words: int) -> list[Outcome]:
    """Outcome of each clip for both models, with the score that is compared with the threshold."""
    return [_outcome(pair, signal, min_words) for pair in pairs]


def _outcome(pair: Pair, signal: Signal, min_words: int) -> Outcome:
    signals = pair.small.signals
    small, large = pair.small.confidence, pair.large.confidence
    sent_anyway = decide(signals, Thresholds(conf_logprob=0.0, min_words=min_words, signal=signal)).escalate
    score = combined_confidence(signals) if signal == "combined" else signals.confidence or 0.0
    founded = better_founded(
        small,
        large,
        fallback_looped=pair.large.signals.looped,
    )
    return Outcome(
        source=f"{pair.language} {pair.name}",
        words=pair.words,
        small_errors=pair.errors(pair.small),
        large_errors=pair.errors(pair.large),
        small_seconds=pair.small.seconds,
        large_seconds=pair.large.seconds,
        score=ALWAYS if sent_anyway else score,
        keeps_small=founded == "primary" and not signals.looped,
    )
