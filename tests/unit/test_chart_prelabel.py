"""The Jobs of prelabel and doctor: what their pods are, and that the chart and `ls-yolo prelabel
--kubernetes` make the same."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from dev import render_chart
from ls_yolo.jobs import kubernetes
from rendering import joined

COMPONENT = "app.kubernetes.io/component"
MANY = ["ReadWriteMany"]
ON = [("prelabel.enabled", True), ("prelabel.projects", ["Wheelhouse"])]
GPU = [("backend.gpu.enabled", True), ("backend.gpu.count", 2),
       ("backend.runtimeClassName", "nvidia"),
       ("backend.nodeSelector", {"nvidia.com/gpu.present": "true"})]  # fmt: skip
QUOTA = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}


@pytest.fixture
def rendered(tmp_path):
    """What the chart makes of pairs of values, by kind and component, in order."""

    def make(*pairs):
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(joined(*pairs)))
        found = {}
        for made in yaml.safe_load_all(render_chart.render([file])):
            if made:
                key = made["kind"], made["metadata"]["labels"].get(COMPONENT, "")
                found.setdefault(key, []).append(made)
        return found

    return make


@pytest.fixture
def job(rendered):
    """The one Job of prelabel that values make."""

    def make(*pairs):
        (found,) = rendered(*ON, *pairs)["Job", "prelabel"]
        return found

    return make


def container(job):
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return found


def env(container):
    names = [row["name"] for row in container["env"]]
    assert len(set(names)) == len(names), "a variable twice"
    return {row["name"]: row.get("value", row.get("valueFrom")) for row in container["env"]}


def test_there_is_no_job_unless_asked_for(rendered):
    assert not {("Job", "prelabel"), ("CronJob", "doctor")} & set(rendered())


def test_a_shard_that_fails_ends_alone_and_a_lost_node_counts_for_nothing(job):
    spec = job(("prelabel.shards", 8), ("prelabel.parallelism", 2))["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 8, 2)
    assert spec["backoffLimitPerIndex"] == 6
    # Alpha in the oldest Kubernetes that the chart takes; and one failed shard must not end it.
    assert not {"successPolicy", "maxFailedIndexes", "backoffLimit"} & set(spec)
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "what podFailurePolicy asks for"
    lost, hopeless = spec["podFailurePolicy"]["rules"]
    assert lost == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert hopeless["action"] == "FailIndex"
    assert hopeless["onExitCodes"]["containerName"] == "prelabel"
    codes = hopeless["onExitCodes"]["values"]
    assert {1, 77, 78} <= set(codes), "tasks that failed, a refused token, a faulty file"
    assert not {69, 75, 130, 137, 143} & set(codes), "these may go better the next time"


def test_every_pod_has_its_share_of_the_tasks_and_a_model_of_its_own(job):
    found = container(job(("prelabel.shards", 3), ("prelabel.options", ["--model", "a b"])))
    assert found["command"] == ["ls-yolo"]
    assert found["args"] == [
        "prelabel", "--here", "--shard", "$(JOB_COMPLETION_INDEX)/3", "--model", "a b", "--",
        "Wheelhouse",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("project", "word"),
    [
        (7, "7"),
        ("--help", "--help"),
        ('a "b"; c', 'a "b"; c'),
        # Kubernetes makes $$ to $, and would have put the variable in.
        ("$(LABEL_STUDIO_API_KEY)", "$$(LABEL_STUDIO_API_KEY)"),
    ],
)
def test_a_title_is_a_word_whatever_is_in_it(rendered, project, word):
    values = [("prelabel.enabled", True), ("prelabel.projects", [project])]
    (made,) = rendered(*values)["Job", "prelabel"]
    assert container(made)["args"][-2:] == ["--", word]
    assert made["metadata"]["annotations"]["ls-yolo/project"] == str(project)


def test_a_pod_has_what_the_backends_has_and_is_none_of_its_service(rendered):
    found = rendered(*ON)
    (made,), (deployment,) = found["Job", "prelabel"], found["Deployment", "backend"]
    pod, backend = made["spec"]["template"], deployment["spec"]["template"]
    ours, theirs = container(made), backend["spec"]["containers"][0]
    for key in ("image", "securityContext", "volumeMounts", "resources"):
        assert ours[key] == theirs[key], key
    assert env(ours) == {**env(theirs), "BACKEND_URL": "http://ls-yolo-backend:9090"}
    for key in ("securityContext", "initContainers", "serviceAccountName"):
        assert pod["spec"][key] == backend["spec"][key], key
    assert pod["spec"]["automountServiceAccountToken"] is False
    for service in found["Service", "backend"]:
        assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert not {"livenessProbe", "readinessProbe", "startupProbe", "ports", "lifecycle"} & set(ours)


def test_what_pods_write_is_not_one_file(job):
    made = job(("backend.cache.enabled", True), ("backend.cache.accessModes", MANY))
    volumes = {volume["name"]: volume for volume in made["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"] == {"name": "data", "emptyDir": {}}


@pytest.mark.parametrize(
    ("pairs", "gpus"),
    [
        ([], None),
        (GPU, 2),
        ([*GPU, ("prelabel.gpu.enabled", False)], None),
        ([("prelabel.gpu.enabled", True)], 1),
    ],
)
def test_gpus_are_those_of_the_backend_or_as_asked(job, pairs, gpus):
    made = job(*pairs)
    assert container(made)["resources"]["limits"].get("nvidia.com/gpu") == gpus
    taints = made["spec"]["template"]["spec"].get("tolerations", [])
    assert ("nvidia.com/gpu" in {taint["key"] for taint in taints}) is bool(gpus)


def test_a_gpu_asked_for_here_is_not_the_backends(rendered):
    found = rendered(*ON, ("prelabel.gpu.enabled", True), ("prelabel.nodeSelector", {"gpu": "yes"}),
                     ("prelabel.resources", QUOTA))  # fmt: skip
    (deployment,) = found["Deployment", "backend"]
    pod = deployment["spec"]["template"]["spec"]
    assert "nodeSelector" not in pod
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]
    (made,) = found["Job", "prelabel"]
    assert made["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert container(made)["resources"]["limits"] == {"cpu": "2", "nvidia.com/gpu": 1}


def test_kueue_finds_the_job_by_a_label_alone(job):
    label = "kueue.x-k8s.io/queue-name"
    assert label not in job()["metadata"]["labels"]
    made = job(("prelabel.queue", "gpus"))
    assert made["metadata"]["labels"][label] == "gpus"
    assert "suspend" not in made["spec"], "Kueue does that itself"


def test_an_address_of_the_backends_own_is_not_that_of_many_pods(job):
    multus = [("multus.enabled", True), ("multus.master", "eth1"),
              ("multus.backendAddress", "192.0.2.11/24")]  # fmt: skip
    assert "annotations" not in job(*multus)["spec"]["template"]["metadata"]


def names(found):
    return [made["metadata"]["name"] for made in found["Job", "prelabel"]]


def test_a_job_each_project_and_another_for_each_change(rendered):
    two = [("prelabel.enabled", True), ("prelabel.projects", ["one", "two"])]
    before = names(rendered(*two))
    assert len(set(before)) == 2
    assert names(rendered(*two)) == before
    after = names(rendered(*two, ("models.config", "coco: {weights: yolov8n.pt, conf: 0.4}"),
                           ("prelabel.shards", 5)))  # fmt: skip
    assert not set(before) & set(after)


def test_a_pods_host_name_is_one_with_the_longest_release_and_the_most_shards(job):
    made = job(("fullnameOverride", "a" * 60), ("prelabel.shards", 9999))
    assert len(f"{made['metadata']['name']}-9998") <= 63


@pytest.mark.parametrize(
    ("pairs", "group"),
    [
        ([("datasets.type", "claim")], "datasets"),
        ([("datasets.type", "claim"), ("datasets.claim.accessModes", MANY)], None),
        ([("backend.cache.enabled", True)], None),
    ],
)
def test_pods_that_share_a_volume_of_one_node_stay_with_it(job, pairs, group):
    pod = job(*pairs)["spec"]["template"]
    assert pod["metadata"]["labels"].get("ls-yolo/volume-group") == group
    assert ("affinity" in pod["spec"]) is bool(group)


# The chart, and the command


def by_command(deployment, **wanted):
    """The Job that the command makes for what the chart has made, as of a cluster."""
    there = copy.deepcopy(deployment)
    there["metadata"]["uid"] = "7a1c"
    wanted = kubernetes.Wanted(**{"project": "Wheelhouse", "shards": 4, **wanted})
    return kubernetes.manifest(there, "http://ls-yolo-backend:9090", wanted)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        GPU,
        [("datasets.type", "claim")],
        [("prelabel.queue", "gpus"), ("prelabel.options", ["--where", '{"a": "$(b)"}'])],
        [("backend.extraEnv", [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]),
         ("backend.podAnnotations", {"sidecar.istio.io/inject": "false"}),
         ("backend.podLabels", {"team": "vision"}),
         ("backend.topologySpreadConstraints", [{"maxSkew": 1, "topologyKey": "zone",
                                                 "whenUnsatisfiable": "DoNotSchedule"}])],
        [("backend.cache.enabled", True), ("backend.cache.accessModes", MANY)],
    ],
    ids=["cpu", "gpu", "one node", "queue", "extras", "cache"],
)  # fmt: skip
def test_the_command_makes_what_the_chart_makes(rendered, pairs):
    found = rendered(*ON, *pairs)
    (charts,), (deployment,) = found["Job", "prelabel"], found["Deployment", "backend"]
    values = joined(*pairs).get("prelabel", {})
    made = by_command(deployment, queue=values.get("queue", ""), options=values.get("options", ()))
    assert made["spec"].pop("ttlSecondsAfterFinished") > 0, "Helm takes the chart's away"
    assert made["spec"] == charts["spec"]
    key = "kueue.x-k8s.io/queue-name"
    assert made["metadata"]["labels"].get(key) == charts["metadata"]["labels"].get(key)
    assert re.fullmatch(r"ls-yolo-prelabel-[0-9a-f]{8}", made["metadata"]["name"])


def test_policies_let_the_commands_pods_pass_without_a_job_of_the_charts(rendered):
    found = rendered()
    (policy,) = found["NetworkPolicy", "prelabel"]
    pod = by_command(found["Deployment", "backend"][0])["spec"]["template"]
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= pod["metadata"]["labels"].items()


# doctor


def test_the_doctor_looks_when_asked_to_and_neither_helm_nor_a_hook_waits_for_it(rendered):
    (found,) = rendered(("doctor.enabled", True))["CronJob", "doctor"]
    assert "annotations" not in found["metadata"]
    assert found["spec"]["suspend"] is True
    made = found["spec"]["jobTemplate"]
    assert made["spec"]["backoffLimit"] == 0
    spec = made["spec"]["template"]["spec"]
    assert container(made)["command"] == ["ls-yolo", "doctor"]
    assert container(made)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    found = env(container(made))
    assert {"LABEL_STUDIO_URL", "BACKEND_URL", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS"} <= set(
        found
    )
    assert {mount["mountPath"] for mount in container(made)["volumeMounts"]} == {
        "/tmp", "/datasets",
    }  # fmt: skip


def test_the_doctor_looks_by_itself_where_there_is_a_schedule(rendered):
    values = ("doctor.enabled", True), ("doctor.schedule", "30 5 * * 1")
    (found,) = rendered(*values)["CronJob", "doctor"]
    assert (found["spec"]["schedule"], found["spec"]["suspend"]) == ("30 5 * * 1", False)
