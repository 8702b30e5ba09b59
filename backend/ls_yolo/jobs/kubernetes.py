"""`ls-yolo prelabel --kubernetes N`: a Job whose N pods have a share of a project's tasks each.

A pod is one of the release's backend, as its Deployment says, with another command: the same image,
models, images, GPU, token. What the chart makes of its values ``prelabel`` is the same Job. The
cluster is the one of kubectl's current context, and kubectl is what asks it.

Standard library only: ``make helm-prelabel`` runs it where the backend's packages are not.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COMPONENT, INSTANCE, PART_OF = (
    f"app.kubernetes.io/{name}" for name in ("component", "instance", "part-of")
)
QUEUE = "kueue.x-k8s.io/queue-name"
"""The label by which Kueue knows whose turn a Job waits for; it needs nothing else."""
RETRIES = 6
"""More tries of a shard after a failed one: with what Kubernetes waits in between, ten minutes for
setup to make a project that is not there yet."""
FINAL_CODES = (1, 2, 77, 78)
"""Exit codes that another try does not mend: tasks failed, in each pass of the run; called wrongly,
token refused, a faulty file. Each try would load the models anew, and know nothing of the last."""
KEPT_SECONDS = 7 * 24 * 3600
"""How long a finished Job can be looked at."""
EVERY = 5.0
"""Time between two looks at a Job, in seconds."""
PATIENCE = 300.0
"""How long the cluster may fail to answer while a Job is followed, in seconds."""
LINES = 6
"""How many lines of a pod's log are told."""
# What is about a Deployment's pods, and not about those of a Job.
_NOT_OURS = {
    "annotations": (
        "k8s.v1.cni.cncf.io/networks",
        "kubectl.kubernetes.io/restartedAt",
        "ls-yolo/downloads",
    ),
    "spec": ("topologySpreadConstraints",),
    "container": ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"),
}

# How kubectl says so, of 403 and of 401, on its standard error.
_REFUSED = "(Forbidden)", "(Unauthorized)", "You must be logged in to the server"

Object = dict[str, Any]
Say = Callable[[str], None]


class ClusterError(RuntimeError):
    """The cluster does not do what is asked; the message says what was found and what to do."""


class Refused(ClusterError):
    """The cluster does not let this account do it, so waiting is of no use."""


@dataclass(frozen=True)
class Wanted:
    """What is to be predicted, and by how many pods.

    ``options``: more words for ``ls-yolo prelabel``. ``namespace``, ``release``: unless given,
    kubectl's own, and the only one that is there. ``queue``: a LocalQueue of Kueue. ``retries``:
    more tries of a shard after a failed one; a pod that its node lost does not count.
    """

    project: str
    shards: int
    options: Sequence[str] = ()
    namespace: str = ""
    release: str = ""
    queue: str = ""
    retries: int = RETRIES


@dataclass(frozen=True)
class Shard:
    """How a shard ended. ``state``: complete, failed, or stopped where the Job ended before it.

    ``exit_code`` and ``said`` are of its last pod: its code, and how its log ends, progress aside.
    """

    index: int
    state: str
    pod: str = ""
    exit_code: int | None = None
    said: str = ""


# The manifest


def manifest(
    deployment: Mapping[str, Any], backend_url: str, wanted: Wanted, one_node: bool = False
) -> Object:
    """The Job for a release.

    Args:
        deployment: that of the release's backend.
        backend_url: where its Service answers.
        one_node: a claim of its pods can be mounted on one node only.

    Raises:
        ClusterError: the Deployment is none of the chart's.
    """
    meta = deployment["metadata"]
    template = copy.deepcopy(deployment["spec"]["template"])
    labels = {**template["metadata"]["labels"], COMPONENT: "prelabel"}
    spec: Object = {
        "completionMode": "Indexed",
        "completions": wanted.shards,
        "parallelism": wanted.shards,
        "backoffLimitPerIndex": wanted.retries,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailIndex",
                    "onExitCodes": {
                        "containerName": "prelabel", "operator": "In", "values": [*FINAL_CODES],
                    },
                },
            ]
        },
        "template": {
            "metadata": {"labels": labels, **_annotations(template["metadata"])},
            "spec": _pod(template["spec"], backend_url, wanted),
        },
    }  # fmt: skip
    if one_node and "affinity" not in spec["template"]["spec"]:
        spec["template"]["spec"]["affinity"] = _beside_backend(labels)
    name = str(meta["name"]).removesuffix("-backend")
    digest = hashlib.sha256(json.dumps([spec, wanted.queue], sort_keys=True).encode())
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{name}-prelabel-{digest.hexdigest()[:8]}",
            "namespace": meta["namespace"],
            "labels": {
                **{key: value for key, value in labels.items() if key.startswith("app.")},
                "app.kubernetes.io/managed-by": "ls-yolo",
                **({QUEUE: wanted.queue} if wanted.queue else {}),
            },
            "annotations": {"ls-yolo/project": wanted.project},
            # It goes when the release does.
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"],
                 "uid": meta["uid"]},
            ],
        },
        "spec": {**spec, "ttlSecondsAfterFinished": KEPT_SECONDS},
    }  # fmt: skip


