"""The import rules hold in this repository, and a tree that breaks one is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.import_rules import sources, violations

ROOT = Path(__file__).resolve().parent.parent.parent


def broken(*modules: tuple[str, str]) -> list[str]:
    return violations({name: (text, False) for name, text in modules})


def test_the_repository_keeps_the_rules() -> None:
    texts = sources(ROOT)
    assert {"protos.stt.v1.errors", "stt_client.errors", "stt_server.errors", "gateway"} <= set(texts)
    assert {"tests.deploy.import_rules", "buildscripts.lib.venv"} <= set(texts)
    assert violations(texts) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("protos.stt.v1.errors", "import stt_client.errors"),
        ("stt_client.channel", "from gateway import app"),
        ("stt_client.channel", "import stt_server.errors as errors"),
        ("gateway.app", "from stt_server.config import Settings"),
        ("gateway.app", "def late():\n    import stt_server.app"),
        ("stt_server.app", "from stt_client import SttClient"),
        ("stt_server.app", "from gateway.embedded import make_gateway"),
        ("stt_server.primary", "from stt_client import SttClient"),
        ("stt_server.app", "from buildscripts.lib import venv"),
        ("buildscripts.lib.fuzz.run", "from tests.support import needs"),
        ("tests.rpc.test_pair", "from buildscripts.lib.load import corpus"),
        ("stt_server.pipeline", "from stt_server.testing.scripted_model import Script"),
    ],
)
def test_an_import_of_a_forbidden_package_is_reported(module: str, text: str) -> None:
    assert len(broken((module, text))) == 1


@pytest.mark.parametrize("name", ["primary", "fallback"])
def test_entry_points_may_import_the_gateway(name: str) -> None:
    assert broken((f"stt_server.{name}", "from gateway.embedded import make_gateway")) == []


def test_tests_of_buildscripts_may_import_them() -> None:
    assert broken(("tests.buildscripts.test_bench", "from buildscripts.lib.bench import report")) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("stt_server.engine.whisper", "from stt_server.pipeline import Pipeline"),
        ("stt_server.audio.decode", "from stt_server import pipeline"),
        ("stt_server.audio.decode", "from .. import rpc"),
        ("stt_server.routing", "import stt_server.rpc.convert"),
        ("stt_server.pipeline", "from stt_server.rpc import convert"),
        ("stt_server.pipeline", "from stt_server.streaming.session import Session"),
        ("stt_server.admission.upload_budget", "import stt_server.rpc.convert"),
        ("stt_server.cascade.circuit", "from stt_server import pipeline"),
        ("stt_server.streaming.session", "import stt_server.rpc.convert"),
        ("stt_server.streaming.session", "from stt_server.lifecycle.readiness import Readiness"),
        ("stt_server.rpc.speech", "from stt_server.app import Service"),
    ],
)
def test_an_import_against_the_flow_is_reported(module: str, text: str) -> None:
    others = [("stt_server.pipeline", ""), ("stt_server.rpc", "")]
    found = broken(*(other for other in others if other[0] != module), (module, text))
    assert len(found) == 1
    assert "the flow is" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "import grpc",
        "import grpc.aio",
        "from google.protobuf.duration_pb2 import Duration",
        "from google import protobuf",
        "import prometheus_client",
        "from protos.stt.v1 import speech_pb2",
        "def late():\n    from grpc import StatusCode",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import grpc",
    ],
)
@pytest.mark.parametrize("layer", ["audio.decode", "engine.whisper", "streaming.session", "routing"])
def test_an_import_of_the_transport_is_reported(layer: str, text: str) -> None:
    assert any("knows" in line for line in broken((f"stt_server.{layer}", text)))


def test_the_engine_may_import_the_languages_unless_they_know_the_transport() -> None:
    engine = ("stt_server.engine.language", "from protos.stt.v1.languages import NAMES")
    assert broken(engine, ("protos.stt.v1.languages", "")) == []
    assert len(broken(engine, ("protos.stt.v1.languages", "from protos.stt.v1 import speech_pb2"))) == 1


def test_rpc_may_import_readiness() -> None:
    assert broken(("stt_server.rpc.speech", "from stt_server.lifecycle.readiness import Readiness")) == []


def test_the_transport_is_found_through_another_module() -> None:
    found = broken(
        ("stt_server.engine.whisper", "from stt_server.helpers import status"),
        ("stt_server.helpers", "import grpc"),
    )
    assert found == ["stt_server.engine.whisper knows grpc (through stt_server.engine.whisper -> stt_server.helpers)"]


@pytest.mark.parametrize("late", ["from gateway.c import x", "def later():\n    from gateway.c import x"])
def test_an_import_circle_is_caught(late: str) -> None:
    modules = [
        ("gateway.a", "import gateway.b"),
        ("gateway.b", late),
        ("gateway.c", "import gateway.a"),
        ("gateway", ""),
    ]
    assert broken(*modules) == ["import circle: gateway.a -> gateway.b -> gateway.c -> gateway.a"]


def test_an_import_for_type_checkers_makes_no_circle() -> None:
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import gateway.a"
    assert broken(("gateway.a", "import gateway.b"), ("gateway.b", for_types)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import logging\nlogging.basicConfig()",
        "import logging.config as lc\nlc.dictConfig({})",
        "import os\nPATH = os.environ['CONFIG_PATH']",
        "import os\nPATH = os.getenv('CONFIG_PATH', '')",
        "from os import environ\nPATH = environ.get('CONFIG_PATH')",
        "from os import getenv as g\nclass Settings:\n    path = g('CONFIG_PATH')",
        "import os\ndef path(value=os.environ):\n    return value",
        "from prometheus_client import Counter\nREQUESTS = Counter('a', 'b')",
        "import prometheus_client as prom\nif True:\n    DEPTH = prom.Gauge('a', 'b')",
        "from prometheus_client import CollectorRegistry\nREGISTRY = CollectorRegistry()",
        "try:\n    print('loading')\nfinally:\n    pass",
        "import signal\nsignal.signal(15, lambda *_: None)",
        "from faster_whisper import WhisperModel\nMODEL = WhisperModel('base')",
        "import grpc\nCHANNEL = grpc.insecure_channel('localhost:50051')",
    ],
)
def test_an_effect_at_import_is_reported(text: str) -> None:
    assert any("at import" in line for line in broken(("stt_server.app", text)))


@pytest.mark.parametrize(
    "text",
    [
        "import os\ndef path():\n    return os.environ['CONFIG_PATH']",
        "import os\nread = lambda: os.getenv('CONFIG_PATH')",
        "from collections import Counter\nCOUNTS = Counter()",
        "from prometheus_client import Counter\nclass Metrics:\n    counter: Counter",
        "def main(): ...\nif __name__ == '__main__':\n    print(main())",
        "import logging\nlog = logging.getLogger(__name__)",
    ],
)
def test_an_effect_inside_a_function_is_allowed(text: str) -> None:
    assert broken(("stt_server.app", text)) == []


def test_relative_imports_are_resolved() -> None:
    texts = {
        "stt_server.engine": ("from . import whisper", True),
        "stt_server.engine.whisper": ("from ..pipeline import Pipeline", False),
        "stt_server.pipeline": ("", False),
    }
    assert violations(texts) == [
        "stt_server.engine.whisper imports stt_server.pipeline: "
        "the flow is rpc -> streaming -> pipeline -> cascade, admission, audio, engine, routing"
    ]
