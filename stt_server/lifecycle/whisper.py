"""Loads the Whisper model that the settings name."""

from __future__ import annotations

import logging
from pathlib import Path

from stt_server.config import Settings
from stt_server.engine.loading import ModelOptions, reporting_load_errors
from stt_server.engine.two_copies import TwoCopies
from stt_server.engine.types import Recognizer
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.lifecycle.process_limits import usable_cores

log = logging.getLogger(__name__)

FALLBACK_TEMPERATURES = (0.4, 0.8)
"""Sampling temperatures of repeated decoding. The primary decodes once: the fallback gives the better second answer."""


def load_whisper(settings: Settings) -> Recognizer:
    """Load and warm the model; takes seconds.

    Raises:
        ModelLoadError: it can't be used as configured.
    """
    # The default concurrency depends on the device, which CTranslate2 reports only once the model is loaded.
    on_cpu = settings.device == "cpu" or (settings.device == "auto" and not _has_cuda())
    cores = usable_cores()
    slots = settings.concurrency(on_cpu, cores)
    options = ModelOptions(
        path=Path(settings.model_path),
        name=settings.model_name,
        device=settings.device,
        device_index=settings.device_index,
        compute_type=settings.compute_type,
        cpu_threads=settings.cpu_threads,
        shared_cores=min(slots, cores),
        workers=slots,
        beam_size=settings.beam_size,
        beam_size_in_doubt=settings.beam_size_in_doubt,
        encoder_window=settings.encoder_window,
        encoder_tail=settings.encoder_tail_s,
        temperatures=FALLBACK_TEMPERATURES if settings.service == "fallback" else (),
    )
    with reporting_load_errors(options):
        recognizer = WhisperRecognizer(options)
        recognizer.warm_up()
        copies = ""
        if recognizer.sharing is not None and isinstance(recognizer.whisper.model, TwoCopies):
            copies = "; the model is loaded twice for that"
            with recognizer.sharing.inference(draft=True):  # which uses the other copy
                recognizer.warm_up()
    if recognizer.sharing is not None:
        log.info("an inference that runs alone uses %d threads%s", recognizer.sharing.threads, copies)
    return recognizer


def _has_cuda() -> bool:
    import ctranslate2

    return bool(ctranslate2.get_cuda_device_count() > 0)
