"""The wire facts that services, gateway and client share."""

from __future__ import annotations

import pytest

from protos.stt.v1.wire import ReadyLine, is_request_id, new_request_id


@pytest.mark.parametrize("text", ["a", "A.b_c-9", "x" * 64, new_request_id()])
def test_a_request_id_has_64_safe_characters(text: str) -> None:
    assert is_request_id(text)


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a\n", "a\r\nb", "ü", "a/b", "٣"])
def test_other_text_is_not_a_request_id(text: str) -> None:
    assert not is_request_id(text)


READY_LINES = [
    (
        "ready service=primary grpc=127.0.0.1:50051 http=127.0.0.1:8081",
        ReadyLine("primary", "127.0.0.1:50051", "127.0.0.1:8081"),
    ),
    ("ready service=fallback grpc=[::1]:50052 http=off", ReadyLine("fallback", "[::1]:50052")),
    (
        "ready service=gateway http=0.0.0.0:80 target=dns:///stt:50051",
        ReadyLine("gateway", http="0.0.0.0:80", target="dns:///stt:50051"),
    ),
    (
        "ready service=primary grpc=127.0.0.1:1 http=127.0.0.1:2 wyoming=127.0.0.1:10300",
        ReadyLine("primary", "127.0.0.1:1", "127.0.0.1:2", wyoming="127.0.0.1:10300"),
    ),
    (
        "ready service=gateway http=[::]:80 target=unix:/run/stt wyoming=[::]:10300",
        ReadyLine("gateway", http="[::]:80", target="unix:/run/stt", wyoming="[::]:10300"),
    ),
]


@pytest.mark.parametrize(("text", "line"), READY_LINES)
def test_a_ready_line_is_written_and_parsed(text: str, line: ReadyLine) -> None:
    assert str(line) == text
    assert ReadyLine.parse(text + "\n") == line


def test_a_ready_line_gives_its_ports() -> None:
    line = ReadyLine.parse("ready service=primary grpc=[::1]:50051 http=off")
    assert line.grpc_port == 50051
    with pytest.raises(ValueError, match="no such port"):
        _ = line.http_port


@pytest.mark.parametrize("text", ["", "ready", "ready service=primary", "READY service=x grpc=a:1 http=off"])
def test_other_output_is_not_a_ready_line(text: str) -> None:
    with pytest.raises(ValueError, match="not a ready line"):
        ReadyLine.parse(text)
