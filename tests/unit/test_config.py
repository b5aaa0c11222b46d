"""Settings loaded from an `.env` file: values and warnings."""

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


# The defaults are not repeated here: test_config_files compares them with docs/configuration.md and configs/*.env.


def test_derived_defaults(read: Reader) -> None:
    settings = read()
    assert (settings.model_path, settings.model_name) == (read.model, "whisper-test")
    assert settings.trusted_proxies == (ip_network("127.0.0.1"), ip_network("::1"))
    assert (settings.fallback, settings.api_keys, settings.max_concurrency) == (None, (), None)
    assert settings.max_upload_bytes == 16 * 1024 * 1024
    assert settings.warnings == ()


def test_fallback_has_defaults_of_its_own(read: Reader) -> None:
    primary, fallback = read(), read(service="fallback")
    differing = {key.field_name for key in KEYS if key.fallback_default is not None}
    shared = [key.field_name for key in KEYS if key.field_name not in differing and len(key.services) == 2]
    assert all(getattr(primary, name) != getattr(fallback, name) for name in differing)
    assert all(getattr(primary, name) == getattr(fallback, name) for name in shared)


def test_written_defaults_give_the_same_settings(read: Reader) -> None:
    written = "".join(f"{k.name}={k.default}\n" for k in KEYS if k.default is not None)
    assert read(written) == read()


def test_keys_and_fields_of_settings_correspond() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert {key.field_name for key in KEYS} | {"service", "warnings"} == fields


def test_settings_are_frozen(read: Reader) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().beam_size = 2  # type: ignore[misc]


@pytest.mark.parametrize("key", [key for key in KEYS if key.default is not None], ids=lambda key: key.name)
def test_empty_value_means_the_default(read: Reader, key: Key) -> None:
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
def test_concurrency_depends_on_the_device_unless_set(
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
        ("WYOMING_PORT=10300", "wyoming_port", 10300),
        ("WYOMING_PORT=off", "wyoming_port", None),
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
def test_value_is_cast(read: Reader, line: str, field: str, value: object) -> None:
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


def test_target_without_scheme_uses_tls_if_a_ca_is_set(read: Reader, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("x")
    lines = f"FALLBACK_CA={authority}\nFALLBACK_URL="
    assert read(f"{lines}dns:///fb:50052").fallback == FallbackTarget("dns:///fb:50052", tls=True)
    assert read(f"{lines}grpcs://fb:50052").fallback == FallbackTarget("dns:///fb:50052", tls=True)
    assert "write grpcs://" in read.error(f"{lines}grpc://fb:50052")


def test_linked_model_is_named_after_the_link(read: Reader, tmp_path: Path) -> None:
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
def test_key_of_the_other_service_causes_a_warning_only(read: Reader, service: Role, line: str) -> None:
    settings = read(line, service)
    name = line.partition("=")[0]
    assert settings.warnings == (f"stt.env:2: {name}: has no effect on the {service}",)
    assert dataclasses.replace(settings, warnings=()) == read("", service)


def test_repr_contains_no_secret(read: Reader) -> None:
    settings = read(f"API_KEYS=web:{SECRET}\nFALLBACK_API_KEY={SECRET}")
    assert settings.fallback_api_key == settings.api_keys[0].key == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.api_keys[0])
    assert "web" in repr(settings)


def test_short_api_keys_cause_a_warning_with_their_names(read: Reader) -> None:
    (warning,) = read(f"API_KEYS=web:short-one,app:{SECRET}").warnings
    assert "web" in warning
    assert "app" not in warning
    assert "short-one" not in warning


def test_config_path_chooses_the_file() -> None:
    assert config_path("primary", {}) == Path("stt_primary.env")
    assert config_path("fallback", {"CONFIG_PATH": ""}) == Path("stt_fallback.env")
    assert config_path("fallback", {"CONFIG_PATH": "/etc/stt/x.env"}) == Path("/etc/stt/x.env")


def test_load_names_the_file_in_errors(read: Reader, tmp_path: Path) -> None:
    file = tmp_path / "stt_primary.env"
    file.write_text(f"CT2_SMALL_PATH={read.model}\nBEAM_SIZE=3\n")
    assert load(file, "primary").beam_size == 3
    file.write_text(f"CT2_SMALL_PATH={read.model}\nBEAM_SIZE=three\n")
    with pytest.raises(ConfigError) as caught:
        load(file, "primary")
    assert str(caught.value).startswith(f"{file}:2: BEAM_SIZE: ")
    assert (caught.value.source, caught.value.line, caught.value.key) == (str(file), 2, "BEAM_SIZE")


def test_environment_is_not_changed(read: Reader) -> None:
    before = dict(os.environ)
    read("DEVICE=cpu\nexport LOG_LEVEL=debug")
    assert dict(os.environ) == before
