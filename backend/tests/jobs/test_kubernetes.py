"""What is told of a Job, from what the API says of it. tests/kubernetes has a real cluster."""

from __future__ import annotations

import json
import os

import pytest

from ls_yolo.jobs.kubernetes import (
    Cluster,
    ClusterError,
    Refused,
    Shard,
    Wanted,
    arguments,
    described,
    ended,
    ending,
    follow,
    indexes,
    manifest,
    outcome,
    progress,
    run,
    shards,
    summary,
    trouble,
)

DEPLOYMENT = {
    "metadata": {"name": "a-ls-yolo-backend", "namespace": "labels", "uid": "1"},
    "spec": {
        "template": {
            "metadata": {
                "labels": {
                    "app.kubernetes.io/component": "backend",
                    "app.kubernetes.io/instance": "a",
                },
                "annotations": {
                    "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z",
                    "sidecar.istio.io/inject": "false",
                },
            },
            "spec": {
                "containers": [
                    {"name": "proxy", "image": "p"},
                    {"name": "backend", "image": "b", "ports": [{"containerPort": 9090}]},
                ],
            },
        }
    },
}


def pod(index=0, **status):
    key = "batch.kubernetes.io/job-completion-index"
    return {"metadata": {"name": f"p-{index}", "annotations": {key: str(index)}}, "status": status}


def failed(code, message, kind="containerStatuses"):
    state = {"terminated": {"exitCode": code, "message": message, "reason": "Error"}}
    return pod(2, phase="Failed", **{kind: [{"state": state}]})


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, set()), ("", set()), ("3", {3}), ("0,2-4,9", {0, 2, 3, 4, 9}), ("0-1", {0, 1})],
)
def test_numbers_of_shards_are_read_as_the_api_writes_them(text, found):
    assert indexes(text) == found


def test_a_restart_of_the_backend_makes_no_other_job_and_what_people_annotate_stays():
    made = manifest(DEPLOYMENT, "http://b:9090", Wanted("Yard", 2))
    template = made["spec"]["template"]
    assert template["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert [container["name"] for container in template["spec"]["containers"]] == ["prelabel"]
    assert DEPLOYMENT["spec"]["template"]["spec"]["containers"][1]["name"] == "backend"


def test_the_same_wish_has_the_same_name_and_another_wish_another():
    def name(**wish):
        made = manifest(
            DEPLOYMENT, "http://b:9090", Wanted(**{"project": "Yard", "shards": 2} | wish)
        )
        return made["metadata"]["name"]

    assert name() == name()
    others = [name(project="Other"), name(shards=3), name(options=["--retry"]), name(queue="q")]
    assert len({name(), *others}) == 5


def test_a_job_goes_when_its_release_does():
    (owner,) = manifest(DEPLOYMENT, "http://b:9090", Wanted("Yard", 2))["metadata"][
        "ownerReferences"
    ]
    assert owner == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a-ls-yolo-backend",
                     "uid": "1"}  # fmt: skip


def test_pods_stand_beside_the_backend_where_a_claim_is_of_one_node():
    def affinity(one_node):
        made = manifest(DEPLOYMENT, "http://b:9090", Wanted("Yard", 2), one_node)
        return made["spec"]["template"]["spec"].get("affinity")

    assert affinity(False) is None
    (term,) = affinity(True)["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == {
        "app.kubernetes.io/instance": "a", "app.kubernetes.io/component": "backend",
    }  # fmt: skip


def test_a_deployment_of_something_else_is_refused_with_what_was_found():
    other = {**DEPLOYMENT, "spec": {"template": {"metadata": {"labels": {}}, "spec": {
        "containers": [{"name": "web"}]}}}}  # fmt: skip
    with pytest.raises(ClusterError, match=r"containers web .* expected one called backend"):
        manifest(other, "http://b:9090", Wanted("Yard", 2))


def test_no_word_of_a_project_is_an_option_or_a_variable():
    words = arguments(Wanted("--x $(PORT)", 3, ["--where", "$(Y)"]))
    assert words[-4:] == ["--where", "$$(Y)", "--", "--x $$(PORT)"]


def job(**status):
    return {"metadata": {"labels": {}}, "spec": {"completions": 4}, "status": status}


def test_progress_counts_shards():
    found = job(completedIndexes="0,2", failedIndexes="3", active=1)
    assert progress(found) == "4 shards: 2 complete, 1 failed, 1 under way"
    assert progress(job()) == "4 shards: 0 complete, 0 failed, 0 under way"


def test_a_job_that_kueue_holds_back_is_said_to_wait():
    found = job()
    found["spec"]["suspend"] = True
    found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
    assert progress(found) == "suspended, waits in the queue gpus"


@pytest.mark.parametrize(
    ("kind", "status", "end"),
    [
        ("Complete", "True", True),
        ("Failed", "True", True),
        ("FailureTarget", "True", False),  # pods still run
        ("Complete", "False", False),
        ("Suspended", "True", False),
    ],
)
def test_a_job_has_ended_when_it_says_so(kind, status, end):
    assert ended(job(conditions=[{"type": kind, "status": status}])) is end


NO_GPU = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
}  # fmt: skip


