"""The options of every command that has something transcribed: how."""

from __future__ import annotations

import argparse

from stt_client.request import ENCODINGS, ROUTINGS, TASKS, AudioFormat, SpeechOptions

RAW_RATES_HZ = (4000, 192_000)


def add_speech(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds `--language` and so on, to a group that is returned."""
    group = parser.add_argument_group("speech")
    group.add_argument("--language", metavar="CODE", help="such as en; left out: detected")
    group.add_argument(
        "--candidate-languages", type=comma_list, default=(), metavar="CODE,...", help="detect among these"
    )
    group.add_argument("--task", choices=tuple(TASKS), default="transcribe", help="translate: to English")
    group.add_argument("--prompt", default="", metavar="TEXT", help="text before the audio: style and vocabulary")
    group.add_argument("--hotwords", type=comma_list, default=(), metavar="WORD,...", help="words to listen for")
    group.add_argument("--words", action="store_true", help="each word's time, in --json")
    group.add_argument("--routing", choices=tuple(ROUTINGS), default="auto", help="which model answers")
    group.add_argument(
        "--raw-rate", "--rate", type=_rate, metavar="HZ", help="the input is headerless, at this sample rate"
    )
    group.add_argument("--raw-encoding", choices=tuple(ENCODINGS), help="of headerless input (default: linear16)")
    return group


def speech_of(arguments: argparse.Namespace) -> SpeechOptions:
    """What was given."""
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
    """Of headerless input; None where there is a header to be read."""
    rate = arguments.raw_rate
    return AudioFormat(arguments.raw_encoding or "linear16", rate) if rate else None


def comma_list(text: str) -> tuple[str, ...]:
    """An argument's type: parts between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _rate(text: str) -> int:
    low, high = RAW_RATES_HZ
    if not low <= (rate := int(text)) <= high:
        raise argparse.ArgumentTypeError(f"{text} is not within {low} to {high} Hz")
    return rate
