"""Settings of a service: frozen and typed, one field per key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stt_server.config.values import ApiKey, FallbackTarget, Network, Role

_MIB = 1024 * 1024
_GPU_CONCURRENCY = 2


@dataclass(frozen=True)
class Settings:
    """Settings of one service. `repr` contains no secret, so it may be logged.

    Keys without an effect on the service have their default.
    """

    service: Role

    model_path: Path
    """CT2_SMALL_PATH (primary) or CT2_MEDIUM_PATH (fallback): a folder with `model.bin`."""
    model_name: str
    """MODEL_NAME: printable ASCII."""
    device: Literal["cpu", "cuda", "auto"]
    device_index: int
    """Index of the GPU, from 0."""
    compute_type: str
    """One of `schema.COMPUTE_TYPES`."""
    cpu_threads: int
    """Threads per inference, from 1."""

    max_concurrency: int | None
    """Concurrent inferences, from 1; None: depends on the device, see `concurrency`."""
    max_batch_size: int
    """Chunks per inference; 1: no batching."""
    max_queue: int
    """Requests that may wait for an inference slot; 0: no queue."""
    beam_size: int
    """Hypotheses kept by decoding; 1: greedy."""
    beam_size_in_doubt: int
    """Hypotheses kept by a second search for texts that the first one leaves in doubt; up to `beam_size`: none."""
    vad_filter: bool
    encoder_window: Literal["adaptive", "full"]
    encoder_tail_s: float | None
    """Seconds of silence after the audio in a shortened window; None: as measured for the model's width."""

    conf_logprob_threshold: float
    """0 to 1, compared with exp(mean token log-probability)."""
    conf_langprob_threshold: float
    """0 to 1, compared with the probability of the detected language."""
    min_words_for_conf: int
    routing_signal: Literal["mean", "combined"]
    final_choice: Literal["fallback", "best"]

    fallback: FallbackTarget | None
    """FALLBACK_URL; None: no fallback."""
    fallback_api_key: str = field(repr=False)
    """Sent as a Bearer token; empty: none."""
    fallback_timeout_s: float
    """Seconds."""
    fallback_on_error: Literal["fail", "degrade"]
    fallback_ca: Path | None
    """PEM file; None: gRPC's default list of public authorities."""
    fallback_cert: Path | None
    """PEM file; set if and only if `fallback_key` is."""
    fallback_key: Path | None
    """PEM file."""

    api_keys: tuple[ApiKey, ...]
    """Names and keys are unique; empty: no authentication."""
    rate_limit_rps: float
    """Requests per second and caller; 0: no limit."""
    rate_limit_burst: int
    """Requests that may arrive at once; 0: no limit."""
    max_upload_mb: float
    """MiB of audio per request; see `max_upload_bytes`."""
    max_audio_seconds: float
    """Seconds of decoded audio per request."""
    trusted_proxies: tuple[Network, ...]
    """Peers whose X-Forwarded-For is trusted."""
    cors_origins: tuple[str, ...]
    """`scheme://host[:port]` or `*`; empty: same origin only."""

    host: str
    """Address or host name; IPv6 without brackets."""
    grpc_port: int
    """0: any free port."""
    http_port: int | None
    """0: any free port; None (`off`): no gateway."""
    wyoming_port: int | None
    """0: any free port; None (`off`): without the Wyoming protocol. Requires `http_port`."""
    wyoming_api_key: str
    """Key of the calls that it makes; set if there are `api_keys`."""
    tls_cert: Path | None
    """PEM file; set if and only if `tls_key` is."""
    tls_key: Path | None
    """PEM file."""
    tls_client_ca: Path | None
    """PEM file: authorities that must have signed the callers' certificates. Requires `tls_cert`."""

    max_streams: int
    stream_idle_timeout_s: float
    """Seconds."""
    stream_fallback_timeout_s: float
    """Seconds."""

    drain_timeout_s: float
    """Seconds."""
    server_commit: str
    """SERVER_COMMIT, or what the build recorded; "unknown" if neither. Printable ASCII."""
    otlp_endpoint: str
    """URL of a collector for spans; empty: none."""
    log_format: Literal["json", "text"]
    log_level: Literal["debug", "info", "warning", "error"]

    warnings: tuple[str, ...] = ()
    """Warnings to log, one line each, without secrets."""

    @property
    def max_upload_bytes(self) -> int:
        """Bytes of audio per request."""
        return int(self.max_upload_mb * _MIB)

    def concurrency(self, on_cpu: bool, cores: int) -> int:
        """Concurrent inferences, at least 1: MAX_CONCURRENCY, or a default for the device.

        Args:
            on_cpu: whether the model runs on the CPU.
            cores: CPU cores that this process may use.
        """
        if self.max_concurrency is not None:
            return self.max_concurrency
        return max(1, cores // self.cpu_threads) if on_cpu else _GPU_CONCURRENCY
