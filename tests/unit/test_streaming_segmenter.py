"""Where utterances start and end: for scripted probabilities, for real speech, and for noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_server.audio import AudioFormat, Chunk
from stt_server.audio.headerless import MULAW_TO_LINEAR
from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import VoiceActivity, detect_speech
from stt_server.streaming.events import PossibleSpeech, SpeechEnded, SpeechEvent, SpeechStarted
from stt_server.streaming.segmenter import Detector, UtteranceSegmenter
from tests.support import no_speech
from tests.support.speech import RATE, Samples, clip, samples_of, silence
from tests.support.streams import pcm, timed_recording

LINEAR16 = AudioFormat("linear16", RATE, 1)
WINDOW = 512


@dataclass
class Segmented:
    """All events of a stream, and the chunks of those that have one."""

    events: list[SpeechEvent] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    def collect(self, segmenter: UtteranceSegmenter, events: Sequence[SpeechEvent]) -> None:
        self.events += events
        self.chunks += [segmenter.chunk(event.bounds) for event in events if not isinstance(event, SpeechStarted)]

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def started(self) -> list[SpeechStarted]:
        return [event for event in self.events if isinstance(event, SpeechStarted)]

    @property
    def ended(self) -> list[SpeechEnded]:
        return [event for event in self.events if isinstance(event, SpeechEnded)]

    @property
    def possible(self) -> list[PossibleSpeech]:
        return [event for event in self.events if isinstance(event, PossibleSpeech)]


def segment(
    data: bytes, *, cuts: Sequence[int] = (), endpoint: float = 0.6, format: AudioFormat = LINEAR16
) -> Segmented:
    segmenter = UtteranceSegmenter(format, endpoint)
    found = Segmented()
    for a, b in pairwise([0, *sorted(cuts), len(data)]):
        found.collect(segmenter, segmenter.add(data[a:b]))
    found.collect(segmenter, segmenter.finish())
    return found


def scripted(*parts: tuple[float, float]) -> tuple[bytes, Detector]:
    """Silence, and a detector that returns the given probabilities for it: (probability, seconds), ..."""
    probabilities = np.concatenate([np.full(round(s * RATE / WINDOW), p, dtype=np.float32) for p, s in parts])
    waiting = iter(probabilities)

    def detect(samples: FloatArray) -> FloatArray:
        return np.array([next(waiting) for _ in range(len(samples) // WINDOW)], dtype=np.float32)

    return bytes(2 * WINDOW * len(probabilities)), detect


def segment_scripted(*parts: tuple[float, float], endpoint: float = 0.6) -> Segmented:
    data, detect = scripted(*parts)
    segmenter = UtteranceSegmenter(LINEAR16, endpoint, detect)
    found = Segmented()
    found.collect(segmenter, segmenter.add(data))
    found.collect(segmenter, segmenter.flush())
    return found


def test_voice_activity_in_pieces_equals_that_of_the_whole() -> None:
    samples = samples_of(clip("en", "counting"))[: 90 * WINDOW]
    activity = VoiceActivity()
    pieces = [activity.judge(samples[a * WINDOW : b * WINDOW]) for a, b in pairwise([0, 1, 4, 5, 30, 90])]
    assert np.allclose(np.concatenate(pieces), detect_speech(samples), atol=1e-5)


@pytest.mark.parametrize("endpoint", [0.3, 0.6, 1.0])
def test_offsets_match_real_speech(endpoint: float) -> None:
    samples, truth = timed_recording("quick_brown_fox", "counting", "hello_world", lead=1.0)
    found = segment(pcm(samples), endpoint=endpoint)
    assert found.kinds == ["SpeechStarted", "SpeechEnded"] * 3
    assert [event.offset for event in found.started] == pytest.approx([begin for begin, _ in truth], abs=0.3)
    assert [event.offset for event in found.ended] == pytest.approx([end for _, end in truth], abs=0.3)
    for event, chunk in zip(found.ended, found.chunks, strict=True):
        assert event.noticed_at - event.offset == pytest.approx(endpoint, abs=0.04)
        assert chunk.speech[0][0] == pytest.approx(0.4, abs=0.05), "padding before speech"
        assert chunk.speech_certain


@given(cuts=st.lists(st.integers(0, 2 * 9 * RATE), max_size=40))
@settings(max_examples=15, deadline=None)
def test_any_split_of_the_same_bytes_gives_the_same_utterances(cuts: list[int]) -> None:
    data = pcm(timed_recording("quick_brown_fox", "hello_world", lead=1.0)[0])
    whole, split = segment(data), segment(data, cuts=[min(cut, len(data)) for cut in cuts])
    assert whole.events == split.events
    for one, other in zip(whole.chunks, split.chunks, strict=True):
        assert np.array_equal(one.samples, other.samples)
        assert (one.start, one.speech, one.speech_certain) == (other.start, other.speech, other.speech_certain)


@pytest.mark.parametrize(("rate", "encoding"), [(8000, "mulaw"), (44100, "linear16"), (48000, "linear16")])
def test_other_formats_give_the_same_utterances(rate: int, encoding: str) -> None:
    samples, truth = timed_recording("quick_brown_fox", lead=1.0)
    positions = np.arange(int(len(samples) * rate / RATE)) * RATE / rate
    resampled = np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)
    data = _mulaw(resampled) if encoding == "mulaw" else pcm(resampled)
    found = segment(data, format=AudioFormat("mulaw" if encoding == "mulaw" else "linear16", rate, 1))
    assert found.kinds == ["SpeechStarted", "SpeechEnded"]
    assert found.started[0].offset == pytest.approx(truth[0][0], abs=0.3)


def _mulaw(samples: Samples) -> bytes:
    """Encode by nearest value of the decoding table."""
    order = np.argsort(MULAW_TO_LINEAR, kind="stable")
    levels = MULAW_TO_LINEAR[order].astype(np.int32)
    wanted = (np.clip(samples, -1, 1) * 32767).astype(np.int32)
    right = np.clip(np.searchsorted(levels, wanted), 1, 255)
    nearer = wanted - levels[right - 1] < levels[right] - wanted
    return bytes(order[right - nearer].astype(np.uint8).tobytes())


def _noises() -> Iterator[tuple[str, Samples]]:
    for name, samples in no_speech.corpus():
        # VAD takes bowed melodies in the range of a voice for a voice; there the model decides.
        if not name.startswith(("melody", "music", "chords", "arpeggio")):
            yield name, samples


def test_noise_starts_no_utterance() -> None:
    for name, samples in _noises():
        assert not segment(pcm(samples)).started, name


def test_clicks_start_no_utterance() -> None:
    assert not segment_scripted((0.0, 1.0), (0.95, 0.1), (0.0, 1.0), (0.95, 0.1), (0.0, 3.0)).started


def test_distant_clicks_do_not_add_up_to_speech() -> None:
    assert not segment_scripted(*[(0.9, 0.1), (0.05, 0.5)] * 20).started


def test_speech_starts_once_certain_at_its_real_start() -> None:
    found = segment_scripted((0.0, 2.0), (0.9, 1.0), (0.0, 2.0))
    assert found.kinds == ["SpeechStarted", "SpeechEnded"]
    assert found.started[0].offset == pytest.approx(2.0, abs=0.04)
    assert found.ended[0].offset == pytest.approx(3.0, abs=0.04)
    assert found.chunks[0].start == pytest.approx(1.6, abs=0.04)
    assert found.chunks[0].duration == pytest.approx(1.7, abs=0.05)


def test_a_pause_shorter_than_the_endpoint_ends_nothing() -> None:
    parts = ((0.9, 1.0), (0.0, 0.5), (0.9, 1.0), (0.0, 3.0))
    assert segment_scripted(*parts).kinds == ["SpeechStarted", "SpeechEnded"]
    assert segment_scripted(*parts, endpoint=0.4).kinds == ["SpeechStarted", "SpeechEnded"] * 2


def test_utterances_share_no_audio() -> None:
    found = segment_scripted((0.9, 1.0), (0.0, 0.2), (0.9, 1.0), (0.0, 0.5), endpoint=0.15)
    first, second = found.chunks
    assert len(found.ended) == 2
    assert first.start + first.duration <= second.start


def test_faint_speech_is_left_to_the_model() -> None:
    found = segment_scripted((0.0, 2.0), (0.4, 1.0), (0.0, 4.0))
    assert found.kinds == ["PossibleSpeech"]
    event = found.possible[0]
    assert not found.chunks[0].speech_certain
    ended = SpeechEnded(event.bounds, event.noticed_at).offset
    assert (event.started, ended) == pytest.approx((2.0, 3.0), abs=0.04)


@pytest.mark.parametrize(("probability", "kinds"), [(0.4, ["PossibleSpeech"]), (0.8, ["SpeechStarted", "SpeechEnded"])])
def test_stream_of_a_single_short_word_is_judged_by_its_length(probability: float, kinds: list[str]) -> None:
    word = ((0.05, 0.1), (probability, 0.2), (0.05, 0.05))
    assert segment_scripted(*word).kinds == kinds


def test_short_faint_sound_in_a_long_stream_is_no_speech() -> None:
    assert segment_scripted((0.05, 1.0), (0.4, 0.2), (0.05, 0.05)).kinds == []


def test_faint_speech_before_certain_speech_is_not_lost() -> None:
    found = segment_scripted((0.0, 2.0), (0.4, 1.0), (0.0, 1.0), (0.9, 1.0), (0.0, 1.0))
    assert found.kinds == ["PossibleSpeech", "SpeechStarted", "SpeechEnded"]
    possible, certain = found.chunks
    assert possible.start + possible.duration <= certain.start


def test_long_speech_is_cut_at_its_widest_pause_before_28_s() -> None:
    found = segment_scripted((0.9, 20.0), (0.0, 0.4), (0.9, 20.0), (0.0, 2.0))
    assert found.kinds == ["SpeechStarted", "SpeechEnded"] * 2
    first, second = found.chunks
    assert first.start + first.duration == pytest.approx(20.2, abs=0.05)
    assert found.ended[0].offset == pytest.approx(20.0, abs=0.05)
    assert second.start == pytest.approx(20.2, abs=0.05)
    assert found.started[1].offset == pytest.approx(20.4, abs=0.05)


def test_speech_without_a_pause_is_cut_without_a_gap() -> None:
    found = segment_scripted((0.9, 100.0), (0.0, 1.0))
    chunks = found.chunks
    assert len(chunks) >= 4
    assert all(chunk.duration <= 28.5 for chunk in chunks)
    for one, other in pairwise(chunks):
        assert one.start + one.duration == pytest.approx(other.start, abs=1e-6)
    assert found.kinds == ["SpeechStarted", "SpeechEnded"] * len(chunks)


def test_processed_audio_is_dropped() -> None:
    segmenter = UtteranceSegmenter(LINEAR16, 0.6)
    second = pcm(silence(1.0))
    for _ in range(120):
        segmenter.add(second)
    assert segmenter.audio_processed == pytest.approx(120, abs=0.1)
    assert len(segmenter._kept) < 4 * RATE * 3


def test_flush_ends_the_current_utterance() -> None:
    data, detect = scripted((0.9, 1.0))
    segmenter = UtteranceSegmenter(LINEAR16, 0.6, detect)
    found = Segmented()
    found.collect(segmenter, segmenter.add(data))
    assert found.kinds == ["SpeechStarted"]
    found.collect(segmenter, segmenter.flush())
    assert found.kinds == ["SpeechStarted", "SpeechEnded"]
    assert segmenter.flush() == []