def _annotations(metadata: Mapping[str, Any]) -> Object:
    kept = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key not in _NOT_OURS["annotations"]
    }
    return {"annotations": kept} if kept else {}


def _pod(found: Mapping[str, Any], backend_url: str, wanted: Wanted) -> Object:
    spec = {key: value for key, value in found.items() if key not in _NOT_OURS["spec"]}
    ours = [container for container in spec["containers"] if container["name"] == "backend"]
    if not ours:
        names = ", ".join(container["name"] for container in spec["containers"])
        raise ClusterError(
            f"found the containers {names} in the backend's Deployment, expected one called "
            "backend. Upgrade the release: helm upgrade"
        )
    container = {key: value for key, value in ours[0].items() if key not in _NOT_OURS["container"]}
    spec["containers"] = [
        {
            **container,
            "name": "prelabel",
            "command": ["ls-yolo"],
            "args": arguments(wanted),
            "env": [*container.get("env", []), {"name": "BACKEND_URL", "value": backend_url}],
        }
    ]
    # A folder of their own: what several pods write must not be one file.
    spec["volumes"] = [
        {"name": "data", "emptyDir": {}} if volume["name"] == "data" else volume
        for volume in spec.get("volumes", [])
    ]
    spec["restartPolicy"] = "Never"
    return spec


def arguments(wanted: Wanted) -> list[str]:
    """The words after ``ls-yolo`` in a pod; Kubernetes puts the pod's index in."""
    words = [*wanted.options, "--", wanted.project]
    return [
        "prelabel", "--here", "--shard", f"$(JOB_COMPLETION_INDEX)/{wanted.shards}",
        # Kubernetes would take $(NAME) for a variable.
        *(word.replace("$(", "$$(") for word in words),
    ]  # fmt: skip


def _beside_backend(labels: Mapping[str, str]) -> Object:
    chosen = {INSTANCE: labels[INSTANCE], COMPONENT: "backend"}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": chosen}}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


# The cluster


@dataclass(frozen=True)
class Cluster:
    """kubectl, in a namespace; its own unless one is given."""

    namespace: str = ""

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """What kubectl prints.

        Raises:
            Refused: the cluster does not take the account, or does not let it.
            ClusterError: it is missing, failed or took too long; with its own words.
        """
        program = shutil.which("kubectl")
        if not program:
            raise ClusterError(
                "found no kubectl, expected it in the PATH. Install it "
                "(https://kubernetes.io/docs/tasks/tools), or run make helm-prelabel in a checkout"
            )
        where = ["--namespace", self.namespace] if self.namespace else []
        try:
            done = subprocess.run(
                [program, *where, *words], capture_output=True, text=True, timeout=120,
                input=stdin or "",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ClusterError(f"kubectl {' '.join(words)}: no answer after 120 s") from None
        if done.returncode:
            refused = any(word in done.stderr for word in _REFUSED)
            raise (Refused if refused else ClusterError)(
                f"kubectl {' '.join(words)}: {done.stderr.strip()}"
            )
        return done.stdout

    def get(self, *words: str) -> Any:
        """Objects of the cluster; None where ``--ignore-not-found`` found none."""
        text = self.kubectl("get", *words, "-o", "json")
        return json.loads(text) if text.strip() else None


def backend_of(cluster: Cluster, release: str = "") -> Object:
    """The Deployment of a release's backend.

    Raises:
        ClusterError: there is none, or more than one to choose from.
    """
    selector = f"{PART_OF}=ls-yolo,{COMPONENT}=backend" + (f",{INSTANCE}={release}" * bool(release))
    found: list[Object] = cluster.get("deployments", "-l", selector)["items"]
    if len(found) == 1:
        return found[0]
    where = cluster.namespace or "kubectl's own namespace"
    named = f" called {release}" if release else ""
    if not found:
        raise ClusterError(
            f"found no release of the chart ls-yolo{named} in {where}. `helm list -A` shows where "
            "there is one; name its namespace"
        )
    names = ", ".join(sorted(row["metadata"]["labels"][INSTANCE] for row in found))
    raise ClusterError(f"found the releases {names} in {where}, expected one. Name one of them")


def job_of(cluster: Cluster, wanted: Wanted) -> Object:
    """The Job for what is wanted, from what the cluster has.

    Raises:
        ClusterError: no release is found, or no second pod can have what the backend's has.
    """
    deployment = backend_of(cluster, wanted.release)
    meta = deployment["metadata"]
    service = cluster.get("service", meta["name"])
    url = f"http://{meta['name']}:{service['spec']['ports'][0]['port']}"
    running = deployment["spec"].get("replicas", 1) != 0
    return manifest(deployment, url, wanted, _one_node(cluster, deployment) and running)


def _one_node(cluster: Cluster, deployment: Mapping[str, Any]) -> bool:
    """Whether a claim of the pods can be mounted on one node only."""
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in deployment["spec"]["template"]["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume and volume["name"] != "data"
    }
    modes = {
        claim["metadata"]["name"]: set(claim["spec"]["accessModes"])
        for claim in cluster.get("pvc")["items"]
        if claim["metadata"]["name"] in used
    }
    for name, found in modes.items():
        if found == {"ReadWriteOncePod"}:
            raise ClusterError(
                f"the claim {name} is ReadWriteOncePod: no pod but the backend's can have it. Copy "
                "it to a ReadWriteMany claim, and name that in the values"
            )
    return any(not found & {"ReadWriteMany", "ReadOnlyMany"} for found in modes.values())


def start(cluster: Cluster, job: Mapping[str, Any], say: Say) -> None:
    """Makes the Job; one that runs already is left alone, one that has ended is made anew.

    Raises:
        ClusterError: the cluster refuses it.
    """
    name = job["metadata"]["name"]
    there = cluster.get("job", name, "--ignore-not-found")
    if there and not ended(there):
        say(f"job/{name}: runs already")
        return
    if there:
        cluster.kubectl("delete", "job", name, "--cascade=foreground", "--wait")
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(job))
    say(f"job/{name}: made, {job['spec']['completions']} pods")


