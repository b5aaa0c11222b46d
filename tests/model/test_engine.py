"""The engine with the starter models on real speech."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from stt_server.audio import split
from stt_server.engine import acceptance
from stt_server.engine.generation import Decoded
from stt_server.engine.inference import probe, recognize_each
from stt_server.engine.types import ChunkJob, DecodeOptions, Samples
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.errors import OutOfMemory
from tests.support.speech import clip, samples_of, silence, words

pytestmark = pytest.mark.model

ENGLISH = clip("en", "quick_brown_fox")
SENTENCE = "the quick brown fox jumps over the lazy dog"


@dataclass
class Clip:
    samples: Samples
    start: float = 0.0
    speech: tuple[tuple[float, float], ...] = ()
    speech_certain: bool = True


@pytest.mark.parametrize("name", ["base", "tiny_en", "base_with_beams"])
def test_each_model_recognizes_a_sentence(name: str, request: pytest.FixtureRequest) -> None:
    model: WhisperRecognizer = request.getfixturevalue(name)
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    found = model.recognize(chunk, DecodeOptions())
    assert words(found.text) == SENTENCE
    assert found.language == "en"
    assert not found.looped
    assert 2.0 < found.segments[-1].end <= 3.0
    assert all(logprob <= 0 for logprob in found.token_logprobs)
    assert len(found.token_logprobs) >= 9


def processor_ticks(lowered: bool) -> int:
    """Processor ticks used by this process's threads, with or without lowered priority."""
    stats = [task.read_text().rpartition(")")[2].split() for task in Path("/proc/self/task").glob("*/stat")]
    usual = os.nice(0)
    return sum(int(stat[11]) for stat in stats if (int(stat[16]) > usual) is lowered)


def test_inference_threads_have_lower_priority(base: WhisperRecognizer) -> None:
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    before = processor_ticks(True), processor_ticks(False)
    for _ in range(4):
        base.recognize(chunk, DecodeOptions())
    computed, rest = (processor_ticks(way) - ticks for way, ticks in zip((True, False), before, strict=True))
    assert computed > rest


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("en", "counting"),
        ("es", "conteo"),
        ("fr", "comptage"),
        ("it", "conteggio"),
        ("pt", "contagem"),
        ("zh", "jishu"),
    ],
)
def test_language_is_detected(base: WhisperRecognizer, language: str, name: str) -> None:
    (chunk,) = split(samples_of(clip(language, name)), vad_filter=True)
    found = base.recognize(chunk, DecodeOptions())
    assert found.language == language
    assert found.language_probability is not None
    assert found.language_probability > 0.7


def test_unsure_language_is_detected_again_without_encoding(base: WhisperRecognizer) -> None:
    (chunk,) = split(samples_of(clip("es", "pangrama")), vad_filter=True)
    found = base.recognize(chunk, DecodeOptions())
    assert found.language == "es", "on a window that just fits it, English is likelier"


def test_candidate_and_given_languages_override_detection(base: WhisperRecognizer) -> None:
    (chunk,) = split(samples_of(clip("fr", "comptage")), vad_filter=True)
    among = base.recognize(chunk, DecodeOptions(candidate_languages=("de", "it")))
    assert among.language in ("de", "it")
    assert among.language_probability is not None
    forced = base.recognize(chunk, DecodeOptions(language="fr"))
    assert (forced.language, forced.language_probability) == ("fr", None)


def test_languages_without_a_token_are_not_supported(base: WhisperRecognizer, tiny_en: WhisperRecognizer) -> None:
    assert "yue" not in base.info.languages
    assert len(base.info.languages) == 99
    assert tiny_en.info.languages == ("en",)


