"""Settings from an `.env` file: values and warnings."""

from __future__ import annotations

import dataclasses
import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from stt_server.config import (
    KEYS,
    ApiKey,
    ConfigError,
    FallbackTarget,
    Key,
    Role,
    Settings,
    config_path,
    load,
    parse,
)
from tests.support.config_files import Reader, make_model

SECRET = "s3cr3t-0123456789abcdef"


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(make_model(tmp_path))


def test_a_file_with_the_model_alone_gives_the_contracts_defaults(read: Reader) -> None:
    settings = read()
    assert settings.service == "primary"
    assert (settings.device, settings.device_index, settings.compute_type) == ("auto", 0, "default")
    assert (settings.cpu_threads, settings.max_concurrency, settings.max_batch_size) == (1, None, 8)
    assert (settings.max_queue, settings.beam_size, settings.vad_filter) == (64, 1, True)
    assert (settings.conf_logprob_threshold, settings.conf_langprob_threshold) == (0.55, 0.70)
    assert settings.min_words_for_conf == 3
    assert (settings.fallback, settings.fallback_api_key, settings.fallback_timeout_s) == (None, "", 60.0)
    assert settings.fallback_on_error == "fail"
    assert (settings.api_keys, settings.rate_limit_rps, settings.rate_limit_burst) == ((), 15.0, 30)
    assert (settings.max_upload_bytes, settings.max_audio_seconds) == (16 * 1024 * 1024, 3600.0)
    assert (settings.host, settings.grpc_port, settings.http_port) == ("0.0.0.0", 50051, 8081)
    assert settings.trusted_proxies == (ip_network("127.0.0.1"), ip_network("::1"))
    assert (settings.tls_cert, settings.tls_key, settings.tls_client_ca) == (None, None, None)
    assert (settings.fallback_ca, settings.fallback_cert, settings.fallback_key) == (None, None, None)
    assert (settings.routing_signal, settings.final_choice) == ("mean", "fallback")
    assert (settings.encoder_window, settings.cors_origins) == ("adaptive", ())
    assert (settings.max_streams, settings.stream_idle_timeout_s, settings.stream_fallback_timeout_s) == (
        32,
        30,
        3,
    )
    assert (settings.drain_timeout_s, settings.server_commit) == (30.0, "unknown")
    assert (settings.log_format, settings.log_level) == ("json", "info")
    assert (settings.model_path, settings.model_name) == (read.model, "whisper-test")
    assert settings.warnings == ()


def test_the_fallback_has_its_own_defaults(read: Reader) -> None:
    settings = read(service="fallback")
    assert (settings.beam_size, settings.rate_limit_rps, settings.rate_limit_burst) == (5, 60.0, 120)
    assert (settings.grpc_port, settings.http_port) == (50052, 8082)
    assert settings.model_path == read.model


def test_defaults_are_cast_like_written_values(read: Reader, tmp_path: Path) -> None:
    """envparse hands a default back as it is; here each default, written out, gives the same settings."""
    written = "".join(f"{k.name}={k.default}\n" for k in KEYS if k.default is not None)
    assert read(written) == read()


def test_every_key_has_a_field_and_every_field_a_key() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert {key.field_name for key in KEYS} | {"service", "warnings"} == fields


def test_settings_are_frozen(read: Reader) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().beam_size = 2  # type: ignore[misc]


@pytest.mark.parametrize("key", [key for key in KEYS if key.default is not None], ids=lambda key: key.name)
def test_an_empty_value_means_the_default(read: Reader, key: Key) -> None:
    name = key.name
    assert read(f"{name}=\n") == read(f'{name}=""\n') == read()


@pytest.mark.parametrize(
    ("threads", "limit", "on_cpu", "cores", "expected"),
    [
        (1, "", False, 64, 2),
        (1, "", True, 8, 8),
        (4, "", True, 8, 2),
        (4, "", True, 2, 1),
        (3, "", True, 8, 2),
        (4, "5", True, 2, 5),
        (1, "5", False, 2, 5),
    ],
)
def test_concurrency_follows_the_device_unless_it_is_set(
    read: Reader, threads: int, limit: str, on_cpu: bool, cores: int, expected: int
) -> None:
    settings = read(f"CPU_THREADS={threads}\nMAX_CONCURRENCY={limit}")
    assert settings.concurrency(on_cpu, cores) == expected


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("DEVICE=CUDA", "device", "cuda"),
        ("VAD_FILTER=Off", "vad_filter", False),
        ("VAD_FILTER=1", "vad_filter", True),
        ("CONF_LOGPROB_THRESHOLD=1", "conf_logprob_threshold", 1.0),
        ("CONF_LOGPROB_THRESHOLD=5e-1", "conf_logprob_threshold", 0.5),
        ("RATE_LIMIT_RPS=0.25", "rate_limit_rps", 0.25),
        ("RATE_LIMIT_BURST=0", "rate_limit_burst", 0),
        ("MAX_QUEUE=0", "max_queue", 0),
        ("MAX_UPLOAD_MB=0.5", "max_upload_bytes", 512 * 1024),
        ("HTTP_PORT=off", "http_port", None),
        ("HTTP_PORT=0", "http_port", 0),
        ("GRPC_PORT=65535", "grpc_port", 65535),
        ("HOST=::", "host", "::"),
        ("HOST=[::1]", "host", "::1"),
        ("HOST=localhost", "host", "localhost"),
        ("TRUSTED_PROXIES=none", "trusted_proxies", ()),
        ("TRUSTED_PROXIES=10.0.0.0/8, ::1,", "trusted_proxies", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        ("CORS_ORIGINS=https://A.example/,http://localhost:3000", "cors_origins",
         ("https://a.example", "http://localhost:3000")),
        ("CORS_ORIGINS=*", "cors_origins", ("*",)),
        ("MODEL_NAME=whisper small", "model_name", "whisper small"),
        ("API_KEYS=web:a:b, bare ,", "api_keys", (ApiKey("web", "a:b"), ApiKey("key2", "bare"))),
        ("LOG_LEVEL=WARNING", "log_level", "warning"),
        ("COMPUTE_TYPE=int8_bfloat16", "compute_type", "int8_bfloat16"),
    ],
)  # fmt: skip
def test_a_value_reads_as_people_expect(read: Reader, line: str, field: str, value: object) -> None:
    assert getattr(read(line), field) == value


