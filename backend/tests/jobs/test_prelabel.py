"""What a run does with answers, failures, refusals and tasks that come or go meanwhile."""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
import time
from types import SimpleNamespace

import pytest

from ls_yolo.jobs.pipeline import BATCH
from ls_yolo.jobs.predicting import Answer, Lost, Target
from ls_yolo.jobs.prelabel import Options, Prelabel, replace
from ls_yolo.jobs.progress import Progress
from ls_yolo.jobs.report import Report
from ls_yolo.labelstudio.bulk import Counts, Outcome, Page, StudioDown, Task, Version

VERSION = "m@1"
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="person"/></RectangleLabels></View>"""
REGION = {"type": "rectanglelabels", "score": 0.75, "value": {"rectanglelabels": ["person"]}}


class Store:
    """Keeps predictions as the kit's Label Studio does, in memory."""

    def __init__(self, count):
        self.tasks = {number: {} for number in range(1, count + 1)}
        self.rows, self.twice = {}, 0
        self.refused, self.away = {}, 0
        self.lock = threading.Lock()

    def _missing(self, where, shard):
        index, total = shard or (0, 1)
        return [n for n in sorted(self.tasks) if n % total == index and n not in self.rows]

    def count(self, project, version, where=None, shard=None):
        index, total = shard or (0, 1)
        every = [n for n in self.tasks if n % total == index]
        return Counts(len(every), len(self._missing(where, shard)), 0)

    def missing(self, project, version, *, after, limit, where, shard, highest):
        rest = [n for n in self._missing(where, shard) if after < n <= highest][: min(limit, 7)]
        return Page([Task(n, self.tasks[n]) for n in rest], rest[-1] if rest else 0)

    def highest(self, project):
        return max(self.tasks, default=0)

    def store(self, project, rows):
        with self.lock:
            if self.away:
                self.away -= 1
                raise StudioDown("away")
        assert len(rows) <= 500
        stored = present = 0
        gone = tuple(row.task for row in rows if row.task not in self.tasks)
        for row in rows:
            if row.task in self.refused or row.task in gone:
                continue
            present += row.task in self.rows
            stored += row.task not in self.rows
            self.rows.setdefault(row.task, row)
        refused = tuple((r.task, self.refused[r.task]) for r in rows if r.task in self.refused)
        return Outcome(stored, present, gone, refused)

    def settle(self, project, version):
        twice, self.twice = self.twice, 0
        return twice

    def numbers(self, project, values):
        for task, numbers in values.items():
            self.tasks[task].update(numbers)
        return len(values)


class Model:
    def __init__(self, answer=lambda task: Answer([REGION], VERSION, likeness=7)):
        self.answer, self.sizes = answer, []

    def predict(self, tasks):
        self.sizes.append(len(tasks))
        return [self.answer(task) for task in tasks]


def run(store, tmp_path, model=None, report=None, config=CONFIG, **options):
    studio = SimpleNamespace(url="http://studio")
    target = Target(5, "Demo", config, born="2026")
    job = Prelabel(
        studio, store, target, model or Model(), VERSION,
        Options(folder=tmp_path, **options), report,
    )  # fmt: skip
    work = job.look()
    return work, job.run(work, Progress(work.todo, "Demo", io.StringIO()))


def test_every_task_gets_one_prediction_with_its_score_and_group(tmp_path):
    store = Store(30)
    work, summary = run(store, tmp_path)
    assert (work.total, work.todo) == (30, 30)
    assert (summary.stored, summary.missing, summary.failed) == (30, 0, 0)
    assert {row.score for row in store.rows.values()} == {0.75}
    assert len({row.cluster for row in store.rows.values()}) == 1
    assert all(row.version == VERSION and row.result == [REGION] for row in store.rows.values())


def test_images_that_look_alike_are_of_one_group_in_a_later_run_too(tmp_path):
    first, second = Store(3), Store(3)
    run(first, tmp_path)
    near = Model(lambda task: Answer([REGION], VERSION, likeness=7 ^ 0b1000))
    run(second, tmp_path, near)
    assert {row.cluster for row in second.rows.values()} == {
        row.cluster for row in first.rows.values()
    }


def test_what_label_studio_has_stored_besides_is_deleted_though_nothing_is_missing(tmp_path):
    store = Store(3)
    run(store, tmp_path)
    store.twice = 2
    run(store, tmp_path)
    assert store.twice == 0


def test_a_second_run_has_nothing_to_do(tmp_path):
    store = Store(10)
    run(store, tmp_path)
    model = Model()
    work, summary = run(store, tmp_path, model)
    assert (work.todo, model.sizes, summary.missing) == (0, [], 0)


def test_what_failed_because_a_service_was_away_has_another_chance_in_the_same_run(tmp_path):
    store, tries = Store(30), {}

    def answer(task):
        tries[task.id] = tries.get(task.id, 0) + 1
        bad = task.id == 9 or (task.id in (3, 4) and tries[task.id] == 1)
        return Answer([], VERSION, "no answer" * bad)

    report = Report("Demo", VERSION)
    _, summary = run(store, tmp_path, Model(answer), report)
    assert (summary.failed, summary.missing, summary.stored) == (1, 1, 29)
    assert [(one.task, one.reason, one.tries) for one in summary.failures] == [(9, "no answer", 1)]
    assert tries[9] == 2
    assert (summary.state.done, summary.state.failed) == (29, 1)
    assert (report.done, report.failed) == (29, 1)


