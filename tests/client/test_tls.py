"""TLS and mutual TLS, with generated certificates."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from stt_client import SttClient, Tls
from stt_client.cli import main
from stt_client.errors import UpstreamUnavailable
from tests.support.contract_service import serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Self-signed certificate for 127.0.0.1, for server and client."""
    folder = tmp_path_factory.mktemp("tls")
    paths = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(paths["key"]), "-out", str(paths["cert"])]
    subprocess.run(["openssl", "req", "-x509", *curve, "-days", "2", *name, *files], check=True, capture_output=True)
    return paths


def credentials(pem: dict[str, Path], *, mutual: bool) -> grpc.ServerCredentials:
    cert, key = pem["cert"].read_bytes(), pem["key"].read_bytes()
    return grpc.ssl_server_credentials([(key, cert)], cert if mutual else None, mutual)


async def test_grpcs_with_trusted_roots_connects(pem: dict[str, Path]) -> None:
    async with serving(credentials=credentials(pem, mutual=False)) as served:
        tls = Tls(ca=pem["cert"].read_bytes())
        async with SttClient(f"grpcs://{served.target}", tls=tls) as client:
            assert (await client.transcribe(b"x")).text == "hello world"
        async with SttClient(served.target, tls=tls) as client:
            assert await client.health()


async def test_untrusted_certificates_and_plain_text_are_refused(pem: dict[str, Path]) -> None:
    async with serving(credentials=credentials(pem, mutual=False)) as served:
        for target, message in ((f"grpcs://{served.target}", "--ca FILE"), (served.target, "agree on TLS")):
            async with SttClient(target) as client:
                with pytest.raises(UpstreamUnavailable, match=message):
                    await client.transcribe(b"x")


async def test_mutual_tls_accepts_the_clients_certificate(pem: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    async with serving(credentials=credentials(pem, mutual=True)) as served:
        async with SttClient(served.target, tls=Tls(ca=pem["cert"].read_bytes())) as client:
            with pytest.raises(UpstreamUnavailable):
                await client.transcribe(b"x")
        options = ["--ca", str(pem["cert"]), "--cert", str(pem["cert"]), "--key", str(pem["key"])]
        arguments = ["transcribe", str(file), "--server", served.target, *options]
        assert await asyncio.to_thread(main, arguments) == 0


def test_invalid_tls_options_are_explained(
    pem: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.key"
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", "genpkey", *curve, "-out", str(other)], check=True, capture_output=True)
    for options, message in (
        (["--server", "grpc://h:1", "--ca", str(pem["cert"])], "write grpcs://"),
        (["--cert", str(pem["cert"])], "--cert and --key must be given together"),
        (["--cert", str(pem["cert"]), "--key", str(other)], f"--key: {other} is not the unencrypted private key of"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["status", *options])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
