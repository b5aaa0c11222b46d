"""Configuration of the cascade, for uploads and for live streams."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from stt_server.config import Settings
from stt_server.routing import Thresholds


@dataclass(frozen=True)
class CascadeSettings:
    """When to escalate, how long to wait for the fallback, and which answer to return."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    fallback_timeout_s: float = 60.0
    fallback_on_error: Literal["fail", "degrade"] = "fail"
    final_choice: Literal["fallback", "best"] = "fallback"


def upload_cascade_settings(settings: Settings) -> CascadeSettings:
    """The cascade's configuration for unary requests."""
    return CascadeSettings(
        thresholds=Thresholds(
            conf_logprob=settings.conf_logprob_threshold,
            conf_langprob=settings.conf_langprob_threshold,
            min_words=settings.min_words_for_conf,
            signal=settings.routing_signal,
        ),
        fallback_timeout_s=settings.fallback_timeout_s,
        fallback_on_error=settings.fallback_on_error,
        final_choice=settings.final_choice,
    )


def stream_cascade_settings(settings: Settings) -> CascadeSettings:
    """The cascade's configuration for live streams, where a late answer is worth less than the primary's."""
    return replace(
        upload_cascade_settings(settings),
        fallback_timeout_s=settings.stream_fallback_timeout_s,
        fallback_on_error="degrade",
    )
