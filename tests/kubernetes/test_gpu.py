"""GPUs: a pod gets one, or waits for one and `helm test` says so.

Scheduling is what is tested: ENGINE and DEVICE are left at auto, so a node that offers GPUs and has
none behind the offer answers by its CPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import kubernetes
from release import HELM, HELM3, NAME, Release, lacking, namespace, until

pytestmark = pytest.mark.kubernetes
RESOURCE = "nvidia.com/gpu"


def test_pods_get_a_gpu_each_and_one_too_many_waits_and_is_named(make):
    gpus = sum(
        int(node["status"]["allocatable"].get(RESOURCE, 0))
        for node in kubernetes.get("nodes")["items"]
    )
    if not gpus:
        lacking(f"no node offers {RESOURCE}; `kube up --gpus 2` or a device plugin gives some")
    runtimes = [item["metadata"]["name"] for item in kubernetes.get("runtimeclasses")["items"]]
    if "nvidia" not in runtimes:
        lacking("the cluster has no RuntimeClass nvidia; the GPU Operator makes it")
    release = make(["gpu"], {"backend": {"replicas": gpus}})
    release.install()
    release.test()
    release.counted()
    for pod in release.ready("backend"):
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        assert pod["spec"]["containers"][0]["resources"]["limits"][RESOURCE] == "1"
    release.live()

    release.helm(
        "upgrade", "ls-yolo", str(release.chart), "--reuse-values", "--no-hooks",
        "--set", f"backend.replicas={gpus + 1}",
    )  # fmt: skip
    (waiting,) = until(
        lambda: [
            pod for pod in release.pods("backend")
            if any(c.get("reason") == "Unschedulable" for c in pod["status"].get("conditions", []))
        ],
        60, "a pod that waits",
    )  # fmt: skip
    assert len(release.ready("backend")) == gpus, "the others go on"
    done = release.test(check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert waiting["metadata"]["name"] in said
    assert f"Insufficient {RESOURCE}" in said
    assert "backend.replicas" in said, "the fix"


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
