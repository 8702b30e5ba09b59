"""Many pods predict one project: an Indexed Job, by the chart's values and by the command.

The engine of these pods only waits, so that what is measured is how work is shared out, on a node
of any size.
"""

from __future__ import annotations

import json
import os
import re
import threading
from datetime import datetime

import cv2
import numpy as np
import pytest
import yaml

from cluster import kubernetes, tools
from lib import versions
from ls_yolo.jobs import kubernetes as jobs
from release import until

pytestmark = pytest.mark.kubernetes

SECONDS = 0.5
"""What the engine takes for an image."""
EACH = 120
"""Tasks of a shard that is measured: a minute, beside which it is little that pods do not begin at
the same moment."""
# Python imports a module of this name when it starts.
WAITS = f"""
import time
import numpy as np
from ls_yolo.engines import base, load
from ls_yolo.results import Boxes

class Waits:
    names, task, imgsz, slots, description = {{0: "person", 5: "bus"}}, "detect", 640, 1, "waits"
    def warm_up(self): pass
    def release(self): pass
    def prepare(self, image, imgsz, size=None):
        return base.Prepared(*(size or image.shape[1::-1]))
    def predict(self, prepared, conf, iou):
        time.sleep({SECONDS} * len(prepared))
        row = np.array([[1, 1, 9, 9]], np.float32), np.array([0.9], np.float32), np.array([0])
        return [Boxes(*row) for _ in prepared]

load.load_engine = lambda *_, **__: Waits()
"""
CONFIG = """
<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="person"/></RectangleLabels></View>
"""
MOUNT = {"name": "waits", "mountPath": "/app/sitecustomize.py", "subPath": "sitecustomize.py"}


@pytest.fixture(scope="class")
def release(make, images):
    made = make(
        ["prelabel"],
        {
            "backend": {
                "extraVolumes": [{"name": "waits", "configMap": {"name": "waits"}}],
                "extraVolumeMounts": [{**MOUNT, "readOnly": True}],
                "resources": {"requests": {"cpu": "10m", "memory": "256Mi"}},
            },
        },
        objects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "waits"},
                  "data": {"sitecustomize.py": WAITS}}],
    )  # fmt: skip
    made.install()
    jpeg = cv2.imencode(".jpg", np.full((64, 64, 3), 127, np.uint8))[1].tobytes()
    content = {"many/image.jpg": jpeg, "many/broken.jpg": b"no image"}
    kubernetes.fill(
        made.namespace,
        images[versions.images()["backend"]],
        {f"ls-yolo-datasets/{name}": data for name, data in content.items()},
    )
    return made


@pytest.fixture(scope="class", autouse=True)
def _kubectl():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tools.TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}")
        yield


def project(release, title, tasks, broken=0):
    """A project with as many tasks, the last of which have an image that is none. It is connected
    as setup does it: by the version."""
    api = release.api
    made = api.projects.create(title=title, label_config=CONFIG)
    demo = release.counted()
    (version,) = {found.model_version for row in demo.values() for found in row.values()}
    (connection,) = api.ml.list(project=release.project("ls-yolo demo").id)
    api.ml.create(
        project=made.id, title=version, url=connection.url, auth_method="BASIC_AUTH",
        basic_auth_user="label-studio", basic_auth_pass=release.secret()["BASIC_AUTH_PASS"],
    )  # fmt: skip
    names = ["image"] * (tasks - broken) + ["broken"] * broken
    api.projects.import_tasks(
        id=made.id, request=[{"image": f"/data/local-files/?d=many/{name}.jpg"} for name in names]
    )
    return made.id


def wish(release, title, shards, **more):
    return jobs.Wanted(title, shards, namespace=release.namespace, **more)


def run(wanted, **more):
    """The exit code and what was said."""
    lines: list[str] = []
    return jobs.run(wanted, lines.append, **more), lines


def pods(release, title):
    """The pods of a project's Job that are or were there, by shard, the newest last."""
    found: dict[int, list] = {}
    for pod in sorted(release.get("pods", "prelabel"), key=created):
        words = pod["spec"]["containers"][0]["args"]
        if words[-1] == title:
            found.setdefault(jobs.index_of(pod), []).append(pod)
    return found


def created(pod):
    return pod["metadata"]["creationTimestamp"]


@pytest.fixture(scope="class")
def measured(release):
    """Projects for one shard and for four, by that number, with as much work for each."""
    return {shards: project(release, f"{shards} shards", shards * EACH) for shards in (1, 4)}


def spans(release, number, shards):
    """When the first and the last prediction of each shard of a project was stored."""
    stored: dict[int, list[datetime]] = {}
    for task, found in release.stored(number).items():
        stored.setdefault(task % shards, []).extend(row.created_at for row in found.values())
    return [(min(times), max(times)) for times in stored.values()]


def rate(tasks, spans):
    """Tasks a second, between the first and the last prediction of all pods together."""
    first, last = min(first for first, _ in spans), max(last for _, last in spans)
    return tasks / (last - first).total_seconds()