def waits(reason, **more):
    return {"state": {"waiting": {"reason": reason, **more}}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod(1, conditions=[NO_GPU]), ["shard 1 waits for a node", "Insufficient nvidia.com/gpu"]),
        (pod(1, containerStatuses=[waits("ErrImagePull", message="no such image")]),
         ["shard 1 waits: ErrImagePull", "no such image"]),
        (pod(1, initContainerStatuses=[waits("CreateContainerConfigError", message="secret")]),
         ["CreateContainerConfigError", "secret"]),
        (failed(78, 'note\nerror: models.yaml: line 1\n{"done": 3}\n'),
         ["shard 2: p-2 failed with exit code 78: error: models.yaml: line 1"]),
        (failed(1, "no such host", "initContainerStatuses"), ["exit code 1: no such host"]),
        (pod(1, phase="Failed", reason="Evicted", message="The node was low on memory"),
         ["shard 1: p-1 failed: The node was low on memory"]),
    ],
)  # fmt: skip
def test_a_pod_that_waits_or_failed_is_named_with_the_reason(found, words):
    said = trouble(found)
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    "found",
    [
        pod(phase="Pending", containerStatuses=[waits("PodInitializing")]),
        pod(phase="Pending", containerStatuses=[waits("ContainerCreating")]),
        pod(phase="Running", containerStatuses=[{"state": {"running": {}}}]),
        pod(phase="Succeeded"),
    ],
)
def test_of_a_pod_that_starts_runs_or_is_done_nothing_is_said(found):
    assert trouble(found) == ""


def test_what_a_pod_said_last_is_what_is_for_people():
    log = 'a\nb\n{"done": 1}\n  task 7: not an image\nYard: 3 of 4 tasks predicted\n{"done": 3}\n\n'
    assert ending(log) == "a\nb\n  task 7: not an image\nYard: 3 of 4 tasks predicted"
    assert ending("\n".join(map(str, range(20)))).splitlines()[0] == "14"
    assert ending("") == ""


def test_a_pod_that_was_killed_has_its_code_and_the_reason():
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert outcome(pod(containerStatuses=[{"state": state}])) == (137, "OOMKilled")


ENDED = [
    Shard(0, "complete", "p-0", 0, "Yard: 5 tasks, each with a stored prediction"),
    Shard(1, "failed", "p-1", 1, "warning\n  task 7: not an image"),
    Shard(2, "stopped"),
]


def test_the_report_names_what_failed_why_and_what_to_do():
    lines = "\n".join(summary("j", "labels", ENDED))
    assert "shard 1 failed with exit code 1: warning\n      task 7: not an image" in lines
    assert "shard 2 stopped\n" in lines
    assert "2 of 3 shards are not complete" in lines
    assert "kubectl -n labels logs p-1" in lines
    assert summary("j", "labels", ENDED[:1])[-1] == "job/j: complete"


def test_the_report_for_machines_has_every_shard():
    found = described(Wanted("Yard", 3), "j", ENDED)
    assert found["complete"] is False
    assert [row["state"] for row in found["shards"]] == ["complete", "failed", "stopped"]
    assert found["shards"][1]["exit_code"] == 1
    assert described(Wanted("Yard", 1), "j", ENDED[:1])["complete"] is True


def test_without_kubectl_the_ways_to_get_it_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"found no kubectl.*make helm-prelabel"):
        Cluster().kubectl("version")


def test_no_pods_is_no_number_of_pods():
    with pytest.raises(ClusterError, match=r"--kubernetes 0: expected at least one"):
        run(Wanted("Yard", 0), print)


# What a cluster says by kubectl: `says` is a file with an exit code and what goes with it, for each
# call of `get`; the last one stays.
KUBECTL = """#!/bin/sh
case $1 in
get)
    line=$(head -n 1 "$0.says"); [ "$(wc -l <"$0.says")" = 1 ] || sed -i 1d "$0.says"
    case $line in
    "{"*) echo "$line" ;;
    *) echo "$line" >&2; exit 1 ;;
    esac ;;
logs) echo "of the log" ;;
esac
"""
AWAY = "Unable to connect to the server: dial tcp 192.0.2.1:6443: i/o timeout"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster whose kubectl answers each ``get`` with the next line."""
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def says(*lines):
        text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / "kubectl.says").write_text("".join(f"{line}\n" for line in text))
        return Cluster()

    return says


def gone(index, code=None, **status):
    """A pod that has ended; without a code none of its containers has."""
    if code is not None:
        state = {"terminated": {"exitCode": code, "message": "of the pod"}}
        status["containerStatuses"] = [{"state": state}]
    found = pod(index, **status)
    found["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    return found


DONE = job(conditions=[{"type": "Complete", "status": "True"}], completedIndexes="0-3")


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (gone(0, phase="Failed", reason="Evicted", message="low on memory"), None, "low on memory"),
        (gone(0, 1), 1, "of the pod"),
        (gone(0, 0), 0, "of the log"),
        (gone(0, phase="Failed"), None, "of the log"),
    ],
    ids=["evicted", "failed", "complete", "unknown"],
)
def test_why_a_shard_ended_is_what_its_pod_says_else_its_log(cluster, found, code, said):
    shard = shards(cluster(), DONE, [found])[0]
    assert (shard.exit_code, shard.said) == (code, said)


def test_a_cluster_that_is_away_for_a_while_is_said_to_be_once_each_time(cluster):
    lines = []
    pods = {"items": []}
    found = cluster(AWAY, AWAY, job(), pods, AWAY, DONE, pods)
    assert len(follow(found, "j", lines.append, 0)) == 4
    told = [line for line in lines if "i/o timeout" in line]
    assert len(told) == 2
    assert told[0].endswith("asked again for 300 s")


@pytest.mark.parametrize(
    "words",
    [
        'Error from server (Forbidden): jobs.batch "j" is forbidden: User "x" cannot get resource',
        "error: You must be logged in to the server (Unauthorized)",
    ],
)
def test_a_cluster_that_does_not_let_one_look_is_not_asked_again(cluster, words):
    with pytest.raises(Refused) as caught:
        follow(cluster(words, DONE), "j", print, 0)
    assert words in str(caught.value)
