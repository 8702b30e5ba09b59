"""Values of charts/ls-yolo/ci install on a real cluster, in namespaces that enforce restricted pod
security, and have predictions stored in Label Studio. These are counted there, and are still there
after an upgrade, a rollback, and an installation anew on what was left. Files that are not here are
installed by the other tests of this folder; one below sees to that.

Here: a database and weights from elsewhere, under quotas, by Helm 3.
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


WEIGHTS = {
    "name": "yolov8n.pt", "url": "http://mirror/yolov8n.pt",
    "sha256": "31e20dde3def09e2cf938c7be6fe23d9150bbbe503982af13345706515f2ef95",
}  # fmt: skip


def service(name, port, target):
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]},
    }  # fmt: skip


def pod(name, user, **container):
    """A pod beside the release, which the Service of its name finds."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": user, "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": name,
                "securityContext": {
                    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                },
                **container,
            }],
            "volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "weights"}}],
        },
    }  # fmt: skip


@pytest.fixture(scope="class")
def release(make, images):
    database, backend = (
        next(name for name in images.values() if f"/{image}:" in name)
        for image in ("postgres", "backend")
    )
    made = make(
        ["external-postgres", "restricted"],
        {
            "models": {"type": "download", "download": {"files": [WEIGHTS]}},
            "networkPolicy": {"backend": {"egress": [{"ports": [{"port": 8000}]}]}},
            "labelStudio": {"podSecurityContext": GIVEN_IDS},
            "backend": {"podSecurityContext": GIVEN_IDS},
        },
        objects=[
            secret("database", POSTGRES_PASSWORD=PASSWORD),
            service("database", 5432, 5432),
            pod("database", 999, image=database, env=[
                {"name": "POSTGRES_USER", "value": "labelstudio"},
                {"name": "POSTGRES_PASSWORD", "value": PASSWORD},
            ]),
            service("mirror", 80, 8000),
            pod("mirror", 1001, image=backend,
                command=["python", "-m", "http.server", "8000", "-d", "/weights"],
                volumeMounts=[{"name": "weights", "mountPath": "/weights"}]),
        ],
    )  # fmt: skip
    # From here on no container without requests and limits of both is taken; those two have none.
    kubernetes.apply({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "all", "namespace": made.namespace},
        "spec": {"hard": {"requests.cpu": "8", "requests.memory": "16Gi",
                          "limits.cpu": "16", "limits.memory": "64Gi"}},
    })  # fmt: skip
    made.helm_program = HELM3
    return made


class TestElsewhere:
    """In this order, each going on from where the one before it has stopped."""

    def test_helm_3_installs_with_weights_that_are_downloaded(self, release):
        """Weights come from an address, checked by their hash."""
        release.install()
        release.test()
        release.counted()

    def test_the_predictions_are_in_the_external_postgres(self, release):
        rows = release.kubectl(
            "exec", "database", "--", "psql", "-U", "labelstudio", "-tAc",
            "SELECT count(*) FROM prediction",
        )  # fmt: skip
        assert int(rows) == len(release.counted()), "and in no other"

    def test_the_quota_counts_and_only_the_tests_pod_has_a_token(self, release):
        used = kubernetes.get("resourcequota", "all", "-n", release.namespace)["status"]["used"]
        assert used["limits.cpu"] != "0", "the quota counts"
        for found in release.get("pods"):
            mounted = [
                m["mountPath"] for c in found["spec"]["containers"] for m in c["volumeMounts"]
            ]
            token = "/var/run/secrets/kubernetes.io/serviceaccount"
            component = found["metadata"]["labels"]["app.kubernetes.io/component"]
            assert token not in mounted or component == "test"

    def test_what_is_stored_outlives_upgrades_and_the_release(self, release):
        # The same weights in another file: what is stored stays right; without it is no model.
        release.live(other={
            "models": {
                "download": {"files": [{**WEIGHTS, "name": "renamed.pt"}]},
                "config": {"coco": {"weights": "renamed.pt", "conf": 0.25}},
            },
            "labelStudio": {"env": {"LABEL_STUDIO_THREADS": "9"}},
        })  # fmt: skip
