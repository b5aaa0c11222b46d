"""Corpora: recordings with their reference texts, and word errors.

A corpus is a folder with a `manifest.jsonl`, one line per recording: {"file": "a.flac", "language": "en",
"text": "the reference", "seconds": 3.2, "strict": true}. `strict` may be omitted (true); false excludes a clip from
figures that must be exact. Without a manifest, every `<language>/<name>.wav` with a `<name>.txt` beside it is a
recording, as in `samples/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import jiwer
import numpy as np
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from stt_server.audio import SAMPLE_RATE, AudioFormat, decode
from stt_server.engine.types import Samples

MAX_SECONDS = 4 * 3600.0
"""Longest recording that is read."""
UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Languages written without spaces between words: characters are counted instead of words."""


class CorpusError(Exception):
    """A corpus that can't be used; the message is one line."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording."""

    name: str
    language: str
    """ISO 639-1 code."""
    text: str
    """Reference text."""
    seconds: float
    strict: bool
    read: Callable[[], Samples] = field(repr=False)
    """Decode the recording; `samples` caches the result."""

    @cached_property
    def samples(self) -> Samples:
        """Mono at 16 kHz; decoded on first use, then cached."""
        return self.read()


def load(folder: Path) -> list[Clip]:
    """Read a corpus, in the manifest's order, or by name if there is no manifest.

    Raises:
        CorpusError: it is empty, or a line of the manifest is invalid.
    """
    manifest = folder / "manifest.jsonl"
    clips = _of_manifest(manifest) if manifest.is_file() else _of_texts(folder)
    if not clips:
        raise CorpusError(
            f"{folder} is no corpus: expected a manifest.jsonl, or <language>/<name>.wav files with a .txt beside each"
        )
    return clips


def _of_manifest(manifest: Path) -> list[Clip]:
    clips = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            path = manifest.parent / str(entry["file"])
            clip = Clip(
                name=path.stem,
                language=str(entry["language"]),
                text=str(entry["text"]),
                seconds=float(entry["seconds"]),
                strict=bool(entry.get("strict", True)),
                read=_reader(path),
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise CorpusError(f"{manifest}, line {number}: invalid entry: {error!r}") from error
        if not path.is_file():
            raise CorpusError(f"{manifest}, line {number}: file not found: {path.name}")
        clips.append(clip)
    return clips


def _of_texts(folder: Path) -> list[Clip]:
    clips = []
    for path in sorted(folder.glob("*/*.wav")):
        text = path.with_suffix(".txt")
        if text.is_file():
            read = _reader(path)
            seconds = len(read()) / SAMPLE_RATE
            said = text.read_text(encoding="utf-8").strip()
            clips.append(Clip(path.stem, path.parent.name, said, seconds, True, read))
    return clips


def _reader(path: Path) -> Callable[[], Samples]:
    return lambda: decode(path.read_bytes(), AudioFormat("container", 0), max_seconds=MAX_SECONDS)


def joined(name: str, clips: list[Clip], pause: float = 0.8) -> Clip:
    """Join recordings of one language, with silence of `pause` seconds after each."""

    def read() -> Samples:
        gap = np.zeros(int(pause * SAMPLE_RATE), dtype=np.float32)
        return np.concatenate([part for clip in clips for part in (clip.samples, gap)])

    return Clip(
        name=name,
        language=clips[0].language,
        text=" ".join(clip.text for clip in clips),
        seconds=sum(clip.seconds + pause for clip in clips),
        strict=all(clip.strict for clip in clips),
        read=read,
    )


def word_errors(reference: str, hypothesis: str, language: str) -> tuple[int, int]:
    """Number of substituted, omitted and inserted words of `hypothesis`, and number of words of `reference`.

    Both are normalized as Whisper's authors do (case, punctuation; in English also numbers, contractions, spelling).
    Characters count as words in languages written without spaces.
    """
    expected, found = _words(reference, language), _words(hypothesis, language)
    if not expected or not found:
        return len(expected) + len(found), len(expected)
    counts = jiwer.process_words(" ".join(expected), " ".join(found))
    return counts.substitutions + counts.deletions + counts.insertions, len(expected)


def words_kept(reference: str, hypothesis: str, language: str) -> tuple[int, int]:
    """Number of words of `reference` that are in `hypothesis`, in their order, and number of words of `reference`.

    Args:
        language: as in `word_errors`; empty: of several languages.
    """
    expected, found = _words(reference, language), _words(hypothesis, language)
    if not expected or not found:
        return 0, len(expected)
    return jiwer.process_words(" ".join(expected), " ".join(found)).hits, len(expected)


def words_lost(reference: str, hypothesis: str, language: str) -> int:
    """Number of words of `reference` that `hypothesis` omits, by the alignment of `word_errors`."""
    expected, found = _words(reference, language), _words(hypothesis, language)
    if not expected or not found:
        return len(expected)
    return int(jiwer.process_words(" ".join(expected), " ".join(found)).deletions)


def _words(text: str, language: str) -> list[str]:
    normal = _normalizer(language)(text)
    if language in UNSPACED_LANGUAGES:
        return [character for character in normal if not character.isspace()]
    return normal.split()


@lru_cache(maxsize=1)
def _english() -> Callable[[str], str]:
    return EnglishTextNormalizer()  # type: ignore[no-any-return]


def _normalizer(language: str) -> Callable[[str], str]:
    return _english() if language == "en" else BasicTextNormalizer()
