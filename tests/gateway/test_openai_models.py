"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

import time

import httpx
import openai
import pytest

from gateway.http.server import GatewayServer
from tests.gateway.test_openai_errors import assert_openai_error
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_models_are_whisper_and_the_one_that_runs(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.get("/v1/models")
    assert (response.status_code, response.json()["object"]) == (200, "list")
    for model, name in zip(response.json()["data"], ("whisper-1", "whisper-tiny"), strict=True):
        assert sorted(model) == ["created", "id", "object", "owned_by"]
        assert (model["id"], model["object"]) == (name, "model")
        assert 0 <= time.time() - 12.5 - model["created"] < 60
        assert (await http.get(f"/v1/models/{name}")).json()["id"] == name
    assert response.headers["x-request-id"] == response.headers["x-req-id"]


async def test_entry_is_the_same_whenever_it_is_calculated(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.uptime_s = 5000
    listed = (await http.get("/v1/models")).json()["data"]
    service.script.uptime_s -= 1
    assert (await http.get("/v1/models/whisper-1")).json() == listed[0]
    service.script.uptime_s -= 10
    assert (await http.get("/v1/models/whisper-1")).json()["created"] - listed[0]["created"] >= 10


@pytest.mark.parametrize("name", ["gpt-9", "whisper-1/x", "", "whisper%2D2", "%00", "a" * 500])
async def test_other_model_is_not_found(http: httpx.AsyncClient, service: ContractService, name: str) -> None:
    response = await http.get(f"/v1/models/{name}")
    assert_openai_error(response, "invalid_argument", status=404, code="model_not_found", param="model")


async def test_model_whose_name_has_a_slash_is_found(
    http: httpx.AsyncClient, gateway: GatewayServer, service: ContractService
) -> None:
    service.script.response.routing.final_model = "Systran/faster whisper"
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="k") as client:
        listed = [model.id async for model in client.models.list()]
        found = await client.models.retrieve("Systran/faster whisper")
    assert listed == ["whisper-1", "Systran/faster whisper"]
    assert found.id == "Systran/faster whisper"


async def test_model_of_openais_name_is_listed_once(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.response.routing.final_model = "whisper-1"
    assert len((await http.get("/v1/models")).json()["data"]) == 1


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/whisper-1"])
async def test_key_is_needed(http: httpx.AsyncClient, service: ContractService, path: str) -> None:
    service.script.keys = frozenset({"k1"})
    assert_openai_error(await http.get(path), "unauthenticated")
    assert_openai_error(await http.get(path, headers={"Authorization": "Bearer k2"}), "unauthenticated")
    assert (await http.get(path, headers={"Authorization": "Bearer k1"})).status_code == 200


async def test_full_queue_is_no_reason_to_refuse(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.admission_failure = Failure("overloaded")
    assert (await http.get("/v1/models")).status_code == 200
    service.script.admission_failure = Failure("not_ready")
    assert_openai_error(await http.get("/v1/models"), "not_ready")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/whisper-1", "/v1/audio/transcriptions"])
async def test_other_methods_are_405(http: httpx.AsyncClient, service: ContractService, path: str) -> None:
    response = await http.delete(path)
    assert_openai_error(response, "invalid_argument", status=405, code="method_not_allowed")
    assert response.headers["allow"] in ("GET", "POST")
