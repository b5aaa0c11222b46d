"""The settings of a service: frozen, typed, one field per key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stt_server.config.values import ApiKey, FallbackTarget, Network, Role

_MIB = 1024 * 1024
_CONCURRENCY_OF_A_GPU = 2


@dataclass(frozen=True)
class Settings:
    """What a service is started with. `repr` holds no secret, so it may be logged.

    Keys that have no effect in a service hold their defaults there.
    """

    service: Role

    model_path: Path
    """CT2_SMALL_PATH (primary) or CT2_MEDIUM_PATH (fallback): a folder with `model.bin`."""
    model_name: str
    """MODEL_NAME: printable ASCII."""
    device: Literal["cpu", "cuda", "auto"]
    device_index: int
    """Which GPU, from 0."""
    compute_type: str
    """One of `keys.COMPUTE_TYPES`."""
    cpu_threads: int
    """Of one inference, from 1."""

    max_concurrency: int | None
    """Inferences at a time, from 1; None: by device, see `concurrency`."""
    max_batch_size: int
    """Waiting requests that one inference may take together, from 1 (no batching)."""
    max_queue: int
    """Requests waiting for a slot; 0: none waits."""
    beam_size: int
    """From 1 (greedy)."""
    vad_filter: bool
    encoder_window: Literal["adaptive", "full"]

    conf_logprob_threshold: float
    """0 to 1; compared with exp(mean token log-probability)."""
    conf_langprob_threshold: float
    """0 to 1."""
    min_words_for_conf: int
    routing_signal: Literal["mean", "combined"]
    final_choice: Literal["fallback", "best"]

    fallback: FallbackTarget | None
    """FALLBACK_URL; None: there is no fallback."""
    fallback_api_key: str = field(repr=False)
    """Sent as Bearer; empty: nothing is sent."""
    fallback_timeout_s: float
    """Seconds."""
    fallback_on_error: Literal["fail", "degrade"]
    fallback_ca: Path | None
    """PEM file; None: gRPC's own list of public authorities."""
    fallback_cert: Path | None
    """PEM file; there exactly when `fallback_key` is."""
    fallback_key: Path | None
    """PEM file."""

    api_keys: tuple[ApiKey, ...]
    """Names and keys are unique; empty: open to everyone."""
    rate_limit_rps: float
    """Tokens a second of each bucket; 0: no limit."""
    rate_limit_burst: int
    """Tokens in a full bucket; 0: no limit."""
    max_upload_mb: float
    """MiB of audio a request; see `max_upload_bytes`."""
    max_audio_seconds: float
    """Seconds, once decoded."""
    trusted_proxies: tuple[Network, ...]
    """Whose X-Forwarded-For is believed."""
    cors_origins: tuple[str, ...]
    """`scheme://host[:port]` or `*`; empty: same origin only."""

    host: str
    """An address or a host name, IPv6 without brackets."""
    grpc_port: int
    """0: a free one."""
    http_port: int | None
    """0: a free one; None (`off`): without the gateway."""
    tls_cert: Path | None
    """PEM file; there exactly when `tls_key` is."""
    tls_key: Path | None
    """PEM file."""
    tls_client_ca: Path | None
    """PEM file: callers must show a certificate that one of these signed. Only with `tls_cert`."""

    max_streams: int
    stream_idle_timeout_s: float
    """Seconds."""
    stream_fallback_timeout_s: float
    """Seconds."""

    drain_timeout_s: float
    """Seconds."""
    server_commit: str
    """Printable ASCII."""
    log_format: Literal["json", "text"]
    log_level: Literal["debug", "info", "warning", "error"]

    warnings: tuple[str, ...] = ()
    """What the operator should hear of: one line each, without secrets."""

    @property
    def max_upload_bytes(self) -> int:
        """The upload cap in bytes."""
        return int(self.max_upload_mb * _MIB)

    def concurrency(self, on_cpu: bool, cores: int) -> int:
        """Inferences at a time, at least 1: MAX_CONCURRENCY, or what suits the device.

        Args:
            on_cpu: whether the model runs on the CPU.
            cores: the CPU cores that this process may use.
        """
        if self.max_concurrency is not None:
            return self.max_concurrency
        return max(1, cores // self.cpu_threads) if on_cpu else _CONCURRENCY_OF_A_GPU
