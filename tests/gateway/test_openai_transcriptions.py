"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: the call to the service, and every format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.audio import Transcription, TranscriptionVerbose, Translation, TranslationVerbose

from gateway.http.server import GatewayServer
from protos.stt.v1 import speech_pb2
from tests.gateway.test_openai_errors import assert_openai_error
from tests.gateway.transcripts import ROUTED, TIMES
from tests.support.contract_service import ContractService
from tests.support.raw_http import BOUNDARY, exchange, form, head, part

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
RECORDING = ("speech.wav", b"RIFF....", "audio/wav")
FILE = {"file": RECORDING}
TEXT = "Grüße, Welt. 你好。"
USAGE = {"type": "duration", "seconds": 3.25}
SEGMENT = {
    "id": 0,
    "seek": 0,
    "start": 0.5,
    "end": 1.75,
    "text": "Grüße, Welt.",
    "tokens": [],
    "temperature": 0.0,
    "avg_logprob": -0.5,
    "compression_ratio": 1.25,
    "no_speech_prob": 0.125,
    "model": "whisper-tiny",
}


@pytest_asyncio.fixture(loop_scope="session")
async def official(gateway: GatewayServer, service: ContractService) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, which validates responses against its types."""
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="k1", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def options_of(service: ContractService) -> speech_pb2.TranscribeOptions:
    """Options of the last call."""
    return service.script.calls[-1].request.options


async def test_json_has_text_languages_and_usage_alone(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.response.segments[1].language = "zh"
    response = await http.post(PATH, files=FILE, headers={"X-Req-Id": "mine"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"text": TEXT, "languages": [{"code": "de"}, {"code": "zh"}], "usage": USAGE}
    for name, value in {**TIMES, **ROUTED, "x-request-id": "mine", "x-req-id": "mine"}.items():
        assert response.headers.get_list(name) == [value]
    assert "x-should-retry" not in response.headers


async def test_verbose_json_has_every_field(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post(PATH, files=FILE, data={"response_format": "verbose_json"})
    plain = (await http.post("/v1/transcribe", files={"audio": RECORDING})).json()
    body = response.json()
    assert body.pop("segments")[0] == SEGMENT
    assert body == {
        "task": "transcribe",
        "language": "german",
        "duration": 3.25,
        "text": TEXT,
        "usage": USAGE,
        "languages": [{"code": "de"}],
        "routing": plain["routing"],
        "timings": plain["timings"],
    }


@pytest.mark.parametrize(
    ("given", "words"), [({"timestamp_granularities[]": "word"}, True), ({"timestamp_granularities": "segment"}, False)]
)
async def test_words_stand_beside_segments_if_they_are_wanted(
    http: httpx.AsyncClient, service: ContractService, given: dict[str, str], words: bool
) -> None:
    response = await http.post(PATH, files=FILE, data={"response_format": "verbose_json", **given})
    word = {"word": "Grüße", "start": 0.5, "end": 0.9, "probability": 0.9}
    assert response.json().get("words") == ([word] if words else None)
    assert len(response.json()["segments"]) == 2
    assert options_of(service).word_timestamps == words


@pytest.mark.parametrize("path", [PATH, TRANSLATIONS])
@pytest.mark.parametrize("name", ["text", "srt", "vtt"])
async def test_text_and_subtitles_are_those_of_rest(
    http: httpx.AsyncClient, service: ContractService, path: str, name: str
) -> None:
    response = await http.post(path, files=FILE, data={"response_format": name, "timestamp_granularities": "word"})
    words = options_of(service).word_timestamps
    other = await http.post("/v1/transcribe", files={"audio": RECORDING}, data={"response_format": name})
    assert words == options_of(service).word_timestamps == (name != "text")
    assert response.content == other.content
    assert response.headers["content-type"] == other.headers["content-type"]


async def test_translations_are_english_text(http: httpx.AsyncClient, service: ContractService) -> None:
    assert (await http.post(TRANSLATIONS, files=FILE)).json() == {"text": TEXT}
    verbose = (await http.post(TRANSLATIONS, files=FILE, data={"response_format": "verbose_json"})).json()
    assert (verbose["task"], verbose["language"]) == ("translate", "english")
    assert verbose["segments"][0] == SEGMENT
    assert options_of(service).task == speech_pb2.TASK_TRANSLATE


async def test_translations_skip_the_fields_of_transcriptions(
    http: httpx.AsyncClient, service: ContractService
) -> None:
    fields = {"language": "de", "stream": "true", "hotwords": "a", "timestamp_granularities": "none", "prompt": "Hm"}
    response = await http.post(TRANSLATIONS, files=FILE, data={**fields, "temperature": "1", "routing": "primary"})
    assert response.json() == {"text": TEXT}
    assert options_of(service) == speech_pb2.TranscribeOptions(
        task=speech_pb2.TASK_TRANSLATE, prompt="Hm", routing=speech_pb2.ROUTING_POLICY_PRIMARY_ONLY
    )


async def test_no_speech_is_an_empty_text(http: httpx.AsyncClient, service: ContractService) -> None:
    silent = speech_pb2.TranscribeResponse(audio_duration=service.script.response.audio_duration)
    service.script.response.CopyFrom(silent)
    assert (await http.post(PATH, files=FILE)).json() == {"text": "", "languages": [], "usage": USAGE}
    fields = {"response_format": "verbose_json", "timestamp_granularities": "word"}
    verbose = (await http.post(PATH, files=FILE, data=fields)).json()
    assert (verbose["text"], verbose["segments"], verbose["words"], verbose["language"]) == ("", [], [], "")


async def test_text_and_words_have_no_spaces_around_them(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.response.text = f" {TEXT}\n"
    for name in ("json", "verbose_json"):
        assert (await http.post(PATH, files=FILE, data={"response_format": name})).json()["text"] == TEXT
    assert (await http.post(PATH, files=FILE, data={"response_format": "text"})).text == TEXT


async def test_official_client_reads_every_format(official: openai.AsyncOpenAI) -> None:
    create = official.audio.transcriptions.create
    plain = await create(file=RECORDING, model="whisper-1")
    assert isinstance(plain, Transcription)
    assert plain.text == TEXT
    assert plain.languages is not None and [language.code for language in plain.languages] == ["de"]
    verbose = await create(
        file=RECORDING,
        model="gpt-4o-mini-transcribe",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert isinstance(verbose, TranscriptionVerbose)
    assert verbose.segments is not None and verbose.words is not None
    assert (verbose.segments[0].seek, verbose.words[0].word) == (0, "Grüße")
    for name in ("text", "srt", "vtt"):
        text = await create(file=RECORDING, model="any/name", response_format=name)
        assert isinstance(text, str) and "Grüße, Welt." in text


async def test_official_client_reads_translations(official: openai.AsyncOpenAI) -> None:
    create = official.audio.translations.create
    assert isinstance(await create(file=RECORDING, model="whisper-1"), Translation)
    verbose = await create(file=RECORDING, model="whisper-1", response_format="verbose_json")
    assert isinstance(verbose, TranslationVerbose) and verbose.language == "english"


async def test_every_field_of_the_official_client_is_taken(
    official: openai.AsyncOpenAI, service: ContractService
) -> None:
    await official.audio.transcriptions.create(
        file=RECORDING,
        model="gpt-transcribe",
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 300, "threshold": 0.5},
        include=["logprobs"],
        keywords=["gRPC", "Acme, Inc."],
        known_speaker_names=["a", "b"],
        known_speaker_references=["data:audio/wav;base64," + "A" * 300_000] * 2,
        languages=["en", "de-AT"],
        prompt="Zoë said:",
        temperature=0.2,
        stream=False,
        extra_body={"routing": "fallback"},
    )
    request = service.script.calls[-1].request
    assert request.audio == b"RIFF...."
    assert request.options == speech_pb2.TranscribeOptions(
        candidate_languages=["en", "de-AT"],
        task=speech_pb2.TASK_TRANSCRIBE,
        prompt="Zoë said:",
        hotwords=["gRPC", "Acme, Inc."],
        routing=speech_pb2.ROUTING_POLICY_FALLBACK_ONLY,
    )
    assert service.script.calls[-1].metadata["authorization"] == "Bearer k1"


@pytest.mark.parametrize(
    ("fields", "languages", "hotwords"),
    [
        ({"languages[]": ["en", "de"], "keywords[]": ["a", "b c"]}, ["en", "de"], ["a", "b c"]),
        ({"languages": ["en", "de"], "keywords": ["a", "b c"]}, ["en", "de"], ["a", "b c"]),
        ({"languages": "en, de,", "keywords": "a,b c"}, ["en", "de"], ["a", "b c"]),
        (
            {"languages": ["en", ""], "languages[]": "de", "hotwords": "b c", "keywords": "a"},
            ["de", "en"],
            ["a", "b c"],
        ),
        ({"languages[]": ["en", "de"], "hotwords[]": ["a", "b c"]}, ["en", "de"], ["a", "b c"]),
    ],
)
async def test_lists_have_three_forms(
    http: httpx.AsyncClient, service: ContractService, fields: dict[str, Any], languages: list[str], hotwords: list[str]
) -> None:
    response = await http.post(PATH, files=FILE, data=fields)
    assert response.status_code == 200
    assert list(options_of(service).candidate_languages) == languages
    assert list(options_of(service).hotwords) == hotwords


@pytest.mark.parametrize(
    ("fields", "language", "candidates"),
    [
        ({"languages[]": "de"}, "de", []),
        ({"languages": ["", "de"]}, "de", []),
        ({"language": "en", "languages[]": "de"}, "en", ["de"]),
        ({"language": " en-US "}, "en-US", []),
        ({"language": "auto"}, "auto", []),
    ],
)
async def test_one_language_alone_is_the_language(
    http: httpx.AsyncClient, service: ContractService, fields: dict[str, Any], language: str, candidates: list[str]
) -> None:
    await http.post(PATH, files=FILE, data=fields)
    assert options_of(service).language == language
    assert list(options_of(service).candidate_languages) == candidates


async def test_empty_fields_are_left_out(http: httpx.AsyncClient, service: ContractService) -> None:
    names = ("model", "language", "languages[]", "keywords[]", "hotwords", "prompt", "response_format", "routing")
    more = ("timestamp_granularities[]", "stream", "temperature", "include[]", "chunking_strategy")
    response = await http.post(PATH, files=FILE, data=dict.fromkeys((*names, *more), ""))
    assert response.json()["text"] == TEXT
    assert options_of(service) == speech_pb2.TranscribeOptions(task=speech_pb2.TASK_TRANSCRIBE)


async def test_parts_come_in_any_order_and_unknown_ones_are_skipped(
    gateway: GatewayServer, service: ContractService
) -> None:
    body = form(
        part("response_format", b"text"),
        part("audio", bytes(200_000), '; filename="x.bin"'),
        part("user", b"\xff\xfe\0"),
        part("chunking_strategy[type]", b"server_vad", "\r\nContent-Transfer-Encoding: base64"),
        part("file", b"\r\n--abc", '; filename="speech"'),
        part("file2", b"x", '; filename="y"'),
        part("prompt", "Zoë".encode()),
        part("x" * 300, b""),
    )
    answer = await exchange(gateway.port, head(f"Content-Length: {len(body)}", path=PATH) + body)
    assert (answer.status, answer.body.decode()) == (200, TEXT)
    assert service.script.calls[-1].request.audio == b"\r\n--abc"
    assert options_of(service).prompt == "Zoë"


async def test_unknown_parts_count_against_the_limits(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post(PATH, files=FILE, data={"user[]": ["a"] * 300})
    assert "parts" in assert_openai_error(response, "invalid_argument")
    service.script.max_upload_bytes = 1000
    response = await http.post(PATH, files=FILE, data={"user": "x" * 1_100_000})
    assert_openai_error(response, "payload_too_large")


async def test_as_many_keywords_are_taken_as_the_service_does(
    http: httpx.AsyncClient, service: ContractService
) -> None:
    response = await http.post(PATH, files=FILE, data={"keywords[]": [f"word {n}" for n in range(200)]})
    assert response.status_code == 200
    assert len(options_of(service).hotwords) == 200


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-stainless-read-timeout": "2.5"}, 2.5),
        ({"x-stainless-read-timeout": "600", "X-Timeout-Ms": "1500"}, 1.5),
        *(({"x-stainless-read-timeout": given}, 3600) for given in ("", "0", "-1", "nan", "inf", "soon", "9999999")),
    ],
)
async def test_deadline_is_the_callers(
    http: httpx.AsyncClient, service: ContractService, headers: dict[str, str], seconds: float
) -> None:
    await http.post(PATH, files=FILE, headers=headers)
    found = service.script.calls[-1].time_remaining
    # gRPC rounds long deadlines up, by some seconds.
    assert found is not None and seconds * 0.5 < found <= seconds * 1.01 + 0.1


async def test_deadline_of_the_official_client_is_its_timeout(
    official: openai.AsyncOpenAI, service: ContractService
) -> None:
    await official.with_options(timeout=20).audio.transcriptions.create(file=RECORDING, model="")
    found = service.script.calls[-1].time_remaining
    assert found is not None and 10 < found <= 20.1


async def test_oversized_recording_is_refused_while_it_is_sent(
    official: openai.AsyncOpenAI, gateway: GatewayServer, service: ContractService
) -> None:
    service.script.max_upload_bytes = 100_000
    with pytest.raises(openai.APIStatusError) as caught:
        await official.audio.transcriptions.create(file=("a.wav", bytes(20_000_000)), model="whisper-1")
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (413, "payload_too_large", "file")
    # A caller that writes all of an undeclared length before it reads.
    body = part("file", bytes(8_000_000)) + f"--{BOUNDARY}--\r\n".encode()
    sent = head("Transfer-Encoding: chunked", path=PATH) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    answer = await exchange(gateway.port, sent)
    assert (answer.status, answer.json()["error"]["code"]) == (413, "payload_too_large")
    assert not service.script.calls
