"""The keys of a configuration, as data: what each is called, takes, means, and is without being written.

The reader, the error messages, `docs/configuration.md` and `configs/*.env` follow this table; tests compare them.
"""

from __future__ import annotations

from stt_server.config import casts, net_casts
from stt_server.config.casts import choice, integer, number, optional
from stt_server.config.key import Key
from stt_server.config.values import Role

_PRIMARY: tuple[Role, ...] = ("primary",)
_FALLBACK: tuple[Role, ...] = ("fallback",)

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
"""CTranslate2's names of what weights are computed in."""

_unit = number(0, 1)
_port = integer(0, 65535)
_file = optional(casts.path)

KEYS: tuple[Key, ...] = (
    # The model and the device
    Key("CT2_SMALL_PATH", casts.folder, None, "the primary's model", services=_PRIMARY, field="model_path"),
    Key("CT2_MEDIUM_PATH", casts.folder, None, "the fallback's model", services=_FALLBACK, field="model_path"),
    Key(
        "MODEL_NAME",
        optional(casts.label(128), ""),
        "",
        "the model's name in responses, headers and logs",
        default_means="the model folder's name",
    ),
    Key(
        "DEVICE",
        choice("cpu", "cuda", "auto"),
        "auto",
        "where the model runs; auto: cuda where there is one, else cpu",
    ),
    Key("DEVICE_INDEX", integer(0, 255), "0", "which of several GPUs, counted from 0"),
    Key(
        "COMPUTE_TYPE",
        choice(*COMPUTE_TYPES),
        "default",
        "what CTranslate2 computes in; default: as the model is stored",
    ),
    Key("CPU_THREADS", integer(1, 256), "1", "threads of one inference"),
    # Inference
    Key(
        "MAX_CONCURRENCY",
        optional(integer(1, 256)),
        "",
        "inferences at a time: the concurrency gate",
        default_means="2; on the CPU: the cores over CPU_THREADS",
    ),
    Key(
        "MAX_BATCH_SIZE",
        integer(1, 256),
        "8",
        "waiting chunks that one inference may take together; 1: no batching",
    ),
    Key("MAX_QUEUE", integer(0, 100_000), "64", "requests waiting for a slot; one more is refused at once", live=True),
    Key(
        "BEAM_SIZE",
        integer(1, 32),
        "1",
        "hypotheses that decoding keeps; 1 is greedy and fastest",
        fallback_default="5",
    ),
    Key(
        "VAD_FILTER",
        casts.boolean,
        "true",
        "look for speech first; none found: an empty text, and no fallback",
        live=True,
    ),
    Key(
        "ENCODER_WINDOW",
        choice("adaptive", "full"),
        "adaptive",
        "what the encoder sees; full: always the model's 30 s",
    ),
    # Routing
    Key(
        "CONF_LOGPROB_THRESHOLD",
        _unit,
        "0.55",
        "fall back below it; compared with exp(mean token log-probability)",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "CONF_LANGPROB_THRESHOLD",
        _unit,
        "0.70",
        "fall back below it; only where the language was detected",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "MIN_WORDS_FOR_CONF",
        integer(0, 1000),
        "3",
        "fewer words than this is low confidence; a character counts as a word in scripts written without spaces",
        services=_PRIMARY,
        live=True,
    ),
    Key("ROUTING_SIGNAL", choice("mean", "combined"), "mean", "how confidence is judged", services=_PRIMARY, live=True),
    Key(
        "FINAL_CHOICE",
        choice("fallback", "best"),
        "fallback",
        "whose answer is returned where both models gave one; best: the better founded",
        services=_PRIMARY,
        live=True,
    ),
    # The fallback
    Key(
        "FALLBACK_URL",
        optional(net_casts.target),
        "",
        "the fallback's address",
        services=_PRIMARY,
        field="fallback",
        default_means="no fallback",
        live=True,
    ),
    Key(
        "FALLBACK_API_KEY",
        optional(casts.secret, ""),
        "",
        "sent to the fallback as Bearer; one of its API_KEYS, without the name",
        services=_PRIMARY,
        secret=True,
        default_means="no key is sent",
        live=True,
    ),
    Key(
        "FALLBACK_TIMEOUT_S",
        number(0.1, 3600),
        "60",
        "seconds the fallback has, or what is left of the caller's deadline, whichever is less",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "FALLBACK_ON_ERROR",
        choice("fail", "degrade"),
        "fail",
        "the fallback was wanted and failed; fail: 502; degrade: the primary's text, with fallback_error set",
        services=_PRIMARY,
        live=True,
    ),
    Key(
        "FALLBACK_CA",
        _file,
        "",
        "who may have signed the fallback's certificate",
        services=_PRIMARY,
        default_means="gRPC's own list of public authorities",
        live=True,
    ),
    Key(
        "FALLBACK_CERT",
        _file,
        "",
        "the certificate that the primary shows the fallback (mTLS)",
        services=_PRIMARY,
        default_means="none",
        live=True,
    ),
    Key(
        "FALLBACK_KEY",
        _file,
        "",
        "the private key of FALLBACK_CERT",
        services=_PRIMARY,
        default_means="none",
        live=True,
    ),
    # Callers
    Key(
        "API_KEYS",
        net_casts.api_keys,
        "",
        "keys that callers may send as Bearer; name:key gives one a name for logs and metrics",
        secret=True,
        default_means="open to everyone",
        live=True,
    ),
    Key(
        "RATE_LIMIT_RPS",
        number(0, 100_000),
        "15",
        "requests a second in the long run, per key, or per client address where there is no key; 0: no limit",
        fallback_default="60",
        live=True,
    ),
    Key(
        "RATE_LIMIT_BURST",
        integer(0, 1_000_000),
        "30",
        "requests that may come at once; 0: no limit",
        fallback_default="120",
        live=True,
    ),
    Key("MAX_UPLOAD_MB", number(0.001, 1024), "16", "MiB of audio a request"),
    Key("MAX_AUDIO_SECONDS", number(1, 86_400), "3600", "seconds of audio a request, once decoded"),
    Key(
        "TRUSTED_PROXIES",
        optional(net_casts.networks, (), word="none"),
        "127.0.0.1,::1",
        "whose X-Forwarded-For is believed",
        live=True,
    ),
    Key(
        "CORS_ORIGINS",
        net_casts.origins,
        "",
        "origins whose pages may call the gateway",
        default_means="same origin only",
    ),
    # Addresses and TLS
    Key("HOST", net_casts.host, "0.0.0.0", "the address to listen on"),
    Key(
        "GRPC_PORT",
        _port,
        "50051",
        "the port of gRPC; 0: a free one, which the ready line names",
        fallback_default="50052",
    ),
    Key(
        "HTTP_PORT",
        optional(_port, word="off"),
        "8081",
        "the port of the HTTP gateway; 0: a free one, which the ready line names; off: no gateway",
        fallback_default="8082",
    ),
    Key("TLS_CERT", _file, "", "the server's certificate and its chain", default_means="no TLS"),
    Key("TLS_KEY", _file, "", "the private key of TLS_CERT", default_means="no TLS"),
    Key(
        "TLS_CLIENT_CA",
        _file,
        "",
        "who may have signed callers' certificates (mTLS: callers without one are refused)",
        default_means="callers need no certificate",
    ),
    # Live streams
    Key("MAX_STREAMS", integer(0, 100_000), "32", "live streams at a time", live=True),
    Key("STREAM_IDLE_TIMEOUT_S", number(1, 3600), "30", "seconds without a message that end a live stream"),
    Key(
        "STREAM_FALLBACK_TIMEOUT_S",
        number(0.1, 600),
        "3",
        "seconds that a live stream's final waits for the fallback at most",
        services=_PRIMARY,
        live=True,
    ),
    # Operations
    Key("DRAIN_TIMEOUT_S", number(0, 3600), "30", "seconds that SIGTERM waits for work in flight", live=True),
    Key("SERVER_COMMIT", casts.label(128), "unknown", "what was deployed (git SHA or date), in /v1/metrics"),
    Key("LOG_FORMAT", choice("json", "text"), "json", "what a log line looks like"),
    Key("LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", "lines below it aren't logged", live=True),
)
"""Every key of both services' files, in the order of the documentation."""
