"""Table of all configuration keys: names, casts, defaults and meanings.

Tests compare `docs/configuration.md` and `configs/*.env` with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from stt_server.config import casts, network_casts
from stt_server.config.casts import Cast, choice, integer, number, optional
from stt_server.config.values import Role

_BOTH: tuple[Role, ...] = ("primary", "fallback")
_PRIMARY: tuple[Role, ...] = ("primary",)
_FALLBACK: tuple[Role, ...] = ("fallback",)


@dataclass(frozen=True)
class Key:
    """One configuration key."""

    name: str
    cast: Cast
    default: str | None
    """Default as text; empty: not set; None: the key is required."""
    meaning: str
    fallback_default: str | None = None
    """Default on the fallback, if it differs."""
    services: tuple[Role, ...] = _BOTH
    """Services on which the key has an effect; others accept it with a warning."""
    secret: bool = False
    """Whether the value must never be printed."""
    live: bool = False
    """Whether a running service applies a change; otherwise it needs a restart."""
    field: str = ""
    """Field of `Settings`; empty: the key's name in lower case."""
    default_means: str = ""
    """Meaning of an empty default."""

    @property
    def field_name(self) -> str:
        """Field of `Settings` that holds the value."""
        return self.field or self.name.lower()

    def default_for(self, service: Role) -> str | None:
        """Default of a service as text; None: the key is required."""
        if service == "fallback" and self.fallback_default is not None:
            return self.fallback_default
        return self.default


COMPUTE_TYPES = (
    "default",
    "auto",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
)
"""CTranslate2's names of compute types."""

_unit = number(0, 1)
_port = integer(0, 65535)
_file = optional(casts.path)

