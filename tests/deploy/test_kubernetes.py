"""The manifests in deploy/kubernetes fit the service.

``make test-kubernetes`` checks their schemas.
"""

from dataclasses import fields

import pytest
import yaml

from asr.service.access.keys import parse_keys
from asr.service.http.middleware import OPEN_PATHS
from asr.settings import Settings
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = {path.name: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")}
DEPLOYMENT = FILES["deployment.yaml"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
(CONTAINER,) = POD["containers"]
ENV = {entry["name"]: entry for entry in CONTAINER["env"]}
LABELS = {"app.kubernetes.io/name": "asr"}


def settings():
    given = {name: entry["value"] for name, entry in ENV.items() if "value" in entry}
    database = FILES["secret.example.yaml"]["stringData"]["database-url"]
    return Settings.from_env(given | {"ASR_DATABASE_URL": database, "ASR_API_KEYS_FILE": ""})


def test_every_variable_is_a_setting():
    known = {f"ASR_{field.name.upper()}" for field in fields(Settings)}
    assert set(ENV) <= known
    assert settings().log_format == "json"


def test_the_end_of_a_pod_leaves_time_for_the_drain():
    ours = settings()
    assert ours.drain_seconds > 0
    needed = ours.drain_seconds + ours.shutdown_grace + 5
    assert POD["terminationGracePeriodSeconds"] > needed
    probe = CONTAINER["readinessProbe"]
    assert ours.drain_seconds > 2 * probe["periodSeconds"] * probe["failureThreshold"]


def test_probes_ask_open_routes_at_the_port_of_the_image():
    paths = {name: CONTAINER[name]["httpGet"]["path"] for name in CONTAINER if "Probe" in name}
    assert paths == {
        "startupProbe": "/health",
        "readinessProbe": "/ready",
        "livenessProbe": "/health",
    }
    assert set(paths.values()) <= OPEN_PATHS
    (port,) = CONTAINER["ports"]
    assert f"ASR_PORT={port['containerPort']}" in (ROOT / "Dockerfile").read_text()
    assert {CONTAINER[name]["httpGet"]["port"] for name in paths} == {port["name"]}
    assert FILES["service.yaml"]["spec"]["ports"][0]["targetPort"] == port["name"]


def test_the_pod_is_no_root_and_cannot_change_its_files():
    user = POD["securityContext"]["runAsUser"]
    assert f"USER {user}" in (ROOT / "Dockerfile").read_text()
    assert POD["securityContext"]["runAsNonRoot"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["enableServiceLinks"] is False


def test_what_the_service_writes_is_mounted():
    writable = {it["mountPath"]: it["name"] for it in CONTAINER["volumeMounts"]}
    assert {"/data", "/work", "/tmp"} <= set(writable)
    volumes = {it["name"]: it for it in POD["volumes"]}
    assert set(writable.values()) == set(volumes)
    claim = volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert FILES["storage.yaml"]["metadata"]["name"] == claim
    assert FILES["storage.yaml"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_secret_has_what_the_pod_reads():
    secret = FILES["secret.example.yaml"]
    database = ENV["ASR_DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert database["name"] == secret["metadata"]["name"]
    (volume,) = (it["secret"] for it in POD["volumes"] if "secret" in it)
    assert volume["secretName"] == secret["metadata"]["name"]
    (item,) = volume["items"]
    assert {database["key"], item["key"]} == set(secret["stringData"])
    (key,) = parse_keys(secret["stringData"][item["key"]], "api_keys_file")
    assert key.name == "alice"


@pytest.mark.parametrize("name", ["service.yaml", "disruption.yaml"])
def test_selectors_select_the_pods(name):
    selector = FILES[name]["spec"]["selector"]
    assert selector.get("matchLabels", selector) == LABELS
    assert DEPLOYMENT["template"]["metadata"]["labels"] == LABELS
    assert DEPLOYMENT["selector"]["matchLabels"] == LABELS


def test_the_autoscaler_scales_the_deployment_by_metrics_that_exist():
    scaler = FILES["autoscaler.yaml"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == FILES["deployment.yaml"]["metadata"]["name"]
    assert "replicas" not in DEPLOYMENT
    target = scaler["metrics"][0]["external"]["target"]["averageValue"]
    assert int(target) == settings().max_active_jobs
    metrics = (ROOT / "asr/service/observability/metrics.py").read_text()
    adapter = (FOLDER / "README.md").read_text()
    for name in ("asr_jobs", "asr_requests"):
        assert f"{name}{{state=" in adapter
        assert f'"{name}"' in metrics


def test_kustomization_names_every_manifest_but_the_examples():
    listed = set(FILES["kustomization.yaml"]["resources"])
    assert listed == {n for n in FILES if ".example." not in n} - {"kustomization.yaml"}
