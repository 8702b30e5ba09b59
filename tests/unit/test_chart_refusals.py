"""The chart refuses what cannot work: all faults at once, each with what was set and what to do.

What only a cluster knows is tried in tests/kubernetes.
"""

from __future__ import annotations

import re

import pytest
import yaml

from dev import render_chart
from lib.cli import UserError
from rendering import joined

SQLITE = "with SQLite"


def refusal(tmp_path, values):
    """What the chart says to these values, fault by fault; empty if it takes them."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    try:
        render_chart.render([file])
    except UserError as failure:
        found = re.findall(r"(?m)^  - (.+)$", str(failure))
        return found or [str(failure)]
    return []


# What is set, and words that the one fault must have: what was found and the fix.
FAULTS = {
    "two databases": (
        [("postgres.enabled", True), ("postgres.external.host", "db"),
         ("postgres.external.existingSecret", "db")],
        ["postgres.external.host=db", "Unset one"],
    ),
    "a database without a password": (
        [("postgres.external.host", "db")],
        ["postgres.external.existingSecret", "POSTGRES_PASSWORD"],
    ),
    "two writers of one SQLite file": (
        [("labelStudio.replicas", 2)], ["labelStudio.replicas=2", SQLITE, "postgres.enabled=true"],
    ),
    "a rolling update of SQLite": (
        [("labelStudio.strategy", "RollingUpdate")], ["RollingUpdate", SQLITE, "Leave it empty"],
    ),
    "uploads in one pod of two": (
        [("labelStudio.replicas", 2), ("labelStudio.persistence.enabled", False),
         ("postgres.enabled", True)],
        ["labelStudio.persistence", "labelStudio.s3", "Switch one of them on"],
    ),
    "a claim for one pod, and two pods": (
        [("labelStudio.replicas", 2), ("postgres.enabled", True),
         ("labelStudio.persistence.accessModes", ["ReadWriteOncePod"])],
        ["ReadWriteOncePod", "ReadWriteMany"],
    ),
    "S3 without a bucket": (
        [("labelStudio.s3.enabled", True), ("labelStudio.s3.existingSecret", "s3")],
        ["labelStudio.s3.bucket", "Name the bucket"],
    ),
    "S3 without a key": (
        [("labelStudio.s3.enabled", True), ("labelStudio.s3.bucket", "b")],
        ["labelStudio.s3.existingSecret", "access-key-id and secret-access-key"],
    ),
    "prelabel of no project": (
        [("prelabel.enabled", True)], ["prelabel.projects", "Name the titles"],
    ),
    "shards by an option": (
        [("prelabel.enabled", True), ("prelabel.projects", ["a"]),
         ("prelabel.options", ["--shard=0/2"])],
        ["prelabel.options names --shard=0/2", "prelabel.shards"],
    ),
    "a GPU of prelabel past its setting": (
        [("prelabel.enabled", True), ("prelabel.projects", ["a"]),
         ("prelabel.resources", {"limits": {"nvidia.com/gpu": 1}})],
        ["prelabel.resources names nvidia.com/gpu", "prelabel.gpu.enabled"],
    ),
    "an ingress without a host": ([("ingress.enabled", True)], ["ingress.host"]),
    "a route without a host": (
        [("gateway.enabled", True), ("gateway.parentRefs", [{"name": "g"}])], ["gateway.host"],
    ),
    "a route without a gateway": (
        [("gateway.enabled", True), ("gateway.host", "a.example")],
        ["gateway.parentRefs", "Name one"],
    ),
    "two addresses": (
        [("gateway.enabled", True), ("gateway.host", "a.example"),
         ("gateway.parentRefs", [{"name": "g"}]),
         ("ingress.enabled", True), ("ingress.host", "b.example")],
        ["ingress.host=b.example", "gateway.host=a.example", "LABEL_STUDIO_HOST"],
    ),
    "an address of its own without an interface": (
        [("multus.enabled", True), ("multus.backendAddress", "192.0.2.9/24")],
        ["multus.master", "eth1"],
    ),
    "an address of its own for nobody": (
        [("multus.enabled", True), ("multus.master", "eth1")],
        ["multus.labelStudioAddress or multus.backendAddress"],
    ),
    "an address for two pods": (
        [("multus.enabled", True), ("multus.master", "eth1"),
         ("multus.backendAddress", "192.0.2.9/24"), ("backend.replicas", 2)],
        ["multus.backendAddress=192.0.2.9/24", "backend.replicas=1"],
    ),
    "two pods at a time with the address of the backend": (
        [("multus.enabled", True), ("multus.master", "eth1"),
         ("multus.backendAddress", "192.0.2.9/24"), ("backend.strategy", "RollingUpdate")],
        ["backend.strategy=RollingUpdate", "multus.backendAddress=192.0.2.9/24", "Leave it empty"],
    ),
    "two pods at a time with the address of Label Studio": (
        [("multus.enabled", True), ("multus.master", "eth1"), ("postgres.enabled", True),
         ("multus.labelStudioAddress", "192.0.2.9/24"),
         ("labelStudio.strategy", "RollingUpdate")],
        ["labelStudio.strategy=RollingUpdate", "multus.labelStudioAddress=192.0.2.9/24"],
    ),
    "two scalers": (
        [("backend.autoscaling.hpa.enabled", True), ("backend.autoscaling.keda.enabled", True),
         ("backend.autoscaling.keda.prometheusAddress", "http://p:9090"),
         ("metrics.serviceMonitor.enabled", True)],
        ["Switch one off"],
    ),
    "fewest more than most": (
        [("backend.autoscaling.hpa.enabled", True), ("backend.autoscaling.hpa.minReplicas", 5)],
        ["minReplicas=5", "maxReplicas=3"],
    ),
    "a per cent of nothing": (
        [("backend.autoscaling.hpa.enabled", True), ("backend.resources.requests", {"cpu": None})],
        ["backend.resources.requests.cpu"],
    ),
    "KEDA without Prometheus": (
        [("backend.autoscaling.keda.enabled", True), ("metrics.serviceMonitor.enabled", True)],
        ["prometheusAddress", "http://prometheus.monitoring.svc:9090"],
    ),
    "KEDA without the labels that it asks by": (
        [("backend.autoscaling.keda.enabled", True),
         ("backend.autoscaling.keda.prometheusAddress", "http://p:9090")],
        ["backend.autoscaling.keda.enabled=true without metrics.serviceMonitor.enabled",
         "Set it to true"],
    ),
    "no name of a resource": (
        [("backend.gpu.enabled", True), ("backend.gpu.resourceName", "gpu")],
        ["backend.gpu.resourceName=gpu", "nvidia.com/gpu"],
    ),
    "a resource that no plugin gives": (
        [("backend.gpu.enabled", True), ("backend.gpu.resourceName", "nvidia.com/gpus")],
        ["nvidia.com/gpus", "nvidia.com/mig-1g.5gb"],
    ),
    "several shares of a GPU": (
        [("backend.gpu.enabled", True), ("backend.gpu.resourceName", "nvidia.com/gpu.shared"),
         ("backend.gpu.count", 2)],
        ["backend.gpu.count=2", "Set 1"],
    ),
    "a GPU past backend.gpu": (
        [("backend.resources.limits", {"nvidia.com/gpu": 1})],
        ["nvidia.com/gpu", "backend.gpu.enabled"],
    ),
    "a setting past its place": (
        [("backend.extraEnv", [{"name": "DEVICE", "value": "cpu"}])],
        ["backend.extraEnv names DEVICE", "Set backend.env.DEVICE"],
    ),
    "a setting past its place, which is empty": (
        [("labelStudio.extraEnv", [{"name": "CSRF_TRUSTED_ORIGINS", "value": "https://a"}])],
        ["Set labelStudio.env.CSRF_TRUSTED_ORIGINS"],
    ),
    "a variable that the chart makes": (
        [("labelStudio.extraEnv", [{"name": "DJANGO_DB", "value": "postgresql"}])],
        ["labelStudio.extraEnv names DJANGO_DB", "Take it out"],
    ),
    "a variable twice": (
        [("backend.extraEnv", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])],
        ["backend.extraEnv names A a second time", "Take it out"],
    ),
    "a list of hosts that only the cluster knows": (
        [("backend.extraEnv", [{"name": "no_proxy", "valueFrom": {"configMapKeyRef": {}}}])],
        ["backend.extraEnv has no_proxy by valueFrom", "Give its value"],
    ),
    "a password in an address": (
        [("models.download.files", [{"name": "yolov8n.pt", "url": "https://me:secret@a.example/b.pt",
                                     "sha256": "0" * 64}])],
        ["the url of yolov8n.pt", "Take them out", "models.type=claim"],
    ),
    "weights of no claim": (
        [("models.type", "claim")], ["models.claim.existingClaim", "copy them in"],
    ),
    "weights of no image": ([("models.type", "image")], ["models.image.reference"]),
    "models that are no YAML": ([("models.config", "coco: ["), ("setup.demo", False)],
                                ["models.config is not YAML"]),
    "no models": ([("models.config", ""), ("setup.demo", False)], ["models.config is empty"]),
    "a model without weights": (
        [("models.config", "a: {conf: 0.3}"), ("setup.demo", False)],
        ["model a without weights", "a: {weights: <file>.pt}"],
    ),
    "weights that nobody fetches": (
        [("models.config", "a: {weights: a.pt}"), ("setup.demo", False)],
        ["weights a.pt", "models.download.files"],
    ),
    "a folder without a name": ([("datasets.type", "hostPath")], ["datasets.hostPath.path"]),
    "half an NFS share": (
        [("datasets.type", "nfs"), ("datasets.nfs.server", "nas")],
        ["datasets.nfs.server", "nas", "datasets.nfs.path"],
    ),
    "images of no bucket": (
        [("datasets.type", "s3"), ("setup.demo", False)], ["datasets.s3.bucket"],
    ),
    "the demo on a read-only share": (
        [("datasets.type", "claim"), ("datasets.readOnly", True)],
        ["setup.demo=true", "read-only", "setup.demo=false"],
    ),
    "the demo without its model": (
        [("models.config", "a: {weights: yolov8n.pt}")], ["coco", "has: a", "setup.demo=false"],
    ),
    "the demo with a class of one's own": (
        [("backend.env.MODEL_CLASS", "model:Mine")], ["model:Mine", "setup.demo=false"],
    ),
    "a backup of what only one pod has": (
        [("backup.enabled", True), ("labelStudio.persistence.enabled", False)],
        ["backup.enabled=true", SQLITE, "labelStudio.persistence.enabled=true"],
    ),
    "a backup of a claim for one pod": (
        [("backup.enabled", True), ("labelStudio.persistence.accessModes", ["ReadWriteOncePod"])],
        ["labelStudio.persistence.accessModes=[ReadWriteOncePod]", "ReadWriteMany"],
    ),
    "a backup of the backend's claim for one pod": (
        [("backup.enabled", True), ("backend.cache.enabled", True),
         ("backend.cache.accessModes", ["ReadWriteOncePod"])],
        ["backend.cache.accessModes", "backup.cache=false"],
    ),
    "a backup of no images": (
        [("backup.enabled", True), ("backup.datasets", True)],
        ["datasets.type", "backup.datasets=false"],
    ),
    "a backup in two places": (
        [("backup.enabled", True), ("backup.s3.bucket", "b"),
         ("backup.persistence.existingClaim", "c")],
        ["backup.s3.bucket=b", "backup.persistence.existingClaim=c", "Unset one"],
    ),
    "a project that nobody reads": (
        [("projects", {"yard.txt": "title: x"})], ["yard.txt", ".yaml"],
    ),
    "a project that nobody makes": (
        [("projects", {"yard.yaml": "title: x"}), ("setup.enabled", False)], ["setup.enabled=true"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_fix(name, tmp_path):
    pairs, words = FAULTS[name]
    (fault,) = refusal(tmp_path, joined(*pairs))
    assert [word for word in words if word not in fault] == []
    assert "secret@" not in fault


def test_all_faults_are_named_at_once(tmp_path):
    values = joined(
        ("labelStudio.replicas", 2), ("ingress.enabled", True), ("models.type", "claim"),
        ("datasets.type", "hostPath"), ("multus.enabled", True),
    )  # fmt: skip
    assert len(refusal(tmp_path, values)) == 6


# What the schema refuses before a template is asked.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("labelStudio.replica", 2),
        ("backend.env.MODEL_SCORE_TRESHOLD", "0.3"),
        ("backend.gpu.enabled", "yes"),
        ("models.type", "hub"),
        ("labelStudio.image.digest", "sha256:short"),
        ("backend.service.port", 99999),
        ("datasets.hostPath.path", "relative"),
        ("datasets.s3.auth", "secret"),
        ("nameOverride", "My_App"),
        ("fullnameOverride", "1st"),
        ("fullnameOverride", "labels-"),
        ("backend.extraEnv", [{"name": "RETRIES", "value": 3}]),
    ],
)
def test_a_misspelt_or_mistyped_value_is_refused_by_its_name(path, value, tmp_path):
    (said,) = refusal(tmp_path, joined((path, value)))
    assert path.rpartition(".")[2] in said


def test_projects_may_wait_while_label_studio_stands_still(tmp_path):
    """As docs/kubernetes.md says for another Postgres."""
    values = joined(
        ("projects", {"yard.yaml": "title: x"}), ("setup.enabled", False),
        ("labelStudio.replicas", 0), ("postgres.enabled", True),
    )  # fmt: skip
    assert refusal(tmp_path, values) == []


@pytest.mark.parametrize("name", ["a", "labels-2", "2nd"])
def test_names_that_the_api_server_takes_are_taken(name, tmp_path):
    assert refusal(tmp_path, {"nameOverride": name}) == []


def test_an_at_sign_in_the_path_of_an_address_is_no_password(tmp_path):
    file = {"name": "yolov8n.pt", "url": "https://a.example/b@1.pt", "sha256": "0" * 64}
    assert refusal(tmp_path, joined(("models.download.files", [file]))) == []


def test_the_defaults_are_taken(tmp_path):
    assert refusal(tmp_path, {}) == []
