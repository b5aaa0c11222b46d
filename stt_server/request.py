"""A request, its validation, the trace it leaves and the results it leads to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from protos.stt.v1.languages import AUTOMATIC, language_code
from protos.stt.v1.limits import MAX_HOTWORD_CHARACTERS, MAX_HOTWORDS, MAX_PROMPT_CHARACTERS
from protos.stt.v1.trace_context import TraceContext
from stt_server.audio import SAMPLE_RATE, AudioFormat, Chunk
from stt_server.engine import types as engine
from stt_server.engine.types import DecodeOptions, Hypothesis, ModelInfo, Segment
from stt_server.errors import EngineError, InvalidArgument
from stt_server.progress import Progress
from stt_server.routing import Decision, Policy, Reason


@dataclass(frozen=True)
class Step:
    """One part of the work on a request, for its trace. Times in monotonic seconds."""

    name: Literal["queue", "decode", "recognize", "fallback"]
    start: float
    end: float
    span: TraceContext | None = None
    """Of a call to another service, which was told about it."""
    error: str = ""
    """Why it failed; empty: it didn't."""


@dataclass
class Trace:
    """How far a request got and what each step took, in seconds; None: the step was not reached.

    Filled in while the request is processed, so that an error is reported with as much detail as a success.
    """

    queue_wait: float | None = None
    primary_infer: float | None = None
    fallback_infer: float | None = None
    """On the primary: the call to the fallback, its network time and queue included. On the fallback: inference."""
    audio_seconds: float | None = None
    fallback_result: Literal["used", "skipped", "failed"] | None = None
    """None: the request never reached a routing decision."""
    fallback_error: str = ""
    reasons: tuple[Reason, ...] = ()
    suppressed: tuple[str, ...] = ()
    """Why the texts of chunks were dropped as hallucinations, one entry per dropped text."""
    redecoded_seconds: float = 0.0
    """What decoding chunks again took, in the seconds of `engine.acceptance.RedecodingBudget`."""
    steps: list[Step] = field(default_factory=list)
    """In the order of their ends."""


@dataclass(frozen=True)
class Upload:
    """Audio as received."""

    data: bytes = field(repr=False)
    format: AudioFormat
    separate_channels: bool = False
    """Whether each channel is transcribed by itself, instead of a mix of them."""


@dataclass(frozen=True)
class Request:
    """What a caller wants transcribed: an upload, an utterance of a live stream, or a chunk of either."""

    source: Upload | engine.Chunk
    options: DecodeOptions
    request_id: str
    policy: Policy = "auto"
    deadline: float | None = None
    """Monotonic seconds; None: no deadline."""
    trace: Trace = field(default_factory=Trace, compare=False)
    """Shared by the requests that `dataclasses.replace` derives from this one."""
    progress: Progress = field(default_factory=Progress, compare=False, repr=False)
    """Shared in the same way."""
    settles_early: bool = False
    """Whether the fallback's segments are settled as they arrive, before its answer is complete."""

    @property
    def upload(self) -> Upload:
        """The audio in a form that can be decoded or sent on: the upload itself, or the chunk as 16-bit samples."""
        if isinstance(self.source, Upload):
            return self.source
        samples = (np.clip(self.source.samples, -1.0, 1.0) * 32767).astype("<i2")
        return Upload(samples.tobytes(), AudioFormat("linear16", SAMPLE_RATE, 1))

    @property
    def start(self) -> float:
        """Seconds from the start of the recording or stream to the start of the audio."""
        return 0.0 if isinstance(self.source, Upload) else self.source.start


def validate_options(options: DecodeOptions, model: ModelInfo) -> DecodeOptions:
    """Check decode options against the model's languages and the length limits.

    Returns:
        The options with Whisper's codes in place of the names of languages; without those that name none (`auto`).

    Raises:
        InvalidArgument: names the option.
    """
    if len(options.prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidArgument(f"prompt: at most {MAX_PROMPT_CHARACTERS} characters", field="options.prompt")
    if len(options.hotwords) > MAX_HOTWORDS or any(len(w) > MAX_HOTWORD_CHARACTERS for w in options.hotwords):
        limits = f"hotwords: at most {MAX_HOTWORDS} of {MAX_HOTWORD_CHARACTERS} characters"
        raise InvalidArgument(limits, field="options.hotwords")
    candidates = (_language(name, model, "options.candidate_languages") for name in options.candidate_languages)
    return replace(
        options,
        language=_language(options.language or "", model, "options.language"),
        candidate_languages=tuple(dict.fromkeys(filter(None, candidates))),
    )


def _language(name: str, model: ModelInfo, field: str) -> str | None:
    """Whisper's code of a language by any of its names; None for an empty name and `auto`.

    Args:
        field: of the request message, for the error.

    Raises:
        InvalidArgument: the name is unknown, or the model doesn't support the language.
    """
    if name.strip().casefold() in ("", AUTOMATIC):
        return None
    code = language_code(name)
    known = model.languages
    if code in known:
        return code
    if not model.multilingual:
        hint = f"this model knows only {known[0]}"
    elif code is not None:
        hint = "this model does not support it; use another one of its languages, or leave it out to detect it"
    else:
        hint = "use an ISO 639-1 code such as en, a locale such as en-US, or an English name"
    problem = "unknown" if code is None else "unsupported"
    raise InvalidArgument(f"{problem} language {name[:20]!r}: {hint}", field=field)


@dataclass(frozen=True)
class Recognition:
    """What this service's own model returned for the chunks of a request."""

    chunks: tuple[Chunk, ...]
    hypotheses: tuple[Hypothesis, ...] = ()
    """One for each chunk; empty if the model failed."""
    failure: EngineError | None = None


@dataclass(frozen=True)
class Answer:
    """One model's text for a recording, or a merge of two models' texts."""

    model: str
    """The model that most of the text is from."""
    segments: tuple[Segment, ...]
    text: str
    language: str
    language_probability: float | None
    confidence: float | None
    """exp(mean token log-probability), 0 to 1; None for an empty text."""
    segment_models: tuple[str, ...]
    """The model of each segment."""


@dataclass(frozen=True)
class Transcript:
    """The answer that is returned, with the routing decision and both models' confidences."""

    answer: Answer
    audio_seconds: float
    decision: Decision
    language_check_applicable: bool
    fallback_used: bool = False
    fallback_error: str = ""
    primary_confidence: float | None = None
    fallback_confidence: float | None = None
