"""Options of speech recognition, for all commands that transcribe."""

from __future__ import annotations

import argparse

from stt_client.request import ENCODINGS, ROUTINGS, TASKS, AudioFormat, SpeechOptions

RAW_RATES_HZ = (4000, 192_000)
"""Sample rates of headerless recordings, in Hz: lowest and highest."""


def add_speech(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add `--language` and so on, and return their group."""
    group = parser.add_argument_group("speech")
    group.add_argument(
        "--language", metavar="LANGUAGE", help="language spoken, such as en, en-US or English (default: detect it)"
    )
    group.add_argument(
        "--candidate-languages", type=comma_list, default=(), metavar="LANGUAGE,...", help="languages to detect among"
    )
    group.add_argument(
        "--task",
        choices=tuple(TASKS),
        default="transcribe",
        help="translate: to English",
    )
    group.add_argument("--prompt", default="", metavar="TEXT", help="text before the audio, for style and vocabulary")
    group.add_argument("--hotwords", type=comma_list, default=(), metavar="WORD,...", help="words likely to occur")
    group.add_argument("--words", action="store_true", help="include word timestamps in --json")
    group.add_argument("--routing", choices=tuple(ROUTINGS), default="auto", help="model to use (default: auto)")
    group.add_argument("--raw-rate", "--rate", type=_rate, metavar="HZ", help="sample rate of headerless input")
    group.add_argument("--raw-encoding", choices=tuple(ENCODINGS), help="its encoding (default: linear16)")
    return group


def speech_of(arguments: argparse.Namespace) -> SpeechOptions:
    """Return the options of recognition."""
    return SpeechOptions(
        language=arguments.language,
        candidate_languages=arguments.candidate_languages,
        task=arguments.task,
        prompt=arguments.prompt,
        hotwords=arguments.hotwords,
        word_timestamps=arguments.words,
        routing=arguments.routing,
    )


def raw_format_of(arguments: argparse.Namespace) -> AudioFormat | None:
    """Return the format of headerless input; None if the input has a header."""
    rate = arguments.raw_rate
    return AudioFormat(arguments.raw_encoding or "linear16", rate) if rate else None


def comma_list(text: str) -> tuple[str, ...]:
    """Argument type: comma-separated values."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _rate(text: str) -> int:
    low, high = RAW_RATES_HZ
    if not low <= (rate := int(text)) <= high:
        raise argparse.ArgumentTypeError(f"invalid sample rate {text}: must be {low} to {high} Hz")
    return rate
