"""Values of charts/ls-yolo/ci install on a real cluster, in namespaces that enforce restricted pod
security, and have predictions stored in Label Studio. These are counted there, and are still there
after an upgrade, a rollback, and an installation anew on what was left. Files that are not here are
installed by the other tests of this folder; one below sees to that.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from cluster import kubernetes
from release import CHART, HELM3

pytestmark = pytest.mark.kubernetes

PASSWORD = "of-the-tests-9f2c"
# What OpenShift puts into pods that ask for no ids: a user of the namespace's own, in the group 0.
GIVEN_IDS = {"runAsUser": 1000650000, "runAsGroup": 0, "fsGroup": 1000650000}


def secret(name, **data):
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def test_every_file_of_values_is_installed_by_some_test():
    there = {path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir()}
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    used = set(re.findall(r'"([a-z-]+)"', " ".join(re.findall(r"make\(\s*\[([^\]]*)\]", text))))
    assert used == there


def test_external_postgres_by_helm_3(make, images):
    image = next(name for name in images.values() if "/postgres:" in name)
    labels = {"app": "database"}
    release = make(
        ["external-postgres"],
        claims={"database": {}},
        objects=[
            secret("database", POSTGRES_PASSWORD=PASSWORD),
            {
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "database"},
                "spec": {"selector": labels, "ports": [{"port": 5432}]},
            },
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "database", "labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": 999, "fsGroup": 999,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "postgres", "image": image,
                        "env": [
                            {"name": "POSTGRES_USER", "value": "labelstudio"},
                            {"name": "POSTGRES_PASSWORD", "value": PASSWORD},
                        ],
                        "securityContext": {
                            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        ],
    )  # fmt: skip
    release.helm_program = HELM3
    release.install()
    release.test()
    stored = release.counted()
    rows = release.kubectl(
        "exec", "database", "--", "psql", "-U", "labelstudio", "-tAc",
        "SELECT count(*) FROM prediction",
    )  # fmt: skip
    assert int(rows) == len(stored), "the predictions are in that database and in no other"
    release.live()


def test_restricted_with_weights_that_are_downloaded(make, images, demo_files):
    """Weights come from an address, checked by their hash; here from a pod beside the release."""
    image = next(name for name in images.values() if "/backend:" in name)
    weights = {
        "name": "yolov8n.pt", "url": "http://mirror/yolov8n.pt",
        "sha256": "31e20dde3def09e2cf938c7be6fe23d9150bbbe503982af13345706515f2ef95",
    }  # fmt: skip
    release = make(
        ["restricted"],
        {
            "models": {"type": "download", "download": {"files": [weights]}},
            "networkPolicy": {"backend": {"egress": [{"ports": [{"port": 8000}]}]}},
            "labelStudio": {"podSecurityContext": GIVEN_IDS},
            "backend": {"podSecurityContext": GIVEN_IDS},
        },
        objects=[
            {
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "mirror"},
                "spec": {"selector": {"app": "mirror"},
                         "ports": [{"port": 80, "targetPort": 8000}]},
            },
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "mirror", "labels": {"app": "mirror"}},
                "spec": {
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": 1001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "mirror", "image": image,
                        "command": ["python", "-m", "http.server", "8000", "-d", "/weights"],
                        "securityContext": {
                            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [{"name": "weights", "mountPath": "/weights"}],
                    }],
                    "volumes": [
                        {"name": "weights", "persistentVolumeClaim": {"claimName": "weights"}}
                    ],
                },
            },
        ],
    )  # fmt: skip
    # From here on no container without requests and limits of both is taken; the mirror has none.
    kubernetes.apply({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "all", "namespace": release.namespace},
        "spec": {"hard": {"requests.cpu": "8", "requests.memory": "16Gi",
                          "limits.cpu": "16", "limits.memory": "64Gi"}},
    })  # fmt: skip
    release.install()
    release.test()
    release.counted()
    used = kubernetes.get("resourcequota", "all", "-n", release.namespace)["status"]["used"]
    assert used["limits.cpu"] != "0", "the quota counts"
    for pod in release.get("pods"):
        mounted = [m["mountPath"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]]
        token = "/var/run/secrets/kubernetes.io/serviceaccount"
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        assert token not in mounted or component == "test"
    # The same weights in another file: what is stored stays right; without it there is no model.
    release.live(other={"models": {
        "download": {"files": [{**weights, "name": "renamed.pt"}]},
        "config": {"coco": {"weights": "renamed.pt", "conf": 0.25}},
    }})  # fmt: skip
