"""Transcribe a sample over the primary's REST endpoint, and format the response."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT_S = 300.0


class RunError(Exception):
    """The pair can't be started, or failed; the message is for the terminal."""


def transcribe(address: str, sample: Path, fields: Mapping[str, str]) -> dict[str, Any]:
    """POST `sample` to /v1/transcribe at `address` (`host:port`); return the JSON response.

    Raises:
        RunError: the service answered with an error, or not at all.
    """
    boundary = secrets.token_hex(16)
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="audio"; filename="{sample.name}"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    body = "".join(parts).encode() + sample.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request(
            "POST", "/v1/transcribe", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        )
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise RunError(f"http://{address}/v1/transcribe did not answer: {error!r}") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise RunError(f"http://{address}/v1/transcribe answered {response.status}: {content.decode(errors='replace')}")
    answer: dict[str, Any] = json.loads(content)
    return answer


def describe(answer: Mapping[str, Any]) -> str:
    """Format transcript, answering model, route reasons, confidence and timings."""
    routing, timings = answer["routing"], answer["timings"]
    if routing["fallback_used"]:
        who = f"{routing['final_model']}, the fallback, because of: {', '.join(routing['reasons'])}"
    else:
        who = f"{routing['final_model']}, the primary; no fallback needed"
    probability = answer["language_probability"]
    sure = "" if probability is None else f"({probability:.2f})"
    lines = [
        f'  "{answer["text"].strip()}"',
        f"  answered by  {who}",
        f"  language     {answer['language']}{sure}",
        f"  confidence   {_confidence(routing)}",
        f"  time         {timings['total_ms']:.0f} ms for {answer['audio_duration']:.1f} s of audio: waited "
        f"{timings['queue_wait_ms']:.0f}, primary {timings['primary_infer_ms']:.0f}, "
        f"fallback {timings['fallback_infer_ms']:.0f}",
    ]
    return "\n".join(lines)


def _confidence(routing: Mapping[str, Any]) -> str:
    both = {"primary": routing["primary_confidence"], "fallback": routing["fallback_confidence"]}
    return ", ".join(f"{name} {value:.2f}" for name, value in both.items() if value is not None) or "none"