KEYS: tuple[Key, ...] = (
    # The model and the device
    Key("CT2_SMALL_PATH", casts.folder, None, "model of the primary", services=_PRIMARY, field="model_path"),
    Key("CT2_MEDIUM_PATH", casts.folder, None, "model of the fallback", services=_FALLBACK, field="model_path"),
    Key(
        "MODEL_NAME",
        optional(casts.label(128), ""),
        "",
        "name of the model in responses, headers and logs",
        default_means="the model folder's name",
    ),
    Key(
        "DEVICE",
        choice("cpu", "cuda", "auto"),
        "auto",
        "where the model runs; auto: cuda if available, else cpu",
    ),
    Key("DEVICE_INDEX", integer(0, 255), "0", "index of the GPU, from 0"),
    Key(
        "COMPUTE_TYPE",
        choice(*COMPUTE_TYPES),
        "default",
        "CTranslate2's compute type; default: the type that the model is stored in",
    ),
    Key(
        "CPU_THREADS",
        integer(1, 256),
        "1",
        "threads per inference; 1: on the CPU, an inference that runs alone also uses the cores of idle slots",
    ),
    # Inference
    Key(
        "MAX_CONCURRENCY",
        optional(integer(1, 256)),
        "",
        "concurrent inferences",
        default_means="2 on a GPU; on the CPU: cores divided by CPU_THREADS",
    ),
    Key(
        "MAX_BATCH_SIZE",
        integer(1, 256),
        "8",
        "chunks per inference; 1: no batching",
    ),
    Key(
        "MAX_QUEUE",
        integer(0, 100_000),
        "64",
        "requests that may wait for an inference slot; further ones are refused",
        live=True,
    ),
    Key(
        "BEAM_SIZE",
        integer(1, 32),
        "1",
        "hypotheses kept by decoding; 1: greedy, the fastest",
        fallback_default="5",
    ),
    Key(
        "BEAM_SIZE_IN_DOUBT",
        integer(1, 32),
        "5",
        "hypotheses kept by a second search for texts that the first one leaves in doubt; up to BEAM_SIZE: none",
    ),
    Key(
        "VAD_FILTER",
        casts.boolean,
        "true",
        "voice activity detection; audio without speech gets an empty text, without inference or fallback",
        live=True,
    ),
    Key(
        "ENCODER_WINDOW",
        choice("adaptive", "full"),
        "adaptive",
        "window of the encoder; adaptive: as long as the audio; full: always the model's 30 s",
    ),
    Key(
        "ENCODER_TAIL_S",
        optional(number(2, 10)),
        "",
        "seconds of silence after the audio in an adaptive window; measure with `buildscripts/models check`",
        default_means="2 for tiny and base, 4 for other models",
    ),
    # Routing
    Key(
        "CONF_LOGPROB_THRESHOLD",
        _unit,
        "0.55",
        "escalate below this exp(mean token log-probability)",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "CONF_LANGPROB_THRESHOLD",
        _unit,
        "0.70",
        "escalate below this language probability, if the language was detected",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "MIN_WORDS_FOR_CONF",
        integer(0, 1000),
        "3",
        "escalate texts with fewer words; in scripts written without spaces, characters count as words",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "ROUTING_SIGNAL",
        choice("mean", "combined"),
        "mean",
        "confidence measure: mean log-probability, or combined with the text's length",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "FINAL_CHOICE",
        choice("fallback", "best"),
        "fallback",
        "transcript returned if both models gave one; best: the one with higher confidence",
        services=_PRIMARY,
        live=True,
    ),
    # The fallback
    Key(
        "FALLBACK_URL",
        optional(network_casts.target),
        "",
        "address of the fallback",
        services=_PRIMARY,
        field="fallback",
        default_means="no fallback",
        live=True,
    ),
    Key(
        "FALLBACK_API_KEY",
        optional(casts.secret, ""),
        "",
        "key sent to the fallback as a Bearer token: one of its API_KEYS, without the name",
        services=_PRIMARY,
        secret=True,
        default_means="no key is sent",
        live=True,
    ),
    Key(
        "FALLBACK_TIMEOUT_S",
        number(0.1, 3600),
        "60",
        "deadline of the fallback in seconds, capped by the caller's",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "FALLBACK_ON_ERROR",
        choice("fail", "degrade"),
        "fail",
        "if the fallback fails: fail with 502, or degrade to the primary's text, with fallback_error set",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "FALLBACK_CA",
        _file,
        "",
        "authorities trusted to sign the fallback's certificate",
        services=_PRIMARY,
        default_means="gRPC's default list of public authorities",
        live=True,
    ),
    Key(
        "FALLBACK_CERT",
        _file,
        "",
        "client certificate for the fallback (mTLS)",
        services=_PRIMARY,
        default_means="none",
        live=True,
    ),
    Key(
        "FALLBACK_KEY",
        _file,
        "",
        "private key of FALLBACK_CERT",
        services=_PRIMARY,
        default_means="none",
        live=True,
    ),
    # Callers
    Key(
        "API_KEYS",
        network_casts.api_keys,
        "",
        "keys accepted as Bearer tokens; name:key sets the name shown in logs and metrics",
        secret=True,
        default_means="no authentication",
        live=True,
    ),
    Key(
        "RATE_LIMIT_RPS",
        number(0, 100_000),
        "15",
        "sustained requests per second, per key, or per client address without keys; 0: no limit",
        fallback_default="60",
        live=True,
    ),
    Key(
        "RATE_LIMIT_BURST",
        integer(0, 1_000_000),
        "30",
        "requests that may arrive at once; 0: no limit",
        fallback_default="120",
        live=True,
    ),
    Key("MAX_UPLOAD_MB", number(0.001, 1024), "16", "MiB of audio per request; programs written for OpenAI assume 25"),
    Key("MAX_AUDIO_SECONDS", number(1, 86_400), "3600", "seconds of decoded audio per request"),
    Key(
        "TRUSTED_PROXIES",
        optional(network_casts.networks, (), word="none"),
        "127.0.0.1,::1",
        "proxies whose X-Forwarded-For is trusted",
        live=True,
    ),
    Key(
        "CORS_ORIGINS",
        network_casts.origins,
        "",
        "origins allowed to call the gateway from a browser",
        default_means="same origin only",
    ),
    # Addresses and TLS
    Key("HOST", network_casts.host, "0.0.0.0", "address to listen on"),
    Key(
        "GRPC_PORT",
        _port,
        "50051",
        "port of gRPC; 0: any free port, shown in the ready line",
        fallback_default="50052",
    ),
    Key(
        "HTTP_PORT",
        optional(_port, word="off"),
        "8081",
        "port of the HTTP gateway; 0: any free port, shown in the ready line; off: no gateway",
        fallback_default="8082",
    ),
    Key(
        "WYOMING_PORT",
        optional(_port, word="off"),
        "off",
        "TCP port of the Wyoming protocol of Home Assistant, usually 10300; 0: any free port, shown in the ready line",
    ),
    Key(
        "WYOMING_API_KEY",
        optional(casts.secret, ""),
        "",
        "key of the calls that come through WYOMING_PORT: one of API_KEYS, without the name",
        secret=True,
        default_means="no key is sent",
        live=True,
    ),
    Key("TLS_CERT", _file, "", "server certificate with its chain", default_means="no TLS"),
    Key("TLS_KEY", _file, "", "private key of TLS_CERT", default_means="no TLS"),
    Key(
        "TLS_CLIENT_CA",
        _file,
        "",
        "authorities trusted to sign callers' certificates (mTLS: callers without one are refused)",
        default_means="callers need no certificate",
    ),
    # Live streams
    Key("MAX_STREAMS", integer(0, 100_000), "32", "concurrent live streams", live=True),
    Key("STREAM_IDLE_TIMEOUT_S", number(1, 3600), "30", "seconds without a message after which a live stream ends"),
    Key(
        "STREAM_FALLBACK_TIMEOUT_S",
        number(0.1, 600),
        "3",
        "longest wait for the fallback by a live stream's final, in seconds",
        services=_PRIMARY,
        live=True,
    ),
    # Operations
    Key(
        "DRAIN_TIMEOUT_S",
        number(0, 3600),
        "30",
        "seconds that a stopping service waits for requests in flight",
        live=True,
    ),
    Key(
        "SERVER_COMMIT",
        casts.label(128),
        "unknown",
        "deployed version (git SHA or date), shown in /v1/metrics and stt_build_info; unknown: what the build recorded",
    ),
    Key(
        "OTLP_ENDPOINT",
        optional(network_casts.otlp, ""),
        "",
        "collector that receives OpenTelemetry spans over OTLP/gRPC; needs the extra otel",
        default_means="no spans",
    ),
    Key("LOG_FORMAT", choice("json", "text"), "json", "format of log lines"),
    Key("LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", "lowest level that is logged", live=True),
)
"""All keys of both services, in the order of the documentation."""
