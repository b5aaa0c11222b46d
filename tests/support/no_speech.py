"""Synthetic recordings without speech, the same on every machine. Mono at 16 kHz.

None contains a voice, so any text recognized in them is a hallucination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.float64]

RATE = 16000

_A_MINOR = (220.0, 261.63, 329.63, 440.0)
_PROGRESSION = (
    _A_MINOR,
    (174.61, 220.0, 261.63, 349.23),
    (130.81, 196.0, 261.63, 329.63),
    (196.0, 246.94, 293.66, 392.0),
)


def corpus() -> Iterator[tuple[str, Samples]]:
    """All recordings with their names, such as `white_loud`; about 6 minutes in total."""
    yield "silence", np.zeros(5 * RATE, dtype=np.float32)
    yield "one_sample", np.zeros(1, dtype=np.float32)
    for name, make in _NOISES.items():
        for loudness, level in (("faint", 0.001), ("soft", 0.02), ("loud", 0.3)):
            yield f"{name}_{loudness}", _at(make(6.0, np.random.default_rng(1)), level)
    for hertz in (60, 150, 220, 440, 1000, 3000):
        yield f"tone_{hertz}", _at(np.sin(2 * np.pi * hertz * _times(4.0)), 0.1)
    for name, sound in _SOUNDS.items():
        for loudness, level in (("soft", 0.02), ("loud", 0.2)):
            yield f"{name}_{loudness}", _at(sound(8.0, np.random.default_rng(2)), level)
    yield "room", _at(room(30.0, np.random.default_rng(3)), 0.01)
    yield "room_loud", _at(room(30.0, np.random.default_rng(4)), 0.1)
    yield "breathing_long", _at(breathing(30.0, np.random.default_rng(5)), 0.05)
    yield (
        "music_long",
        _at(arpeggio(30.0, np.random.default_rng(6)) + 0.6 * chords(30.0, np.random.default_rng(6)), 0.1),
    )


def coloured(seconds: float, random: np.random.Generator, slope: float) -> _Floats:
    """Noise with a power of 1 / frequency ** `slope`: 0 white, 1 pink, 2 brown."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(random.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum *= np.maximum(hertz, 20.0) ** (-slope / 2)
    return np.fft.irfft(spectrum, count)


def band(noise: _Floats, low: float, high: float) -> _Floats:
    """Band-pass filter with soft edges; frequencies in hertz."""
    spectrum = np.fft.rfft(noise)
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    gain = 1 / (1 + (low / np.maximum(hertz, 1.0)) ** 4) / (1 + (hertz / high) ** 4)
    return np.fft.irfft(spectrum * gain, len(noise))


def hum(seconds: float, random: np.random.Generator) -> _Floats:
    """Mains hum at 50 Hz with harmonics and a little hiss."""
    times = _times(seconds)
    tones = sum(np.sin(2 * np.pi * 50 * n * times + n) / n for n in (1, 2, 3, 5, 7, 9))
    return np.asarray(tones + 0.01 * random.standard_normal(len(times)))


def clicks(seconds: float, random: np.random.Generator) -> _Floats:
    """About three keystrokes per second: short bursts that decay in 5 ms."""
    sound = np.zeros(round(seconds * RATE))
    for at in random.uniform(0, seconds - 0.1, int(3 * seconds)):
        _add(sound, at, random.standard_normal(800) * np.exp(-np.arange(800) / (0.005 * RATE)))
    return sound


def breathing(seconds: float, random: np.random.Generator) -> _Floats:
    """Shaped noise: in for 1.2 s, out for 1.6 s in another frequency band, and a pause."""
    sound = np.zeros(round(seconds * RATE))
    at = 0.3
    while at + 3.2 < seconds:
        for begin, length, low, high in ((0.0, 1.2, 600.0, 3500.0), (1.4, 1.6, 300.0, 1800.0)):
            swell = np.sin(np.pi * np.linspace(0, 1, round(length * RATE))) ** 1.5
            _add(sound, at + begin, band(random.standard_normal(len(swell)), low, high) * swell)
        at += 3.2 + random.uniform(0.2, 0.9)
    return sound + 0.001 * random.standard_normal(len(sound))


def note(hertz: float, seconds: float) -> _Floats:
    """A plucked string: eight harmonics, of which the high ones decay faster."""
    times = _times(seconds)
    parts = [np.sin(2 * np.pi * hertz * n * times) / n * np.exp(-times * (1.5 + 0.8 * n)) for n in range(1, 9)]
    return np.asarray(sum(parts)) * np.minimum(1, times / 0.01)


def organ(hertz: float, seconds: float) -> _Floats:
    """A held tone with vibrato: six harmonics, fading in and out over 80 ms."""
    times = _times(seconds)
    phase = 2 * np.pi * hertz * times + 2.0 * np.sin(2 * np.pi * 5.5 * times)
    edge = np.minimum(1, np.minimum(times, seconds - times) / 0.08)
    return np.asarray(sum(np.sin(n * phase) / n for n in range(1, 7))) * edge