def test_two_languages_in_one_chunk_are_both_recognized(base: WhisperRecognizer) -> None:
    parts = [samples_of(ENGLISH), silence(1.0), samples_of(clip("fr", "comptage"))]
    (chunk,) = split(np.concatenate(parts), vad_filter=True)
    (found,) = base.recognize_batch([ChunkJob(chunk, DecodeOptions(), may_change_language=True)])
    assert words(found.text).startswith(SENTENCE)
    assert words(found.text).endswith(" 10")
    assert {segment.language for segment in found.segments} == {"en", "fr"}
    (alone,) = split(samples_of(clip("fr", "comptage")), vad_filter=True)
    (other,) = base.recognize_batch([ChunkJob(alone, DecodeOptions(), expected_language="en")])
    assert other.language == "fr"
    (same,) = base.recognize_batch([ChunkJob(alone, DecodeOptions(), expected_language="fr")])
    assert (same.language, same.language_probability) == ("fr", None)


def test_translation_is_into_english(base: WhisperRecognizer) -> None:
    (chunk,) = split(samples_of(clip("fr", "bonjour_monde")), vad_filter=True)
    found = base.recognize(chunk, DecodeOptions(language="fr", task="translate"))
    assert "world" in words(found.text)


def test_word_times_agree_between_short_and_full_window(base: WhisperRecognizer) -> None:
    full = WhisperRecognizer(dataclasses.replace(base.options, encoder_window="full"))
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    options = DecodeOptions(language="en", word_timestamps=True)
    short_words = [w for s in base.recognize(chunk, options).segments for w in s.words]
    full_words = [w for s in full.recognize(chunk, options).segments for w in s.words]
    assert [w.text.strip(" .").casefold() for w in short_words] == SENTENCE.split()
    assert [w.text for w in short_words] == [w.text for w in full_words]
    for short, long in zip(short_words, full_words):
        assert short.start == pytest.approx(long.start, abs=0.1)
        assert short.end == pytest.approx(long.end, abs=0.1)
        assert 0 <= short.probability <= 1
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(short_words))


def test_times_count_from_the_start_of_the_recording(base: WhisperRecognizer) -> None:
    audio = np.concatenate([silence(7), samples_of(ENGLISH)])
    (chunk,) = split(audio, vad_filter=True)
    assert chunk.start > 6
    found = base.recognize(chunk, DecodeOptions(language="en", word_timestamps=True))
    assert 6.5 < found.segments[0].start < 7.5
    assert 6.5 < found.segments[0].words[0].start < 7.5
    assert 9.0 < found.segments[-1].end < 10.2


def test_rest_of_a_chunk_is_decoded_after_an_early_stop(base: WhisperRecognizer) -> None:
    """The text ends before the detected speech, so the rest is decoded; no words are repeated."""
    audio = np.concatenate([samples_of(ENGLISH), silence(1.0), samples_of(clip("en", "hello_world"))])
    found = base.recognize(Clip(audio, speech=((0.1, 2.6), (3.9, 5.0))), DecodeOptions(language="en"))
    assert words(found.text) == f"{SENTENCE} hello world"


@pytest.mark.parametrize(
    ("quiet", "gain", "last", "given"),
    [(clip("en", "counting"), 0.063, ENGLISH, "en"), (clip("fr", "pangrama"), 0.025, clip("en", "counting"), None)],
)
def test_a_quiet_sentence_between_two_others_is_decoded(
    base: WhisperRecognizer, quiet: Path, gain: float, last: Path, given: str | None
) -> None:
    """The second one in another language. The model alone leaves both out."""
    middle = samples_of(quiet) * np.float32(gain)
    audio = np.concatenate([samples_of(ENGLISH), silence(0.25), middle, silence(0.25), samples_of(last)])
    (chunk,) = split(audio, vad_filter=True)
    job = ChunkJob(chunk, DecodeOptions(language=given, word_timestamps=True), may_change_language=given is None)
    (found,) = base.recognize_batch([job])
    assert len(found.segments) == 3
    assert words(found.segments[0].text) == SENTENCE
    assert found.segments[1].language in ("", "fr")
    times = [time for segment in found.segments for word in segment.words for time in (word.start, word.end)]
    assert times == sorted(times)


