"""TLS credentials from files: real handshakes, and errors that name the file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

from stt_server.config import ConfigError, Settings
from stt_server.security.tls import ServerCertificate, channel_pems, server_pems
from tests.support.config_files import Reader, make_model


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _authority(folder: Path, name: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem")
    _openssl("req", "-x509", *key, *files, "-days", "2", "-subj", f"/CN={name}")


def _signed(folder: Path, name: str, authority: str) -> None:
    key = (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        f"{folder}/{name}.key",
    )
    _openssl("req", *key, "-out", f"{folder}/{name}.csr", "-subj", f"/CN={name}")
    (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    by = ("-CA", f"{folder}/{authority}.pem", "-CAkey", f"{folder}/{authority}.key", "-CAcreateserial")
    files = ("-in", f"{folder}/{name}.csr", "-out", f"{folder}/{name}.pem", "-extfile", f"{folder}/san")
    _openssl("x509", "-req", *files, *by, "-days", "2")


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM files: `ca` signed `server` and `client`, `stranger` neither."""
    folder = tmp_path_factory.mktemp("pems")
    _authority(folder, "ca")
    _authority(folder, "stranger")
    _signed(folder, "server", "ca")
    _signed(folder, "client", "ca")
    _openssl(
        "ec",
        "-in",
        f"{folder}/server.key",
        "-out",
        f"{folder}/locked.key",
        "-aes128",
        "-passout",
        "pass:abcd",
    )
    (folder / "text.pem").write_text("no certificate\n")
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return folder


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(make_model(tmp_path))


async def _call(server_settings: Settings, client_lines: str, read: Reader) -> bytes:
    """Answer to a call over a channel with `client_lines` to a server with `server_settings`."""

    async def echo(request: bytes, context: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),))
    server_side = server_pems(server_settings)
    assert server_side is not None
    port = server.add_secure_port("127.0.0.1:0", ServerCertificate(server_side).credentials())
    await server.start()
    try:
        settings = read(f"{client_lines}\nFALLBACK_URL=grpcs://127.0.0.1:{port}")
        assert settings.fallback is not None
        channel_side = channel_pems(settings)
        assert channel_side is not None
        async with grpc.aio.secure_channel(settings.fallback.target, channel_side.credentials()) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Echo")
            return await call(b"hello", timeout=10)
    finally:
        await server.stop(None)


def _server_lines(pems: Path) -> str:
    return f"TLS_CERT={pems}/server.pem\nTLS_KEY={pems}/server.key\n"


async def test_a_client_that_trusts_the_authority_connects(pems: Path, read: Reader) -> None:
    assert await _call(read(_server_lines(pems)), f"FALLBACK_CA={pems}/ca.pem", read) == b"hello"


async def test_a_client_that_trusts_another_authority_fails(pems: Path, read: Reader) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(read(_server_lines(pems)), f"FALLBACK_CA={pems}/stranger.pem", read)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_authority_admits_only_its_certificates(pems: Path, read: Reader) -> None:
    settings = read(f"{_server_lines(pems)}TLS_CLIENT_CA={pems}/ca.pem")
    known = f"FALLBACK_CA={pems}/ca.pem\n"
    shown = f"FALLBACK_CERT={pems}/client.pem\nFALLBACK_KEY={pems}/client.key"
    assert await _call(settings, known + shown, read) == b"hello"
    stranger = f"FALLBACK_CERT={pems}/stranger.pem\nFALLBACK_KEY={pems}/stranger.key"
    for lines in (known, known + stranger):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _call(settings, lines, read)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_without_files_tls_is_off(read: Reader) -> None:
    assert server_pems(read()) is None
    assert channel_pems(read()) is None
    assert channel_pems(read("FALLBACK_URL=grpc://fb:50052")) is None


@pytest.mark.parametrize(
    ("cert", "key", "problem"),
    [
        ("text.pem", "server.key", "text.pem: TLS_CERT: contains no PEM certificate"),
        ("broken.pem", "server.key", "broken.pem: TLS_CERT: contains no PEM certificate"),
        ("server.key", "server.key", "server.key: TLS_CERT: contains no PEM certificate"),
        ("server.pem", "client.key", "client.key: TLS_KEY: is not the private key of TLS_CERT"),
        ("server.pem", "server.pem", "server.pem: TLS_KEY: is not the private key of TLS_CERT"),
        (
            "server.pem",
            "locked.key",
            "locked.key: TLS_KEY: is not the private key of TLS_CERT (PEM without a password expected)",
        ),
    ],
)
def test_an_unusable_server_file_is_named(pems: Path, read: Reader, cert: str, key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        server_pems(read(f"TLS_CERT={pems}/{cert}\nTLS_KEY={pems}/{key}"))
    assert str(caught.value).startswith(f"{pems}/{problem}")
    assert "\n" not in str(caught.value)


def test_an_unusable_client_authority_is_named(pems: Path, read: Reader) -> None:
    with pytest.raises(ConfigError, match=r"text\.pem: TLS_CLIENT_CA: contains no PEM certificate"):
        server_pems(read(f"{_server_lines(pems)}TLS_CLIENT_CA={pems}/text.pem"))


def test_an_unusable_fallback_file_is_named(pems: Path, read: Reader) -> None:
    url = "FALLBACK_URL=grpcs://fb:50052\n"
    with pytest.raises(ConfigError, match=r"text\.pem: FALLBACK_CA: contains no PEM certificate"):
        channel_pems(read(f"{url}FALLBACK_CA={pems}/text.pem"))
    with pytest.raises(ConfigError, match=r"server\.key: FALLBACK_KEY: is not the private key of FALLBACK_CERT"):
        channel_pems(read(f"{url}FALLBACK_CERT={pems}/client.pem\nFALLBACK_KEY={pems}/server.key"))


def test_a_file_deleted_after_the_settings_were_read(pems: Path, read: Reader, tmp_path: Path) -> None:
    copy = tmp_path / "server.pem"
    copy.write_bytes((pems / "server.pem").read_bytes())
    settings = read(f"TLS_CERT={copy}\nTLS_KEY={pems}/server.key")
    copy.unlink()
    with pytest.raises(ConfigError, match="TLS_CERT: can't be read: No such file"):
        server_pems(settings)
