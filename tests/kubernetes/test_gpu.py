"""GPUs: a pod gets one, or waits for one and `helm test` says so.

Scheduling is what is tested: DEVICE is left at auto, so a node that offers GPUs and has none behind
the offer answers by its CPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import kubernetes
from release import HELM, HELM3, NAME, Release, lacking, namespace, until

pytestmark = pytest.mark.kubernetes
RESOURCE = "nvidia.com/gpu"


@pytest.fixture(scope="class")
def gpus(reached):
    """How many GPUs the nodes offer."""
    found = sum(
        int(node["status"]["allocatable"].get(RESOURCE, 0))
        for node in kubernetes.get("nodes")["items"]
    )
    if not found:
        lacking(f"no node offers {RESOURCE}; a device plugin makes it (the GPU Operator has one)")
    runtimes = [item["metadata"]["name"] for item in kubernetes.get("runtimeclasses")["items"]]
    if "nvidia" not in runtimes:
        lacking("the cluster has no RuntimeClass nvidia; the GPU Operator makes it")
    return found


@pytest.fixture(scope="class")
def release(make, gpus):
    return make(["gpu"], {"backend": {"replicas": gpus}})


class TestGpus:
    """In this order, each going on from where the one before it has stopped."""

    def test_pods_get_a_gpu_each(self, release, gpus):
        release.install()
        release.test()
        release.counted()
        ready = release.ready("backend")
        assert len(ready) == gpus
        for pod in ready:
            assert pod["spec"]["runtimeClassName"] == "nvidia"
            assert pod["spec"]["containers"][0]["resources"]["limits"][RESOURCE] == "1"

    def test_what_is_stored_outlives_upgrades_without_a_spare_gpu_and_the_release(self, release):
        release.live(other={"backend": {"env": {"THREADS": "9"}}})

    def test_one_pod_too_many_waits_and_the_others_go_on(self, release, gpus):
        release.helm(
            "upgrade", "ls-yolo", str(release.chart), "--reuse-values", "--no-hooks",
            "--set", f"backend.replicas={gpus + 1}",
        )  # fmt: skip
        until(lambda: unschedulable(release), 60, "a pod that waits")
        assert len(release.ready("backend")) == gpus

    def test_helm_test_names_the_pod_that_waits_and_the_fix(self, release):
        (waiting,) = unschedulable(release)
        done = release.test(check=False)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert waiting["metadata"]["name"] in said
        assert f"Insufficient {RESOURCE}" in said
        assert "backend.replicas" in said


def unschedulable(release):
    return [
        pod for pod in release.pods("backend")
        if any(c.get("reason") == "Unschedulable" for c in pod["status"].get("conditions", []))
    ]  # fmt: skip


@pytest.mark.parametrize("helm", [HELM, HELM3], ids=["helm", "helm3"])
def test_a_release_goes_to_gpus_and_back_and_by_rollback_too(reached, helm):
    with namespace(f"t-to-gpu-{Path(helm).name}") as where:
        release = Release(where, [], helm_program=helm)

        def strategy(*words):
            release.helm(*words, "--no-hooks")
            return release.one("deployments", "backend")["spec"]["strategy"]["type"]

        def upgrade(gpu):
            # How pods are replaced is asked of the API server; no pod is needed for that.
            return strategy(
                "upgrade", "--install", NAME, str(release.chart), "--set",
                f"labelStudio.replicas=0,backend.replicas=0,backend.gpu.enabled={gpu}",
            )  # fmt: skip

        assert [upgrade(gpu) for gpu in ("false", "true", "false")] == [
            "RollingUpdate", "Recreate", "RollingUpdate",
        ]  # fmt: skip
        assert strategy("rollback", NAME, "2") == "Recreate"
        assert strategy("rollback", NAME, "1") == "RollingUpdate"
        release.uninstall()