def test_a_text_that_leaves_out_speech_in_the_middle_is_completed(
    base: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the gap shows between the segments, or only by the words of a segment that extends over it."""
    parts = [samples_of(ENGLISH), silence(0.4), samples_of(clip("en", "counting")), silence(0.4), samples_of(ENGLISH)]
    (chunk,) = split(np.concatenate(parts), vad_filter=True)
    decode = base._decoder.decode

    def leaving_out(stretched: bool, batch: Sequence[Any], temperature: float = 0.0) -> list[Decoded]:
        (found,) = decode(batch, temperature)
        if len(found.segments) < 3:
            return [found]
        first, last = found.segments[0], found.segments[-1]
        first = dataclasses.replace(first, end=last.start if stretched else first.end)
        return [
            dataclasses.replace(
                found,
                segments=[first, last],
                logprobs=[found.logprobs[0], found.logprobs[-1]],
                words=[found.words[0], found.words[-1]],
            )
        ]

    whole = base.recognize(chunk, DecodeOptions(language="en"))
    assert len(whole.segments) == 3
    for stretched in (False, True):
        monkeypatch.setattr(base._decoder, "decode", functools.partial(leaving_out, stretched))
        found = base.recognize(chunk, DecodeOptions(language="en"))
        assert words(found.text).startswith(SENTENCE)
        assert words(found.text).endswith(SENTENCE)
        assert len(found.segments) == 3
        assert re.findall(r"\d+", found.segments[1].text) or "two" in words(found.segments[1].text)


def test_only_the_full_window_drops_a_hallucination(base: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a short one, models overestimate the probability of silence."""
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    decode = base._decoder.decode
    decoded_windows: list[int] = []

    def doubtful(batch: Sequence[Any], temperature: float = 0.0, **options: Any) -> list[Decoded]:
        (found,) = decode(batch, temperature, **options)
        decoded_windows.append(len(batch[0].encoded.output) // 50)
        if decoded_windows[-1] == 30:
            return [found]
        return [dataclasses.replace(found, no_speech_prob=0.99, logprobs=[[-3.0] * len(p) for p in found.logprobs])]

    monkeypatch.setattr(base._decoder, "decode", doubtful)
    found = base.recognize(chunk, DecodeOptions(language="en"))
    assert decoded_windows == [8, 8, 30], "a search with beams comes first"
    assert (words(found.text), found.suppressed) == (SENTENCE, None)


@pytest.mark.parametrize(("certain", "suppressed"), [(True, None), (False, "no_speech")])
def test_text_dropped_over_certain_speech_is_a_doubt(
    base: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch, certain: bool, suppressed: str | None
) -> None:
    """An empty text that isn't suppressed is escalated to the fallback."""
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    decode = base._decoder.decode

    def doubtful(batch: Sequence[Any], temperature: float = 0.0, **options: Any) -> list[Decoded]:
        (found,) = decode(batch, temperature, **options)
        return [dataclasses.replace(found, no_speech_prob=0.99, logprobs=[[-3.0] * len(p) for p in found.logprobs])]

    monkeypatch.setattr(base._decoder, "decode", doubtful)
    found = base.recognize(dataclasses.replace(chunk, speech_certain=certain), DecodeOptions(language="en"))
    assert (found.text, found.token_logprobs, found.suppressed) == ("", (), suppressed)


def test_spoken_repetition_is_kept_and_decoded_once(base: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    part = np.concatenate([samples_of(clip("en", "hello_world")), silence(0.25)])
    (chunk,) = split(np.concatenate([part] * 3), vad_filter=True)
    decode = base._decoder.decode
    decoded: list[tuple[float, int | None]] = []

    def counted(batch: Sequence[Any], temperature: float = 0.0, *, beams: int | None = None) -> list[Decoded]:
        decoded.append((temperature, beams))
        return decode(batch, temperature, beams=beams)

    monkeypatch.setattr(base._decoder, "decode", counted)
    found = base.recognize(chunk, DecodeOptions(language="en"))
    assert words(found.text) == "hello world hello world hello world"
    assert (found.looped, found.suppressed, decoded) == (False, None, [(0.0, None)])


@pytest.mark.parametrize(("times", "pause"), [(2, 1.0), (8, 0.3)])
def test_sentence_said_again_and_again_is_written_as_often(base: WhisperRecognizer, times: int, pause: float) -> None:
    """Whisper writes it once, with a segment that lasts to the end."""
    chunks = split(np.concatenate([samples_of(ENGLISH), silence(pause)] * times), vad_filter=True)
    found = [base.recognize(chunk, DecodeOptions()) for chunk in chunks]
    assert " ".join(words(each.text) for each in found) == " ".join([SENTENCE] * times)
    assert not any(each.looped for each in found)


def test_loop_over_words_is_replaced_by_each_word(
    base_with_beams: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = np.concatenate([samples_of(clip("en", "hello_world")), silence(0.3)])
    (chunk,) = split(np.concatenate([part] * 5), vad_filter=True)
    decode = base_with_beams._decoder.decode

    def looping(batch: Sequence[Any], temperature: float = 0.0, *, beams: int | None = None) -> list[Decoded]:
        found = decode(batch, temperature, beams=beams)
        return found if beams == 1 else [dataclasses.replace(each, text=" Hello world." * 60) for each in found]

    monkeypatch.setattr(base_with_beams._decoder, "decode", looping)
    found = base_with_beams.recognize(chunk, DecodeOptions(language="en"))
    assert words(found.text) == " ".join(["hello world"] * 5)
    assert not found.looped


def test_prompt_and_hotwords_are_accepted(base: WhisperRecognizer) -> None:
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    options = DecodeOptions(language="en", prompt="A sentence about animals.", hotwords=("fox", "dog"))
    assert words(base.recognize(chunk, options).text) == SENTENCE


def test_batched_and_single_results_are_the_same(base: WhisperRecognizer) -> None:
    """Jobs with the same window may differ in language, task, candidates and words."""
    jobs = [
        ChunkJob(split(samples_of(clip(language, name)), vad_filter=True)[0], options)
        for language, name, options in (
            ("en", "quick_brown_fox", DecodeOptions(word_timestamps=True)),
            ("fr", "comptage", DecodeOptions()),
            ("fr", "bonjour_monde", DecodeOptions(language="fr", task="translate")),
            ("en", "hello_world", DecodeOptions(language="en")),
            ("es", "conteo", DecodeOptions(candidate_languages=("es", "pt"))),
        )
    ]
    assert len({base.group_of(job) for job in jobs}) == 1
    together = base.recognize_batch(jobs)
    alone = [base.recognize(job.chunk, job.options) for job in jobs]
    for one, other in zip(together, alone):
        assert one.text == other.text
        assert one.language == other.language
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=0.02)
        assert [[w.text for w in s.words] for s in one.segments] == [[w.text for w in s.words] for s in other.segments]
    assert [bool(found.segments[0].words) for found in together] == [True, False, False, False, False]
    assert "world" in words(together[2].text)
    assert [found.language_probability is None for found in together] == [False, False, True, True, False]


def test_prompt_puts_a_chunk_in_another_group(base: WhisperRecognizer) -> None:
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    plain = base.group_of(ChunkJob(chunk, DecodeOptions(language="en")))
    prompted = base.group_of(ChunkJob(chunk, DecodeOptions(language="en", prompt="A fox.")))
    assert plain != prompted
    assert base.batch_limit(plain) >= 4


def test_improbable_text_is_resampled_once_per_temperature(
    base: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = np.concatenate([samples_of(ENGLISH), silence(1.0), samples_of(clip("en", "counting"))])
    (chunk,) = split(audio, vad_filter=True)
    resampling = WhisperRecognizer(dataclasses.replace(base.options, temperatures=(0.2, 0.6)))
    tried: list[float] = []
    decode = resampling._decoder.decode

    def counted(batch: Sequence[Any], temperature: float = 0.0) -> Any:
        tried.append(temperature)
        return decode(batch, temperature)

    monkeypatch.setattr(resampling._decoder, "decode", counted)
    text = words(resampling.recognize(chunk, DecodeOptions(language="en")).text)
    assert text.startswith(SENTENCE)
    assert tried == [0.0], "an accepted text is not resampled"
    monkeypatch.setattr(acceptance, "RESAMPLE_LOGPROB", 1.0)
    assert words(resampling.recognize(chunk, DecodeOptions(language="en")).text) == text
    assert tried[1:] == [0.0, 0.2, 0.6]


class Broken:
    """A model whose encoder raises an exception like CTranslate2's."""

    device = "cpu"

    def __init__(self, message: str) -> None:
        self._message = message

    def encode(self, *_: object, **__: object) -> None:
        raise RuntimeError(self._message)


def test_model_exceptions_are_classified(tiny_en: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_en._encoder, "_model", Broken("CUDA failed with error out of memory"))
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    (failure,) = recognize_each(tiny_en, [ChunkJob(chunk, DecodeOptions())], list)
    assert type(failure) is OutOfMemory
    lost = probe(tiny_en)
    assert lost is not None
    assert "out of memory" in str(lost.__cause__)


def test_probe_of_a_working_model_succeeds(tiny_en: WhisperRecognizer, base: WhisperRecognizer) -> None:
    assert probe(tiny_en) is None
    assert probe(base) is None


def test_loading_limits_numpy_to_one_thread(base: WhisperRecognizer) -> None:
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


class OnGpu:
    """A model that claims to be on a GPU."""

    device = "cuda"

    def __init__(self, model: Any) -> None:
        self._model = model
        self.batches: list[int] = []

    def encode(self, mel: Any, to_cpu: bool) -> Any:
        self.batches.append(mel.shape[0])
        return self._model.encode(mel, to_cpu=to_cpu)


def test_gpu_encodes_a_batch_at_once_with_the_same_result(
    base: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [samples_of(ENGLISH), samples_of(clip("en", "hello_world"))]
    alone = base._encoder.encode(clips, 10, shortcut=False)
    on_gpu = OnGpu(base._encoder._model)
    monkeypatch.setattr(base._encoder, "_model", on_gpu)
    together = base._encoder.encode(clips, 10, shortcut=True)
    assert on_gpu.batches == [2]
    for one, other in zip(alone, together, strict=True):
        assert one.seconds == other.seconds
        np.testing.assert_allclose(one.output, other.output, atol=0.05)


def test_repeated_silence_hardly_changes_encoded_speech(base: WhisperRecognizer) -> None:
    audio = samples_of(ENGLISH)
    (complete,) = base._encoder.encode([audio], 10, shortcut=False)
    (repeated,) = base._encoder.encode([audio], 10, shortcut=True)
    assert repeated.output.shape == complete.output.shape == (500, complete.output.shape[1])
    speech = slice(0, int(repeated.seconds * 50))
    cosine = np.sum(complete.output * repeated.output, axis=1) / (
        np.linalg.norm(complete.output, axis=1) * np.linalg.norm(repeated.output, axis=1)
    )
    assert np.median(cosine[speech]) > 0.95


def test_greedy_and_aligned_logprobs_agree(base: WhisperRecognizer) -> None:
    (chunk,) = split(samples_of(ENGLISH), vad_filter=True)
    options = DecodeOptions(language="en")
    encoded = base._encoder.encode([chunk.samples], 10, shortcut=True)[0]
    item = base._decoder.input(encoded, options)
    decoded = base._decoder.decode([item])[0]
    (aligned,) = base._decoder.aligned_logprobs([item], [[token for s in decoded.segments for token in s.tokens]])
    greedy = [value for values in decoded.logprobs for value in values]
    # The aligner's prompt disables timestamps, so its decoder is in a slightly different state.
    assert np.mean(greedy) == pytest.approx(np.mean(aligned), abs=0.05)
    assert len(greedy) == len(aligned)
