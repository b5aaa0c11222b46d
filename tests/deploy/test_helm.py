"""deploy/helm: `helm lint`, and what it renders against kustomize's output, schemas and the services' configuration."""

from __future__ import annotations

import base64
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor

from stt_server.config import Role, Settings, parse
from stt_server.testing.paths import ROOT
from stt_server.testing.services import make_model_folder
from tests.support.needs import lacking

CHART = ROOT / "deploy" / "helm"
KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSION = "1.34"
SERVICES: tuple[Role, ...] = ("primary", "fallback")
KEYS = ("--set", "primary.secretConfig.API_KEYS=web:1", "--set", "fallback.secretConfig.API_KEYS=primary:2")
TLS = (
    *("--set", "primary.tls.secretName=own", "--set", "primary.tls.fallbackSecretName=theirs"),
    *("--set", "primary.tls.fallbackClientCertificate=true"),
    *("--set", "fallback.tls.secretName=other", "--set", "fallback.tls.clientCertificates=true"),
)
ONLY_IN_THE_CHART = {("Service", "stt-primary-grpc")}
ONLY_IN_KUSTOMIZE = {("Namespace", "stt")}

Document = dict[str, Any]
Documents = dict[tuple[str, str], Document]


def tool(*command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        lacking(f"{command[0]} is not installed; buildscripts/test unpacks it from npm")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def by_name(text: str) -> Documents:
    """Documents by kind and name, the latter without kustomize's hash."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    return {(each["kind"], re.sub(r"(-config)-\w{10}$", r"\1", each["metadata"]["name"])): each for each in documents}


def refused(*arguments: str) -> str:
    """Message of `helm template` for values that it refuses."""
    done = tool("helm", "template", "stt", str(CHART), *arguments)
    assert done.returncode != 0
    return done.stderr


@functools.cache
def rendered(*arguments: str, release: str = "stt") -> Documents:
    done = tool("helm", "template", release, str(CHART), "--namespace", "stt", *arguments)
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


@functools.cache
def kustomized(overlay: str) -> Documents:
    done = tool("kubectl", "kustomize", str(KUBERNETES / overlay))
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


def deployment(documents: Documents, service: Role) -> Document:
    spec: Document = documents["Deployment", f"stt-{service}"]["spec"]["template"]["spec"]
    return spec


def file_of(documents: Documents, service: Role) -> str:
    """The configuration file, from a ConfigMap or a Secret."""
    for kind, field in (("ConfigMap", "data"), ("Secret", "stringData"), ("Secret", "data")):
        data = documents.get((kind, f"stt-{service}-config"), {}).get(field)
        if data is not None:
            (text,) = data.values()
            return base64.b64decode(text).decode() if (kind, field) == ("Secret", "data") else text
    raise AssertionError(f"no configuration of the {service}")


def lines_of(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.startswith("#")}


def comparable(document: Document) -> Document:
    """A document without its metadata, and without what differs by design in the rest: hashes and explicit defaults."""
    found: Document = json.loads(json.dumps(document))
    del found["metadata"]
    if found["kind"] == "Deployment":
        template = found["spec"]["template"]
        template["metadata"].pop("annotations", None)
        template["spec"]["containers"][0].pop("imagePullPolicy", None)
        for volume in template["spec"]["volumes"]:
            if volume["name"] == "config":
                del volume["configMap" if "configMap" in volume else "secret"]
    if found["kind"] == "Service" and found["spec"].get("type") == "ClusterIP":
        del found["spec"]["type"]
    return found


def settings(text: str, service: Role, folder: Path) -> Settings:
    """Parse a rendered configuration file; what it names exists below `folder`."""
    for name in re.findall(r"=(/(?:tls|fallback-tls)/\S+)$", text, re.MULTILINE):
        file = folder / name.lstrip("/")
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (model,) = re.findall(r"^CT2_\w+_PATH=(/models/\S+)$", text, re.MULTILINE)
    make_model_folder(folder / model.lstrip("/"))
    return parse(re.sub(r"=(/(?:tls|fallback-tls|models)/)", rf"={folder}\1", text), service)


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Role:
    return "primary" if request.param == "primary" else "fallback"


@pytest.mark.parametrize("values", [(), ("--values", str(CHART / "values-cpu.yaml")), KEYS, TLS])
def test_chart_passes_lint(values: tuple[str, ...]) -> None:
    done = tool("helm", "lint", "--strict", "--quiet", str(CHART), *values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("overlay", "values"),
    [("base", ()), ("cpu", ("--values", str(CHART / "values-cpu.yaml"))), (".", KEYS)],
)
def test_chart_renders_what_kustomize_renders(overlay: str, values: tuple[str, ...]) -> None:
    chart, kustomize = rendered(*values), kustomized(overlay)
    assert set(chart) - ONLY_IN_THE_CHART == set(kustomize) - ONLY_IN_KUSTOMIZE
    for name in set(chart) & set(kustomize):
        if name[0] not in ("ConfigMap", "Secret"):
            assert comparable(chart[name]) == comparable(kustomize[name]), name
    for role in SERVICES:
        ours, theirs = (lines_of(file_of(documents, role)) for documents in (chart, kustomize))
        secret = {line for line in theirs if "API_KEY" in line}
        assert {line for line in ours if "API_KEY" not in line} == theirs - secret
        assert bool(secret) == (overlay == ".")


OPTIONS = (
    *("--set", "podMonitor.enabled=true,ingress.enabled=true,ingress.hosts={stt.example.com}"),
    *("--set", "grpcRoute.enabled=true,grpcRoute.parentRefs[0].name=gateway"),
)


@pytest.mark.parametrize("values", [(), KEYS, TLS, OPTIONS, ("--set", "primary.autoscaling.kind=hpa")])
def test_documents_are_valid(values: tuple[str, ...]) -> None:
    documents = rendered(*values)
    for (kind, _), document in documents.items():
        if kind not in ("PodMonitor", "ScaledObject", "GRPCRoute"):
            kubernetes_validate.validate(document, VERSION, strict=True)


def test_custom_resources_follow_their_schemas(service: Role) -> None:
    documents = rendered(*OPTIONS, "--set", f"{service}.autoscaling.kind=keda", *TLS)
    for kind, schema in (("PodMonitor", PodMonitor), ("ScaledObject", ScaledObject)):
        document = documents[kind, f"stt-{service}"]
        # A field that the schema doesn't know is lost on the way.
        assert schema.model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json") == document


def test_names_follow_the_release(tmp_path: Path) -> None:
    documents = rendered(release="speech")
    assert {name for _, name in documents if not name.startswith("speech-")} == set()
    text = documents["ConfigMap", "speech-primary-config"]["data"]["stt_primary.env"]
    found = settings(text, "primary", tmp_path).fallback
    assert found is not None
    assert found.target == "dns:///speech-fallback:50052"
    assert documents["Service", "speech-fallback"]["spec"]["selector"] == {"app": "speech-fallback"}


@pytest.mark.parametrize("drain", ["30", "90", "12.5"])
def test_grace_period_follows_the_drain_timeout(service: Role, drain: str, tmp_path: Path) -> None:
    documents = rendered("--set", f"{service}.config.DRAIN_TIMEOUT_S={drain}")
    timeout = settings(file_of(documents, service), service, tmp_path).drain_timeout_s
    assert timeout == float(drain)
    spec = deployment(documents, service)
    sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= sleep + timeout + 10


def test_changed_configuration_rolls_the_pods(service: Role) -> None:
    def checksum(*values: str) -> str:
        metadata = rendered(*values)["Deployment", f"stt-{service}"]["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/config"])

    assert checksum() != checksum("--set", f"{service}.config.MAX_QUEUE=5")


def test_keys_make_the_file_a_secret(service: Role, tmp_path: Path) -> None:
    documents = rendered("--set", f"{service}.secretConfig.API_KEYS=web:0123456789abcdef")
    assert ("ConfigMap", f"stt-{service}-config") not in documents
    found = settings(file_of(documents, service), service, tmp_path)
    assert [key.key for key in found.api_keys] == ["0123456789abcdef"]
    (volume,) = (each for each in deployment(documents, service)["volumes"] if each["name"] == "config")
    assert volume == {"name": "config", "secret": {"secretName": f"stt-{service}-config"}}


def test_existing_secret_replaces_the_file(service: Role) -> None:
    documents = rendered("--set", f"{service}.existingSecret=mine,{service}.existingDrainTimeout=100")
    assert [name for kind, name in documents if kind in ("ConfigMap", "Secret") and service in name] == []
    spec = deployment(documents, service)
    assert {"name": "config", "secret": {"secretName": "mine"}} in spec["volumes"]
    assert spec["terminationGracePeriodSeconds"] == 120


def test_values_of_the_file_are_read_as_they_were_set(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    config = {"MODEL_NAME": "small # 1", "MAX_STREAMS": 100000, "VAD_FILTER": False, "CORS_ORIGINS": "https://a.b:1"}
    values.write_text(yaml.safe_dump({"primary": {"config": config}}))
    found = settings(file_of(rendered("--values", str(values)), "primary"), "primary", tmp_path)
    assert (found.model_name, found.max_streams, found.vad_filter) == ("small # 1", 100000, False)
    assert found.cors_origins == ("https://a.b:1",)


def test_tls_reaches_the_configuration_and_the_probes(tmp_path: Path) -> None:
    documents = rendered(*TLS)
    primary = settings(file_of(documents, "primary"), "primary", tmp_path)
    fallback = settings(file_of(documents, "fallback"), "fallback", tmp_path)
    assert primary.tls_cert == tmp_path / "tls" / "tls.crt"
    assert primary.fallback is not None
    assert primary.fallback.tls
    assert primary.fallback_cert is not None
    assert (primary.tls_client_ca, fallback.tls_client_ca) == (None, tmp_path / "tls" / "ca.crt")
    for role in SERVICES:
        container = deployment(documents, role)["containers"][0]
        for probe in ("startup", "readiness", "liveness"):
            command = container[f"{probe}Probe"]["exec"]["command"]
            assert command[1:] == ["-m", "stt_server.healthcheck", "--service", role]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted["tls"] == "/tls"


def test_autoscalers_replace_the_number_of_replicas(service: Role) -> None:
    documents = rendered("--set", f"{service}.autoscaling.kind=hpa,{service}.autoscaling.maxReplicas=9")
    assert "replicas" not in documents["Deployment", f"stt-{service}"]["spec"]
    scaler = documents["HorizontalPodAutoscaler", f"stt-{service}"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == f"stt-{service}"
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 9)
    names = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"]]
    assert names == ["stt_queue_depth", "stt_expected_wait_seconds"]


def test_routes_lead_to_the_primary() -> None:
    documents = rendered(*OPTIONS)
    ports = {port["name"]: port["port"] for port in documents["Service", "stt-primary"]["spec"]["ports"]}
    (rule,) = documents["Ingress", "stt-primary"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "stt-primary", "port": {"name": "http"}}
    (route,) = documents["GRPCRoute", "stt-primary"]["spec"]["rules"]
    assert route["backendRefs"] == [{"name": "stt-primary", "port": ports["grpc"]}]
    monitor = documents["PodMonitor", "stt-primary"]["spec"]
    assert monitor["selector"]["matchLabels"] == {"app": "stt-primary"}
    assert monitor["podMetricsEndpoints"][0]["port"] == "http"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("primary.replica=2", "additional properties 'replica' not allowed"),
        ("primary.config.max_queue=2", "additional properties 'max_queue' not allowed"),
        ("image.registry=registry.example.com", "does not match pattern"),
        ("ingress.enabled=true", "ingress.hosts is empty"),
        ("grpcRoute.enabled=true", "grpcRoute.parentRefs is empty"),
    ],
)
def test_wrong_values_are_refused(value: str, message: str) -> None:
    assert message in refused("--set", value)
