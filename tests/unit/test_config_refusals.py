"""Invalid configuration and its error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from stt_server.config import KEYS, ConfigError, Role, load, parse
from tests.support.config_files import Reader, make_model

SECRET = "s3cr3t-0123456789abcdef"


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(make_model(tmp_path))


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        ("http://stt-fallback:8082", "grpc://stt-fallback:50052"),
        ("https://stt-fallback/v1", "grpcs://stt-fallback:50052"),
        ("http://[::1]:8082", "grpc://[::1]:50052"),
    ],
)
def test_http_fallback_url_suggests_grpc_url(read: Reader, value: str, instead: str) -> None:
    message = read.error(f"FALLBACK_URL={value}")
    assert message.startswith("stt.env:2: FALLBACK_URL: ")
    assert f"write {instead} " in message


@pytest.mark.parametrize(
    "line",
    [
        "DEVICE=gpu",
        "DEVICE_INDEX=-1",
        "COMPUTE_TYPE=float64",
        "CPU_THREADS=0",
        "MAX_CONCURRENCY=0",
        "MAX_BATCH_SIZE=0",
        "MAX_QUEUE=-1",
        "BEAM_SIZE=2.0",
        "BEAM_SIZE=1_0",
        "BEAM_SIZE=٣",
        "VAD_FILTER=maybe",
        "CONF_LOGPROB_THRESHOLD=-0.5",
        "CONF_LOGPROB_THRESHOLD=1.01",
        "CONF_LANGPROB_THRESHOLD=nan",
        "CONF_LANGPROB_THRESHOLD=0,7",
        "FALLBACK_TIMEOUT_S=inf",
        "FALLBACK_TIMEOUT_S=1e999",
        "FALLBACK_TIMEOUT_S=0",
        "FALLBACK_TIMEOUT_S=60s",
        "FALLBACK_ON_ERROR=ignore",
        "FALLBACK_URL=ftp://fb:1",
        "FALLBACK_URL=grpc://fb",
        "FALLBACK_URL=grpc://fb:0",
        "FALLBACK_URL=grpc://fb:65536",
        "FALLBACK_URL=grpc://fb:50052/path",
        "FALLBACK_URL=grpc://10.0.0:50052",
        "RATE_LIMIT_RPS=-1",
        "RATE_LIMIT_BURST=1.5",
        "MAX_UPLOAD_MB=0",
        "MAX_UPLOAD_MB=1025",
        "MAX_UPLOAD_MB=16MB",
        "MAX_AUDIO_SECONDS=0",
        "TRUSTED_PROXIES=proxy.example",
        "TRUSTED_PROXIES=10.0.0.1/8",
        "TRUSTED_PROXIES=10.0.0.1,,10.0.0.2",
        "CORS_ORIGINS=app.example.org",
        "CORS_ORIGINS=https://app.example.org/page",
        "HOST=0.0.0.0:8081",
        "HOST=300.1.1.1",
        "GRPC_PORT=65536",
        "GRPC_PORT=off",
        "HTTP_PORT=none",
        "WYOMING_PORT=on",
        "MODEL_NAME=größer",
        "ROUTING_SIGNAL=median",
        "FINAL_CHOICE=primary",
        "ENCODER_WINDOW=30",
        "LOG_FORMAT=xml",
        "LOG_LEVEL=trace",
    ],
)
def test_invalid_value_names_file_line_key_and_expectation(read: Reader, line: str) -> None:
    name, _, value = line.partition("=")
    expected = next(key.cast.expected for key in KEYS if key.name == name)
    message = read.error(f"\n# a comment\n\n{line}")
    assert message.startswith(f"stt.env:5: {name}: expected {expected}, got '{value}'")


@pytest.mark.parametrize("name", ["CT2_SMALL_PATH", "CT2_MEDIUM_PATH"])
def test_missing_model_path_is_refused(name: str) -> None:
    service: Role = "primary" if name == "CT2_SMALL_PATH" else "fallback"
    with pytest.raises(ConfigError, match=rf"^stt\.env: {name}: required key is missing; expected the path"):
        parse("", service, source="stt.env")
    with pytest.raises(ConfigError, match=rf"^stt\.env:1: {name}: required key is missing; expected the path"):
        parse(f"{name}=", service, source="stt.env")


def test_model_folder_without_model_bin_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", Path(__file__)):
        with pytest.raises(ConfigError, match=r"^stt\.env:1: CT2_SMALL_PATH: no model\.bin in"):
            parse(f"CT2_SMALL_PATH={path}", "primary", source="stt.env")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("API_KEY=x", "did you mean API_KEYS?"),
        ("RATE_LIMIT_RSP=1", "did you mean RATE_LIMIT_RPS?"),
        ("device=cpu", "did you mean DEVICE?"),
        ("PATH=/bin", "docs/configuration.md lists all keys"),
    ],
)
def test_unknown_key_suggests_a_known_one(read: Reader, line: str, hint: str) -> None:
    name = line.partition("=")[0]
    assert read.error(line) == f"stt.env:2: {name}: unknown key; {hint}"


def test_duplicate_key_names_both_lines(read: Reader) -> None:
    assert read.error("DEVICE=cpu\n\nDEVICE=cpu") == "stt.env:4: DEVICE: duplicate key (first set on line 2)"


@pytest.mark.parametrize(
    "lines", ["API_KEYS=web:{s},a b", "API_KEYS=w b:{s}", "API_KEYS=a:{s},b:{s}", "API_KEYS=a:{s},a:x",
              "API_KEYS={s}é", "API_KEYS={s},,x", "WYOMING_API_KEY={s} x", "API_KEYS=,", "API_KEYS=web:,{s}",
              "API_KEYS=key2:{s},bare", "FALLBACK_API_KEY={s} x", 'API_KEYS="{s}', "API_KEYS=x,\n{s}",
              "API_KEYS=x,\n{s}==", "API_KEYZ={s}", "API_KEYS={s}\nAPI_KEYS={s}", 'API_KEYS="{s}\\n"'],
)  # fmt: skip
def test_errors_contain_no_secret(read: Reader, lines: str) -> None:
    assert SECRET not in read.error(lines.format(s=SECRET))


def test_errors_contain_no_password_of_a_url(read: Reader) -> None:
    for scheme in ("http", "grpc"):
        assert SECRET not in read.error(f"FALLBACK_URL={scheme}://me:{SECRET}@fb:8082")


@pytest.mark.parametrize(
    ("names", "at_fault"),
    [
        (("TLS_CERT",), "TLS_CERT: requires TLS_KEY"),
        (("TLS_KEY",), "TLS_KEY: requires TLS_CERT"),
        (("TLS_CLIENT_CA",), "TLS_CLIENT_CA: requires TLS_CERT"),
        (("FALLBACK_CERT",), "FALLBACK_CERT: requires FALLBACK_KEY"),
        (("FALLBACK_KEY",), "FALLBACK_KEY: requires FALLBACK_CERT"),
    ],
)
def test_certificate_without_its_counterpart_is_refused(
    read: Reader, tmp_path: Path, names: tuple[str, ...], at_fault: str
) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("x")
    assert at_fault in read.error("\n".join(f"{name}={pem}" for name in names))


def test_missing_pem_file_is_refused(read: Reader, tmp_path: Path) -> None:
    assert read.error(f"TLS_CERT={tmp_path}/no.pem").startswith("stt.env:2: TLS_CERT: file not found: ")


def test_one_port_for_both_protocols_is_refused(read: Reader) -> None:
    assert "port 50051 is used for both gRPC and HTTP" in read.error("HTTP_PORT=50051")
    assert read("GRPC_PORT=0\nHTTP_PORT=0").http_port == 0


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("HTTP_PORT=off\nWYOMING_PORT=10300", "WYOMING_PORT: requires the gateway; set HTTP_PORT"),
        ("WYOMING_PORT=8081", "WYOMING_PORT: port 8081 is used for gRPC or HTTP"),
        ("WYOMING_PORT=50051", "WYOMING_PORT: port 50051 is used for gRPC or HTTP"),
        (f"WYOMING_PORT=0\nAPI_KEYS={SECRET}", "WYOMING_API_KEY: required with WYOMING_PORT and API_KEYS"),
    ],
)
def test_wyoming_needs_the_gateway_a_port_and_a_key(read: Reader, lines: str, problem: str) -> None:
    assert problem in read.error(lines)


def test_wyoming_is_off_by_default_and_needs_no_key_where_there_are_none(read: Reader) -> None:
    assert read(f"API_KEYS={SECRET}").wyoming_port is None
    assert read("WYOMING_PORT=0").wyoming_port == 0
    settings = read(f"WYOMING_PORT=0\nAPI_KEYS=home:{SECRET}\nWYOMING_API_KEY={SECRET}")
    assert (settings.wyoming_api_key, settings.warnings) == (SECRET, ())


def test_wyoming_warns_of_a_key_that_is_refused_and_of_missing_tls(read: Reader, tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("x")
    keys = f"WYOMING_PORT=0\nAPI_KEYS={SECRET}\nWYOMING_API_KEY=another-key-0123456789"
    refused, plain = read(f"{keys}\nTLS_CERT={pem}\nTLS_KEY={pem}").warnings
    assert "WYOMING_API_KEY: is not one of API_KEYS" in refused and "another-key" not in refused
    assert "WYOMING_PORT: the Wyoming protocol has no TLS" in plain


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"DEVICE=cpu\nHOST=\xff\n", r":2: not UTF-8"),
        ("DEVICE=cpu\n".encode("utf-16"), r":1: not UTF-8"),
        (b"DEVICE=cpu\nHOST=a\0b\n", r":2: contains a NUL"),
        (b"#" * (1024 * 1024 + 1), r": larger than 1 MiB"),
    ],
)
def test_binary_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "stt_primary.env"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        load(file, "primary")


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; set CONFIG_PATH to its location"):
        load(tmp_path / "absent.env", "primary")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, "primary")