@pytest.mark.parametrize(
    ("value", "target", "tls"),
    [
        ("grpc://stt-fallback:50052", "dns:///stt-fallback:50052", False),
        ("grpcs://stt-fallback:50052/", "dns:///stt-fallback:50052", True),
        ("grpc://[::1]:50052", "dns:///[::1]:50052", False),
        ("GRPC://10.0.0.7:50052", "dns:///10.0.0.7:50052", False),
        ("stt-fallback:50052", "dns:///stt-fallback:50052", False),
        ("dns:///stt-fallback:50052", "dns:///stt-fallback:50052", False),
        ("unix:/run/stt/fallback.sock", "unix:/run/stt/fallback.sock", False),
    ],
)
def test_fallback_url_becomes_a_grpc_target(read: Reader, value: str, target: str, tls: bool) -> None:
    assert read(f"FALLBACK_URL={value}").fallback == FallbackTarget(target, tls)


def test_a_bare_target_is_encrypted_where_there_is_an_authority_for_it(read: Reader, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("x")
    lines = f"FALLBACK_CA={authority}\nFALLBACK_URL="
    assert read(f"{lines}dns:///fb:50052").fallback == FallbackTarget("dns:///fb:50052", tls=True)
    assert read(f"{lines}grpcs://fb:50052").fallback == FallbackTarget("dns:///fb:50052", tls=True)
    assert "write grpcs://" in read.error(f"{lines}grpc://fb:50052")


def test_a_model_reached_by_a_link_is_named_after_the_link(read: Reader, tmp_path: Path) -> None:
    link = tmp_path / "whisper-linked"
    link.symlink_to(read.model)
    assert parse(f"CT2_SMALL_PATH={link}/", "primary").model_name == "whisper-linked"


@pytest.mark.parametrize(
    ("service", "line"),
    [
        ("fallback", "CONF_LOGPROB_THRESHOLD=0.1"),
        ("fallback", "FALLBACK_URL=grpc://fb:50052"),
        ("fallback", "FALLBACK_CA=/nowhere"),
        ("fallback", "CT2_SMALL_PATH=/nowhere"),
        ("primary", "CT2_MEDIUM_PATH=/nowhere"),
    ],
)
def test_the_other_services_key_has_no_effect_and_a_warning(read: Reader, service: Role, line: str) -> None:
    settings = read(line, service)
    name = line.partition("=")[0]
    assert settings.warnings == (f"stt.env:2: {name}: has no effect in the {service}'s file",)
    assert dataclasses.replace(settings, warnings=()) == read("", service)


def test_no_repr_holds_a_secret(read: Reader) -> None:
    settings = read(f"API_KEYS=web:{SECRET}\nFALLBACK_API_KEY={SECRET}")
    assert settings.fallback_api_key == settings.api_keys[0].key == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.api_keys[0])
    assert "web" in repr(settings)


def test_keys_short_enough_to_guess_are_warned_of_by_name(read: Reader) -> None:
    (warning,) = read(f"API_KEYS=web:short-one,app:{SECRET}").warnings
    assert "web" in warning
    assert "app" not in warning
    assert "short-one" not in warning


def test_config_path_is_the_only_variable_looked_at() -> None:
    assert config_path("primary", {}) == Path("stt_primary.env")
    assert config_path("fallback", {"CONFIG_PATH": ""}) == Path("stt_fallback.env")
    assert config_path("fallback", {"CONFIG_PATH": "/etc/stt/x.env"}) == Path("/etc/stt/x.env")


def test_load_reads_the_file_and_names_it_in_errors(read: Reader, tmp_path: Path) -> None:
    file = tmp_path / "stt_primary.env"
    file.write_text(f"CT2_SMALL_PATH={read.model}\nBEAM_SIZE=3\n")
    assert load(file, "primary").beam_size == 3
    file.write_text(f"CT2_SMALL_PATH={read.model}\nBEAM_SIZE=three\n")
    with pytest.raises(ConfigError) as caught:
        load(file, "primary")
    assert str(caught.value).startswith(f"{file}:2: BEAM_SIZE: ")
    assert (caught.value.source, caught.value.line, caught.value.key) == (str(file), 2, "BEAM_SIZE")


def test_reading_leaves_the_process_environment_alone(read: Reader) -> None:
    before = dict(os.environ)
    read("DEVICE=cpu\nexport LOG_LEVEL=debug")
    assert dict(os.environ) == before
