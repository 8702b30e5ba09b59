"""`ls-yolo prelabel`, between the services: killed, restarted, in shards, with tasks that fail."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests
import yaml
from PIL import Image

from conftest import MODELS, Stack, label_config, new_stack
from ls_yolo.labelstudio.bulk import Calls
from ls_yolo.labelstudio.client import Studio

pytestmark = pytest.mark.docker

MANY = 600
KILLS = 10
SEED = 12
FEW = 12
MODEL = {"weights": "yolov8n.pt", "conf": 0.1, "imgsz": 480}


class Bulk:
    """A stack, and what the tests here ask of it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.calls = Calls(Studio(stack.url, stack.env["LABEL_STUDIO_API_KEY"]))

    def start(self, *words: str) -> str:
        """Starts the command in a container of its own; returns its id."""
        done = self.stack.run("run", "--detach", "--no-deps", "-T", "setup", "ls-yolo", *words)
        return done.stdout.split()[-1]

    def prelabel(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end."""
        return self.stack.run(
            "run", "--rm", "--no-deps", "-T", "setup", "ls-yolo", "prelabel", *words, check=False
        )

    def inside(self, *words: str) -> tuple[int, str]:
        """Runs the command in the backend's container, where the models are."""
        found = self.stack.container("backend").exec_run(["ls-yolo", "prelabel", *words])
        return int(found.exit_code), found.output.decode()

    def version(self, name: str) -> str:
        found = requests.get(
            f"{self.stack.backend_url}/m/{name}/versions", auth=self.stack.auth, timeout=10
        )
        return str(found.json()["versions"][0])

    def missing(self, project: Any, version: str) -> int:
        return self.calls.count(project.id, version).missing

    def made(self, title: str, folder: str) -> Any:
        """A project of the images in ``folder``, not predicted yet."""
        done = self.stack.setup(
            {
                "title": title,
                "models": ["small"],
                "predict": False,
                "storage": {"path": folder},
                "label_config": label_config("person", "bus"),
            }
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return self.stack.project(title)

    def setup_few(self) -> subprocess.CompletedProcess[str]:
        """Runs setup with the project of few images, which it predicts."""
        return self.stack.setup(
            {
                "title": "Few",
                "models": ["small"],
                "storage": {"path": "few"},
                "label_config": label_config("person", "bus"),
            }
        )

    def shown(self, project: Any) -> tuple[str, str]:
        """The title of a project's connection, and the version that it names."""
        (connection,) = self.stack.api.ml.list(project=project.id)
        return connection.title, self.stack.api.projects.get(project.id).model_version

    def opened(self, project: Any) -> set[str]:
        """The versions whose predictions somebody sees who labels."""
        token = {"Authorization": f"Token {self.stack.env['LABEL_STUDIO_API_KEY']}"}
        url = f"{self.stack.url}/api/projects/{project.id}/next"
        rows = requests.get(url, headers=token, timeout=60).json()["predictions"]
        return {row["model_version"] for row in rows}

    def by_task(self, project: Any, version: str) -> Counter[int]:
        """How many good predictions of ``version`` each task has."""
        found: Counter[int] = Counter()
        for row in self.stack.api.predictions.list(project=project.id):
            if row.model_version == version and (row.result or row.score is not None):
                found[row.task] += 1
        return found


@pytest.fixture(scope="module")
def bulk() -> Iterator[Bulk]:
    with new_stack() as stack:
        models = {**MODELS, "small": MODEL}
        (stack.folder / "models" / "models.yaml").write_text(yaml.safe_dump(models))
        wait_for(lambda: "small" in ready(stack), 60)
        yield Bulk(stack)


@pytest.fixture(scope="module")
def few(bulk: Bulk) -> Any:
    """A project of few images, one of which is none."""
    with Image.open(bulk.stack.datasets / "demo" / "bus.jpg") as bus:
        pictures = {f"bus{n:02}": bus.resize((160 + 20 * n, 200 + 24 * n)) for n in range(FEW - 2)}
    pictures["blank"] = Image.new("RGB", (200, 200), "white")
    bulk.stack.images("few", **pictures)
    (bulk.stack.datasets / "few" / "broken.jpg").write_text("no image")
    return bulk.made("Few", "few")


def mend(bulk: Bulk) -> None:
    """Makes an image of the one that is none."""
    with Image.open(bulk.stack.datasets / "demo" / "bus.jpg") as bus:
        bus.resize((300, 400)).save(bulk.stack.datasets / "few" / "broken.jpg")


def predicted(bulk: Bulk) -> str:
    """Has all tasks predicted, where a test before has not; returns the version."""
    mend(bulk)
    done = bulk.prelabel("Few", "--retry")
    assert done.returncode == 0, done.stdout + done.stderr
    return bulk.version("small")


def ready(stack: Stack) -> list[str]:
    rows = requests.get(f"{stack.backend_url}/readyz", auth=stack.auth, timeout=10).json()
    return [row["name"] for row in rows["models"] if row["state"] == "ready"]


def read(container: Any, path: str) -> str:
    """A file in a container. On a busy machine what a command prints may come late, or not."""
    return str(container.exec_run(["cat", path]).output.decode())


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def test_killed_at_random_and_restarted_every_task_has_one_prediction(bulk: Bulk) -> None:
    rng = random.Random(SEED)
    stack = bulk.stack
    with Image.open(stack.datasets / "demo" / "bus.jpg") as bus:
        small = bus.resize((200, 266))
    stack.images("many", **{f"{n:04}": small.rotate(n % 7) for n in range(MANY)})
    project = bulk.made("Many", "many")
    version = bulk.version("small")
    more = [{"image": f"/data/local-files/?d=many/{n:04}.jpg"} for n in range(MANY)]
    tasks, kills = MANY, 0

    def fewer(most: int) -> bool:
        return bulk.missing(project, version) <= most

    while kills < KILLS:
        before = bulk.missing(project, version)
        if before < MANY // 2:  # a fast machine would have none left
            stack.api.projects.import_tasks(id=project.id, request=more)
            tasks += MANY
            before += MANY
        # Twice two at once.
        running = [bulk.start("prelabel", "Many") for _ in range(2 if kills in (2, 5) else 1)]
        wait_for(partial(fewer, before - rng.randrange(1, 24)), 120)
        if restarted := {3: "backend", 7: "label-studio"}.get(kills):
            stack.container(restarted).restart(timeout=0)
        for one in running:
            container = stack.docker.containers.get(one)
            container.kill("SIGKILL")
            container.remove(force=True)
            kills += 1
        if restarted:
            stack.up()
    # Ctrl-C is no kill: it ends at once, and says so.
    before = bulk.missing(project, version)
    container = stack.docker.containers.get(bulk.start("prelabel", "Many"))
    wait_for(partial(fewer, before - 1), 120)
    container.kill("SIGINT")
    assert container.wait(timeout=10)["StatusCode"] == 130
    assert "stopped; it is safe to run the same command again" in container.logs().decode()
    container.remove()
    assert bulk.missing(project, version) > 0
    # Two at once to the end, over a restart of each service.
    first = bulk.start("prelabel", "Many")
    second = bulk.start("prelabel", str(project.id))
    time.sleep(3)
    stack.container("backend").restart(timeout=0)
    stack.container("label-studio").restart(timeout=0)
    for one in (first, second):
        container = stack.docker.containers.get(one)
        code = container.wait(timeout=200)["StatusCode"]
        text = container.logs().decode()
        container.remove()
        assert code == 0, text
    assert f"{tasks} tasks, each with a stored prediction of {version}" in text
    stack.up()
    found = bulk.by_task(project, version)
    assert len(found) == tasks
    assert set(found.values()) == {1}


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(bulk: Bulk, few: Any) -> None:
    version = bulk.version("small")
    done = bulk.prelabel("Few", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"Few: {FEW} tasks, {FEW} without a prediction of {version}; nothing was done" in (
        done.stdout
    )
    assert bulk.missing(few, version) == FEW


def test_only_tasks_of_a_filter_and_of_a_view_are_predicted(bulk: Bulk, few: Any) -> None:
    version = bulk.version("small")
    ids = sorted(task.id for task in bulk.stack.tasks(few.id))
    chosen = ids[-4:]  # the broken one is among the first

    def filter_of(first: int, last: int) -> dict[str, Any]:
        items = [
            {
                "filter": "filter:tasks:id",
                "operator": "in",
                "type": "Number",
                "value": {"min": first, "max": last},
            }
        ]
        return {"conjunction": "and", "items": items}

    done = bulk.prelabel("Few", "--where", json.dumps(filter_of(chosen[0], chosen[1])))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(bulk.by_task(few, version)) == chosen[:2]
    bulk.stack.api.views.create(
        project=few.id,
        data={"title": "Some", "target": "tasks", "filters": filter_of(chosen[2], chosen[3])},
    )
    done = bulk.prelabel("Few", "--where", "view:Some")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(bulk.by_task(few, version)) == chosen
    done = bulk.prelabel("Few", "--where", "view:Sone")
    assert done.returncode == 1
    assert "found no view 'Sone'; did you mean 'Some'?" in done.stderr


def test_shards_predict_their_own_tasks_and_name_what_cannot_be_read(bulk: Bulk, few: Any) -> None:
    version = bulk.version("small")
    (broken,) = [t for t in bulk.stack.tasks(few.id) if "broken" in bulk.stack.file_name(t)]
    for number in range(2):
        before = set(bulk.by_task(few, version))
        done = bulk.prelabel("Few", "--shard", f"{number}/2")
        new = set(bulk.by_task(few, version)) - before
        assert {task % 2 for task in new} <= {number}
        assert new
        assert done.returncode == (1 if broken.id % 2 == number else 0), done.stdout
        assert (f"task {broken.id}: not an image" in done.stdout) == (broken.id % 2 == number)
    found = bulk.by_task(few, version)
    assert len(found) == FEW - 1 and broken.id not in found


def test_what_fails_in_three_runs_is_left_out_until_it_is_to_be_tried_again(
    bulk: Bulk, few: Any
) -> None:
    version = bulk.version("small")
    (broken,) = [t for t in bulk.stack.tasks(few.id) if "broken" in bulk.stack.file_name(t)]
    for _ in range(2):
        done = bulk.prelabel("Few")
        assert done.returncode == 1
        assert f"task {broken.id}: not an image that can be decoded" in done.stdout
    left = bulk.prelabel("Few")
    assert left.returncode == 1
    assert "1 of them were left out, since they failed in 3 runs" in left.stdout
    assert f"{FEW - 1} of {FEW} tasks predicted" in left.stdout
    mend(bulk)
    assert bulk.prelabel("Few").returncode == 1
    mended = bulk.prelabel("Few", "--retry")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert f"{FEW} tasks, each with a stored prediction of {version}" in mended.stdout
    assert bulk.by_task(few, version)[broken.id] == 1


def test_uncertainty_sampling_shows_the_most_uncertain_task_first(bulk: Bulk, few: Any) -> None:
    version = predicted(bulk)
    api = bulk.stack.api
    assert api.projects.get(few.id).model_version == version
    (connection,) = api.ml.list(project=few.id)
    assert connection.title == version
    api.projects.update(few.id, sampling="Uncertainty sampling")
    rows = [r for r in api.predictions.list(project=few.id) if r.model_version == version]
    assert all(0 <= row.score <= 1 for row in rows)
    # The cluster with the fewest labels comes first, then the lowest score; without any label all
    # are alike.
    lowest = min(rows, key=lambda row: row.score)
    token = {"Authorization": f"Token {bulk.stack.env['LABEL_STUDIO_API_KEY']}"}
    found = requests.get(
        f"{bulk.stack.url}/api/projects/{few.id}/next", headers=token, timeout=60
    ).json()
    assert found["id"] == lowest.task
    assert [one["model_version"] for one in found["predictions"]] == [version]
    blank = next(t for t in bulk.stack.tasks(few.id) if "blank" in bulk.stack.file_name(t))
    (empty,) = [row for row in rows if row.task == blank.id]
    assert (empty.result, empty.score) == ([], 1)


def test_counts_a_report_and_metrics_are_written(bulk: Bulk, few: Any) -> None:
    version = predicted(bulk)
    while bulk.calls.delete(few.id, version):
        pass
    code, text = bulk.inside(
        "Few", "--fields", "--report", "/tmp/report.html", "--metrics", "/tmp/prelabel.prom"
    )
    assert code == 0, text
    for task in bulk.stack.tasks(few.id):
        assert task.data["count"] == task.data["count_person"] + task.data["count_bus"]
    titles = [view.data["title"] for view in bulk.stack.api.views.list(project=few.id)]
    assert "Most objects" in titles
    backend = bulk.stack.container("backend")
    report = json.loads(wait_for(lambda: read(backend, "/tmp/report.json"), 10))
    assert report["tasks"]["predicted"] == FEW
    assert any(one.get("jpeg") for one in report["sample"])
    metrics = wait_for(lambda: read(backend, "/tmp/prelabel.prom"), 10)
    assert f'ls_yolo_prelabel_done{{project="Few",shard="0"}} {float(FEW)}' in metrics
    success = wait_for(lambda: read(backend, "/tmp/prelabel-success.prom"), 10)
    assert "ls_yolo_prelabel_success_timestamp_seconds{" in success


def test_in_a_process_of_its_own_it_predicts_the_same(bulk: Bulk, few: Any) -> None:
    version = predicted(bulk)

    def boxes() -> dict[int, list[Any]]:
        rows = bulk.stack.api.predictions.list(project=few.id)
        return {
            row.task: [(r["value"]["rectanglelabels"], round(r["value"]["x"])) for r in row.result]
            for row in rows
            if row.model_version == version
        }

    before = boxes()
    while bulk.calls.delete(few.id, version):
        pass
    code, text = bulk.inside("Few", "--here")
    assert code == 0, text
    assert boxes() == before


def test_new_predictions_replace_the_older_ones_only_once_they_are_complete(
    bulk: Bulk, few: Any
) -> None:
    old = predicted(bulk)
    models = {**MODELS, "small": {**MODEL, "conf": 0.2}}
    (bulk.stack.folder / "models" / "models.yaml").write_text(yaml.safe_dump(models))
    wait_for(lambda: bulk.version("small") != old, 60)
    new = bulk.version("small")
    bulk.stack.api.predictions.create(task=bulk.stack.tasks(few.id)[0].id, result=[], score=0.5,
                                      model_version="by hand")  # fmt: skip
    done = bulk.prelabel("Few", "--shard", "0/2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert bulk.missing(few, new) > 0
    assert bulk.shown(few) == ("small", old)
    assert bulk.opened(few) == {old}
    assert bulk.setup_few().returncode == 0
    assert bulk.shown(few) == (new, new)
    names = {one.name for one in bulk.calls.versions(few.id)}
    assert names == {old, new, "by hand"}
    # Who goes back stays there.
    rollback = ("run", "--rm", "--no-deps", "-T", "setup", "ls-yolo", "predictions", "rollback")
    bulk.stack.run(*rollback, "Few", "--to", old)
    assert bulk.setup_few().returncode == 0
    done = bulk.prelabel("Few")
    assert f"Few: shows {old} still, since somebody has gone back to it" in done.stdout
    assert bulk.shown(few) == (new, old)
    assert bulk.opened(few) == {old}
    bulk.stack.run(*rollback, "Few", "--to", new)
    assert bulk.shown(few) == (new, new)
    assert bulk.opened(few) == {new}
    done = bulk.prelabel("Few", "--replace")
    assert f"predictions of {old} removed" in done.stdout, done.stdout + done.stderr
    assert {one.name for one in bulk.calls.versions(few.id)} == {new, "by hand"}
    refused = bulk.prelabel("Few", "--replace", "--shard", "0/2")
    assert refused.returncode == 2
    assert "--replace: deletes older predictions of the whole project" in refused.stderr


def test_the_button_retrieve_predictions_still_adds_nothing_to_what_is_there(
    bulk: Bulk, few: Any
) -> None:
    done = bulk.setup_few()
    assert done.returncode == 0, done.stdout + done.stderr
    version = bulk.version("small")
    bulk.stack.retrieve(few.id)
    assert set(bulk.by_task(few, version).values()) == {1}
    one = bulk.stack.tasks(few.id)[0]
    (row,) = [
        r for r in bulk.stack.api.predictions.list(project=few.id)
        if r.task == one.id and r.model_version == version
    ]  # fmt: skip
    bulk.stack.api.predictions.delete(row.id)
    bulk.stack.retrieve(few.id)
    assert bulk.by_task(few, version)[one.id] == 1
