"""What the configuration says of requests."""

from __future__ import annotations

from dataclasses import replace

from stt_server.config import Settings
from stt_server.request import Rules
from stt_server.routing import Thresholds


def rules_of(settings: Settings) -> Rules:
    """The rules of recordings."""
    thresholds = None
    if settings.service == "primary":
        thresholds = Thresholds(
            conf_logprob=settings.conf_logprob_threshold,
            conf_langprob=settings.conf_langprob_threshold,
            min_words=settings.min_words_for_conf,
            signal=settings.routing_signal,
        )
    return Rules(
        max_audio_seconds=settings.max_audio_seconds,
        vad_filter=settings.vad_filter,
        thresholds=thresholds,
        fallback_timeout_s=settings.fallback_timeout_s,
        fallback_on_error=settings.fallback_on_error,
        final_choice=settings.final_choice,
    )


def live_rules_of(settings: Settings) -> Rules:
    """The rules of live streams, where a late answer is worth less than the primary's."""
    rules = rules_of(settings)
    return replace(rules, fallback_timeout_s=settings.stream_fallback_timeout_s, fallback_on_error="degrade")