def chords(seconds: float, random: np.random.Generator) -> _Floats:
    """Four chords in turn, 2 s each."""
    sound = np.zeros(round(seconds * RATE))
    for index in range(int(seconds / 2)):
        for hertz in _PROGRESSION[index % len(_PROGRESSION)]:
            _add(sound, index * 2.0, organ(hertz, 2.0))
    return sound


def arpeggio(seconds: float, random: np.random.Generator) -> _Floats:
    """Plucked notes of the same chords, four per second."""
    sound = np.zeros(round(seconds * RATE))
    for index in range(int(seconds * 4) - 4):
        chord = _PROGRESSION[index // 8 % len(_PROGRESSION)]
        _add(sound, index * 0.25, note(chord[random.integers(4)] * (1 + random.integers(2)), 1.0))
    return sound


def melody(seconds: float, random: np.random.Generator) -> _Floats:
    """Held tones in the range of a voice, like a cello."""
    sound = np.zeros(round(seconds * RATE))
    at = 0.1
    while at < seconds - 1:
        length = float(random.choice([0.25, 0.5, 0.75]))
        _add(sound, at, organ(float(random.choice([110.0, 130.81, 146.83, 164.81, 196.0, 220.0])), length))
        at += length + 0.02
    return sound


def drums(seconds: float, random: np.random.Generator) -> _Floats:
    """A thump and a hiss alternating, two per second."""
    sound = np.zeros(round(seconds * RATE))
    decay = np.exp(-_times(0.3) / 0.06)
    for index in range(int(seconds * 2) - 1):
        hiss = random.standard_normal(len(decay)) * decay
        thump = np.sin(2 * np.pi * 70 * _times(0.3)) * decay
        _add(sound, index * 0.5, hiss if index % 2 else 2 * thump)
    return sound


def ringing(seconds: float, random: np.random.Generator) -> _Floats:
    """A telephone: 440 and 480 Hz, one second on and one off, then key tones."""
    times = _times(seconds)
    tone = np.sin(2 * np.pi * 440 * times) + np.sin(2 * np.pi * 480 * times)
    keys = np.sin(2 * np.pi * 770 * times) + np.sin(2 * np.pi * 1336 * times)
    on = np.where(times < seconds / 2, times % 2 < 1, times % 0.25 < 0.12)
    return np.asarray(np.where(times < seconds / 2, tone, keys) * on)


def siren(seconds: float, random: np.random.Generator) -> _Floats:
    """A tone that glides between 400 and 900 Hz."""
    hertz = 650 + 250 * np.sin(2 * np.pi * 0.4 * _times(seconds))
    return np.asarray(np.sin(2 * np.pi * np.cumsum(hertz) / RATE))


def room(seconds: float, random: np.random.Generator) -> _Floats:
    """An empty room: rumble, hiss, mains hum, and occasional bumps and creaks."""
    sound = coloured(seconds, random, 2.0)
    sound = sound / np.std(sound) + 0.1 * random.standard_normal(len(sound)) + 0.3 * hum(seconds, random)
    for at in random.uniform(0.5, seconds - 1.5, int(seconds / 2)):
        times = _times(float(random.uniform(0.05, 0.6)))
        bump = band(random.standard_normal(len(times)), 80.0, float(random.uniform(200, 2500)))
        _add(sound, at, random.uniform(3, 12) * bump / np.std(bump) * np.exp(-times / 0.1))
    return np.asarray(sound)


def _noise(slope: float) -> Callable[[float, np.random.Generator], _Floats]:
    return lambda seconds, random: coloured(seconds, random, slope)


_NOISES: dict[str, Callable[[float, np.random.Generator], _Floats]] = {
    "white": _noise(0.0),
    "pink": _noise(1.0),
    "brown": _noise(2.0),
    "hum": hum,
}

_SOUNDS: dict[str, Callable[[float, np.random.Generator], _Floats]] = {
    "clicks": clicks,
    "breathing": breathing,
    "chords": chords,
    "arpeggio": arpeggio,
    "melody": melody,
    "drums": drums,
    "ringing": ringing,
    "siren": siren,
}


def _times(seconds: float) -> _Floats:
    return np.arange(round(seconds * RATE)) / RATE


def _add(sound: _Floats, at: float, part: _Floats) -> None:
    """Mix in `part` from `at` seconds, cut off at the end."""
    first = round(at * RATE)
    room_left = max(0, min(len(part), len(sound) - first))
    sound[first : first + room_left] += part[:room_left]


def _at(sound: _Floats, level: float) -> Samples:
    """`sound` scaled to this root mean square and clipped to full scale."""
    power = float(np.sqrt(np.mean(np.square(sound))))
    return np.clip(sound * (level / max(power, 1e-12)), -1, 1).astype(np.float32)