# Following it


def ended(job: Mapping[str, Any]) -> bool:
    """Whether all that a Job had to do is done, or has failed."""
    return any(
        row["type"] in ("Complete", "Failed") and row["status"] == "True"
        for row in (job.get("status") or {}).get("conditions") or []
    )


def indexes(text: str | None) -> set[int]:
    """The numbers that a Job's status names: ``0,2-4``."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found


def follow(cluster: Cluster, name: str, say: Say, every: float = EVERY) -> list[Shard]:
    """Says how a Job goes until it ends; returns how each shard ended.

    Raises:
        Refused: the cluster does not let this account look.
        ClusterError: the Job is gone, or the cluster does not answer for a while.
    """
    said: set[str] = set()
    seen, away = time.monotonic(), False
    while True:
        try:
            job = cluster.get("job", name, "--ignore-not-found")
            pods: list[Object] = cluster.get("pods", "-l", f"job-name={name}")["items"]
            seen, away = time.monotonic(), False
        except Refused:
            raise
        except ClusterError as error:
            if time.monotonic() - seen > PATIENCE:
                raise
            if not away:
                say(f"{error}; asked again for {PATIENCE:g} s")
            away = True
            time.sleep(every)
            continue
        if not job:
            raise ClusterError(f"job/{name} is gone: somebody has deleted it. Run this again")
        for line in (progress(job), *filter(None, map(trouble, pods))):
            if line not in said:
                said.add(line)
                say(line)
        if ended(job):
            return shards(cluster, job, pods)
        time.sleep(every)


def progress(job: Mapping[str, Any]) -> str:
    """A line: how many shards of a Job run, are complete, have failed."""
    status, spec = job.get("status") or {}, job["spec"]
    if spec.get("suspend"):
        queue = job["metadata"].get("labels", {}).get(QUEUE)
        return f"suspended{f', waits in the queue {queue}' if queue else ''}"
    complete, failed = (len(indexes(status.get(f"{k}Indexes"))) for k in ("completed", "failed"))
    return (
        f"{spec['completions']} shards: {complete} complete, {failed} failed, "
        f"{status.get('active', 0)} under way"
    )


def trouble(pod: Mapping[str, Any]) -> str:
    """Why a pod does not run, or how it failed; empty if all is well."""
    shard, status = index_of(pod), pod["status"]
    for row in status.get("conditions") or []:
        if row.get("reason") == "Unschedulable":
            return f"shard {shard} waits for a node: {row.get('message', '').strip()}"
    for container in [
        *(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or []),
    ]:  # fmt: skip
        waits = container.get("state", {}).get("waiting") or {}
        if waits.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"shard {shard} waits: {waits['reason']}: {waits.get('message', '').strip()}"
    if status.get("phase") == "Failed":
        code, said = outcome(pod)
        last = said.rpartition("\n")[2].strip()
        how = "" if code is None else f" with exit code {code}"
        return f"shard {shard}: {pod['metadata']['name']} failed{how}: {last}"
    return ""


def index_of(pod: Mapping[str, Any]) -> int:
    """Which shard a pod has."""
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def outcome(pod: Mapping[str, Any]) -> tuple[int | None, str]:
    """The exit code of a pod's container that ended last, and how what it said ends.

    The chart has the end of a failed container's log kept as its termination message.
    """
    status = pod["status"]
    for container in [
        *(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or []),
    ]:  # fmt: skip
        if done := container.get("state", {}).get("terminated"):
            return done.get("exitCode"), ending(done.get("message") or done.get("reason") or "")
    return None, str(status.get("message") or status.get("reason") or "")


def ending(log: str) -> str:
    """The last lines of a log that are for people: those that are no JSON."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    return "\n".join([line for line in lines if not line.startswith("{")][-LINES:])


def shards(
    cluster: Cluster, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]
) -> list[Shard]:
    """How each shard of a Job that has ended did."""
    status = job["status"]
    complete, failed = (indexes(status.get(f"{key}Indexes")) for key in ("completed", "failed"))
    found = []
    for index in range(job["spec"]["completions"]):
        state = "complete" if index in complete else "failed" if index in failed else "stopped"
        ours = [pod for pod in pods if index_of(pod) == index]
        if not ours:
            found.append(Shard(index, state))
            continue
        last = max(ours, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        name = str(last["metadata"]["name"])
        code, said = outcome(last)
        # Of one that went well the cluster keeps no words. One that was evicted has no code at all.
        words = "" if code == 0 else said
        found.append(Shard(index, state, name, code, words or _log(cluster, name)))
    return found


def _log(cluster: Cluster, pod: str) -> str:
    try:
        return ending(cluster.kubectl("logs", pod, "--container=prelabel", f"--tail={LINES}"))
    except ClusterError:  # the pod went with its node
        return ""


# The command


def run(
    wanted: Wanted,
    say: Say,
    *,
    dry_run: bool = False,
    report: Path | None = None,
    cluster: Cluster | None = None,
) -> int:
    """Predicts a project on the cluster; returns 0, or 1 if a shard has failed for good.

    With ``dry_run`` it prints the manifest and changes nothing. ``report``: a file that gets how
    each shard ended, as JSON. Stopped by Ctrl-C, it leaves the Job alone; run again, it follows it.

    Raises:
        ClusterError: the cluster does not do it.
    """
    if wanted.shards < 1:
        raise ClusterError(f"--kubernetes {wanted.shards}: expected at least one pod")
    cluster = cluster or Cluster(wanted.namespace)
    job = job_of(cluster, wanted)
    if dry_run:
        text = cluster.kubectl(
            "create", "--dry-run=client", "-o", "yaml", "-f", "-", stdin=json.dumps(job)
        )
        say(text.rstrip())
        return 0
    name = job["metadata"]["name"]
    start(cluster, job, say)
    try:
        found = follow(cluster, name, say)
    except KeyboardInterrupt:
        say(
            f"job/{name} goes on; the same command follows it again. To end it: kubectl -n "
            f"{job['metadata']['namespace']} delete job {name}"
        )
        raise
    for line in summary(name, job["metadata"]["namespace"], found):
        say(line)
    if report:
        report.write_text(json.dumps(described(wanted, name, found), indent=1) + "\n")
    return 0 if all(shard.state == "complete" for shard in found) else 1


def described(wanted: Wanted, name: str, found: Sequence[Shard]) -> Object:
    """How a Job ended, as JSON has it."""
    return {
        "project": wanted.project,
        "job": name,
        "complete": all(shard.state == "complete" for shard in found),
        "shards": [asdict(shard) for shard in found],
    }


def summary(name: str, namespace: str, found: Sequence[Shard]) -> list[str]:
    """How a Job ended, for people: a line a shard, and what to do."""
    lines = []
    for shard in found:
        code = f" with exit code {shard.exit_code}" if shard.exit_code else ""
        said = shard.said.replace("\n", "\n    ")
        lines.append(f"shard {shard.index} {shard.state}{code}: {said}".rstrip(": "))
    wrong = [shard for shard in found if shard.state != "complete"]
    if wrong:
        logs = next((f": kubectl -n {namespace} logs {s.pod}" for s in wrong if s.pod), "")
        lines.append(
            f"job/{name}: {len(wrong)} of {len(found)} shards are not complete; what is stored "
            f"stays. Put right what the lines above say{logs}   and run the same command again"
        )
    else:
        lines.append(f"job/{name}: complete")
    return lines