def predicts(release, pod):
    """Whether a pod has stored a prediction."""
    if pod["status"]["phase"] != "Running":
        return False
    said = release.kubectl("logs", pod["metadata"]["name"])
    return re.search(r'(?m)^\{"done": [1-9]', said)


def once_each(release, number, but=()):
    """Asserts that each task has just one prediction with a box, but for those."""
    for task, found in release.stored(number).items():
        expected = [] if task in but else [True]
        assert [bool(prediction.result) for prediction in found.values()] == expected, task


class TestManyPods:
    """In this order, each going on from where the one before it has stopped."""

    def test_the_chart_s_job_ends_with_every_shard_complete_beside_a_first_setup(self, release):
        """Its pods began before there was a Label Studio, let alone a project."""
        name = release.one("jobs", "prelabel")["metadata"]["name"]
        found = jobs.follow(jobs.Cluster(release.namespace), name, print, 2)
        assert [(shard.index, shard.state) for shard in found] == [
            (index, "complete") for index in range(4)
        ]
        release.counted()

    def test_a_dry_run_prints_the_job_and_makes_none(self, release):
        before = [job["metadata"]["name"] for job in release.get("jobs")]
        code, lines = run(wish(release, "any", 3), dry_run=True)
        made = yaml.safe_load("\n".join(lines))
        assert (code, made["kind"], made["spec"]["completions"]) == (0, "Job", 3)
        assert [job["metadata"]["name"] for job in release.get("jobs")] == before

    def test_four_shards_work_at_once(self, release, measured, record_property):
        rates = {}
        for shards, number in measured.items():
            code, lines = run(wish(release, f"{shards} shards", shards))
            assert code == 0, lines
            once_each(release, number)
            found = spans(release, number, shards)
            assert len(found) == shards
            assert max(first for first, _ in found) < min(last for _, last in found), found
            rates[shards] = rate(shards * EACH, found)
        alone, together = rates[1], rates[4]
        record_property("tasks_a_second_alone", round(alone, 2))
        record_property("tasks_a_second_together", round(together, 2))
        # 0.9 of four times and more where nothing else runs; other suites run beside this one.
        assert together >= 0.5 * 4 * alone, (alone, together)

    def test_the_same_again_makes_the_job_anew_and_stores_nothing_twice(self, release, measured):
        code, lines = run(wish(release, "1 shards", 1))
        assert code == 0, lines
        assert any("made, 1 pods" in line for line in lines)
        once_each(release, measured[1])

    def test_lost_pods_and_a_poisoned_shard_leave_the_rest_complete_and_the_report_names_it(
        self, release, tmp_path
    ):
        number = project(release, "Hard", 320, broken=1)
        tasks = release.api.tasks.list(project=number, fields="all", page_size=500).items
        (broken,) = (task.id for task in tasks if "broken" in task.data["image"])
        poisoned = broken % 4
        killed, evicted, _ = (index for index in range(4) if index != poisoned)
        wanted, file, ended = wish(release, "Hard", 4, retries=1), tmp_path / "report.json", []
        thread = threading.Thread(target=lambda: ended.append(run(wanted, report=file)))
        thread.start()

        def under_way():
            found = pods(release, "Hard")
            ready = all(i in found and predicts(release, found[i][-1]) for i in (killed, evicted))
            return ready and found

        found = until(under_way, 240, "pods that predict", 0.2)
        release.kubectl("delete", "pod", found[killed][-1]["metadata"]["name"], "--wait=false")
        evict(release, found[evicted][-1]["metadata"]["name"])
        thread.join(400)
        ((code, lines),) = ended
        report = json.loads(file.read_text())
        assert code == 1
        assert report["complete"] is False
        assert {row["index"]: row["state"] for row in report["shards"]} == {
            index: "failed" if index == poisoned else "complete" for index in range(4)
        }, lines
        text = "\n".join(lines)
        assert f"shard {poisoned} failed with exit code 1" in text
        assert f"task {broken}" in text, "and why"
        once_each(release, number, but={broken})
        now = pods(release, "Hard")
        assert failures(now[killed][-1]) == 1
        assert failures(now[evicted][-1]) == 0, "what a node loses counts for nothing"

    def test_the_doctor_looks_from_inside_the_cluster_when_asked_to(self, release):
        name = release.one("cronjobs", "doctor")["metadata"]["name"]
        release.kubectl("create", "job", "look", f"--from=cronjob/{name}")
        until(lambda: jobs.ended(release.one("jobs", "doctor")), 240, "the doctor")
        said = release.kubectl("logs", "job/look")
        assert re.search(r"(?m)^ok\b", said), said


def failures(pod):
    """How often its shard had failed before a pod was made."""
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"])


def evict(release, name):
    """Has a pod go as a node that is drained does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name, "namespace": release.namespace}}  # fmt: skip
    path = f"/api/v1/namespaces/{release.namespace}/pods/{name}/eviction"
    release.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