def test_after_three_runs_a_task_is_left_out_and_retry_tries_it_again(tmp_path):
    store = Store(5)
    bad = Model(lambda task: Answer([], VERSION, "damaged" * (task.id == 2)))
    for _ in range(3):
        assert run(store, tmp_path, bad)[1].failed == 1
    model = Model()
    work, summary = run(store, tmp_path, model)
    assert (work.missing, work.left_out, work.todo) == (1, 1, 0)
    assert (summary.left_out, summary.failed, model.sizes) == (1, 0, [])
    assert [one.task for one in summary.failures] == [2]
    work, summary = run(store, tmp_path, model, retry="all")
    assert (work.todo, summary.missing, summary.failures) == (1, 0, [])


def test_setup_tries_images_again_but_nothing_that_ended_the_backend(tmp_path):
    store = Store(5)

    class Fragile(Model):
        def predict(self, tasks):
            if any(task.id == 4 for task in tasks):
                raise Lost("it went away")
            return super().predict(tasks)

    bad = Fragile(lambda task: Answer([], VERSION, "damaged" * (task.id == 2)))
    for _ in range(3):
        assert run(store, tmp_path, bad)[1].failed == 2
    model = Model()
    work, summary = run(store, tmp_path, model, retry="own")
    assert (work.left_out, summary.stored, summary.left_out) == (1, 1, 1)
    assert [(one.task, one.reason) for one in summary.failures] == [(4, "it went away")]


def test_what_label_studio_refuses_is_a_failure_with_its_words(tmp_path):
    store = Store(4)
    store.refused[3] = "x is above 100"
    _, summary = run(store, tmp_path)
    assert summary.missing == summary.failed == 1
    (failure,) = summary.failures
    assert failure.reason == "Label Studio refuses the prediction: x is above 100"


def test_tasks_that_go_or_come_meanwhile_are_counted_apart(tmp_path):
    store = Store(10)

    def answer(task):
        store.tasks.pop(4, None)
        store.tasks[11] = {}
        return Answer([], VERSION)

    _, summary = run(store, tmp_path, Model(answer))
    assert summary.gone == 1
    assert (summary.missing, summary.failed, summary.unexplained) == (1, 0, 1)


def test_a_label_studio_that_is_away_for_a_while_costs_nothing(tmp_path):
    store = Store(20)
    store.away = 3
    _, summary = run(store, tmp_path)
    assert (summary.stored, summary.missing) == (20, 0)


def test_a_shard_predicts_its_own_tasks_alone(tmp_path):
    store = Store(20)
    for number in range(3):
        run(store, tmp_path, shard=(number, 3))
        assert {task % 3 for task in store.rows} == set(range(number + 1))
    assert len(store.rows) == 20


def test_counts_are_written_into_the_tasks(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "ls_yolo.jobs.fields.show", lambda studio, project, names: shown.append(set(names))
    )
    store = Store(3)
    run(store, tmp_path, fields=True)
    assert store.tasks[1] == {"count": 1, "count_person": 1}
    assert shown == [{"count", "count_person"}]


def test_videos_are_asked_for_one_by_one(tmp_path):
    video = """<View><Video name="video" value="$video"/>
    <VideoRectangle name="box" toName="video"/>
    <Labels name="label" toName="video"><Label value="person"/></Labels></View>"""
    for config, most in ((video, 1), (CONFIG, BATCH)):
        model, store = Model(), Store(40)
        store.missing = lambda *words, limit, **more: Page(
            [] if more["after"] else [Task(n, {}) for n in range(1, 41)], 0
        )
        run(store, tmp_path, model, config=config)
        assert max(model.sizes) == most


def test_only_versions_of_the_kits_models_are_replaced():
    class Versions:
        def __init__(self):
            names = [
                "coco@0123456789ab",
                "b@0123456789ab+a@ba9876543210",
                "by hand",
                "new@" + "0" * 12,
            ]
            self.left = dict.fromkeys(names, 12)

        def versions(self, project):
            return [Version(name, 12, 0, "", "") for name in self.left]

        def delete(self, project, version, limit=5000):
            count = min(5, self.left[version])
            self.left[version] -= count
            return count

    store = Versions()
    assert replace(store, 1, "new@" + "0" * 12, lambda text: None) == 24
    assert list(store.left.values()) == [0, 0, 12, 12]


@pytest.mark.parametrize("how", ["entropy-max", "margin-sum"])
def test_the_score_is_made_as_the_setting_says(tmp_path, how):
    store = Store(1)
    run(store, tmp_path, score=how)
    (row,) = store.rows.values()
    assert row.score not in (0.75, None)


def _killed(folder, queue):
    """A run in which task 11 ends the process that predicts it, as a crash of a library does."""

    class Here(Model):
        def predict(self, tasks):
            with lock:
                sizes.append(len(tasks))
            time.sleep(0.02)
            if any(task.id == 11 for task in tasks):
                queue.put(sizes[:3])
                queue.close()
                queue.join_thread()
                os._exit(9)
            return super().predict(tasks)

    sizes, lock = [], threading.Lock()
    summary = run(Store(40), folder, Here(), here=True)[1]
    queue.put((summary.left_out, summary.stored, [one.task for one in summary.failures]))


def test_a_task_that_ends_the_process_which_predicts_it_is_found_and_left_out(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ls_yolo.jobs.prelabel"])  # seconds, four times
    queue, found = context.Queue(), []
    for code in (9, 9, 9, 0):
        process = context.Process(target=_killed, args=(tmp_path, queue))
        process.start()
        found.append(queue.get(timeout=60))
        process.join()
        assert process.exitcode == code
    assert found[1][0] == found[2][0] == 1  # alone, and first
    assert found[3] == (1, 39, [11])
