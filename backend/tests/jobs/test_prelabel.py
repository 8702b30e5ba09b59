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
from ls_yolo.jobs.predicting import Answer, Lost, PredictingError, Target, answer_of
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
        self.passes = 0
        self.refused, self.away = {}, 0
        self.lock = threading.Lock()

    def _missing(self, where, shard):
        index, total = shard or (0, 1)
        rest = [n for n in sorted(self.tasks) if n % total == index and n not in self.rows]
        return [n for n in rest if not where or n in where]

    def count(self, project, version, where=None, shard=None, highest=None):
        index, total = shard or (0, 1)
        every = [n for n in self.tasks if n % total == index and n <= (highest or n)]
        return Counts(len(every), len({*every} & {*self._missing(where, shard)}), 0)

    def missing(self, project, version, *, after, limit, where, shard, highest):
        self.passes += after == 0
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


def test_only_failures_of_this_run_are_told(tmp_path):
    store = Store(9)
    bad = Model(lambda task: Answer([], VERSION, "damaged" * (task.id in (2, 5, 7))))
    report = Report("Demo", VERSION)
    assert [one.task for one in run(store, tmp_path, bad)[1].failures] == [2, 5, 7]
    del store.tasks[5]
    _, summary = run(store, tmp_path, bad, where={7, 8}, report=report)
    assert [one.task for one in summary.failures] == [7]
    assert (summary.failed, report.failed) == (1, 1)
    assert [one.task for one in run(store, tmp_path, bad)[1].failures] == [2, 7]


def test_a_task_that_goes_after_it_failed_is_no_failure(tmp_path):
    store = Store(9)

    def answer(task):
        if task.id == 9:
            store.tasks.pop(2, None)
        return Answer([], VERSION, "damaged" * (task.id in (2, 5)))

    _, summary = run(store, tmp_path, Model(answer))
    assert [one.task for one in summary.failures] == [5]
    assert (summary.failed, summary.missing) == (1, 1)


def test_where_no_image_can_be_read_it_ends_early_and_says_so(tmp_path):
    store, model = Store(1200), Model(lambda task: Answer([], VERSION, "no such file"))
    with pytest.raises(PredictingError, match="the first 500 tasks could not be predicted"):
        run(store, tmp_path, model)
    assert sum(model.sizes) < 1000
    # One that is predicted already shows that it is not all of them.
    store.rows[1200] = None
    assert run(store, tmp_path, model)[1].failed == 1199


def test_groups_of_images_are_saved_before_the_end(tmp_path):
    store = Store(3)

    settle, found = store.settle, []
    store.settle = lambda *words: found.extend(tmp_path.glob("likeness/*")) or settle(*words)
    run(store, tmp_path)
    assert len(found) == 1


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
    assert (summary.missing, summary.came, summary.failed, summary.unexplained) == (0, 1, 0, 0)
    assert store.passes == 1


def test_a_label_studio_that_is_away_for_a_while_costs_nothing(tmp_path):
    store = Store(20)
    store.away = 3
    _, summary = run(store, tmp_path)
    assert (summary.stored, summary.missing) == (20, 0)


def test_a_label_studio_that_is_away_at_the_very_end_is_waited_for(tmp_path):
    store, away = Store(3), []
    settle, count = store.settle, store.count

    def settled(*words):
        away.append(True)
        return settle(*words)

    def counted(*words, **more):
        if away:
            away.clear()
            raise StudioDown("away")
        return count(*words, **more)

    store.settle, store.count = settled, counted
    _, summary = run(store, tmp_path)
    assert (summary.stored, summary.missing, summary.came, away) == (3, 0, 0, [])


def test_a_shard_predicts_its_own_tasks_alone(tmp_path):
    store = Store(20)
    for number in range(3):
        run(store, tmp_path, shard=(number, 3))
        assert {task % 3 for task in store.rows} == set(range(number + 1))
    assert len(store.rows) == 20


def test_a_broken_image_of_another_shard_is_no_reason_to_wait_for_more(tmp_path):
    store, left = Store(6), []
    bad = Model(lambda task: Answer([], VERSION, "damaged" * (task.id == 4)))
    for number in range(2):
        target = Target(5, "Demo", CONFIG, born="2026")
        options = Options(folder=tmp_path, shard=(number, 2))
        job = Prelabel(SimpleNamespace(url="http://s"), store, target, bad, VERSION, options)
        job.run(job.look(), Progress(3, "Demo", io.StringIO()))
        left.append(job.lacking())
    assert left == [4, 0]  # the broken one and those of shard 1; the broken one alone


def test_counts_are_written_into_the_tasks(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "ls_yolo.jobs.fields.show", lambda studio, project, names: shown.append(set(names))
    )
    store = Store(3)
    run(store, tmp_path, fields=True)
    assert store.tasks[1] == {"count": 1, "count_person": 1}
    assert shown == [{"count", "count_person"}]
    # Also where the run that wrote them was killed before it made the view.
    run(store, tmp_path, fields=True)
    assert shown == [{"count", "count_person"}] * 2


def test_a_run_killed_on_storing_has_written_the_counts_already(tmp_path):
    store = Store(3)

    def killed(project, rows):
        raise KeyboardInterrupt

    store.store = killed
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path, fields=True)
    assert store.tasks[1] == {"count": 1, "count_person": 1}


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


class Versions:
    """Versions with the hours of their first and last predictions."""

    def __init__(self, **hours):
        self.hours = {name.replace("_at_", "@").replace("_and_", "+"): hour
                      for name, hour in hours.items()}  # fmt: skip
        self.left = dict.fromkeys(self.hours, 12)

    def versions(self, project):
        return [
            Version(name, 12, 0, *(hour and f"2026-11-28T{hour:02}:00:00Z" for hour in hours))
            for name, hours in self.hours.items()
        ]

    def delete(self, project, version, limit=5000):
        count = min(5, self.left[version])
        self.left[version] -= count
        return count


def test_only_older_versions_of_the_same_models_are_replaced():
    store = Versions(
        a_at_0123456789ab_and_b_at_0123456789ab=(1, 2),
        a_at_aaaaaaaaaaaa_and_b_at_0123456789ab=(3, 4),  # to be kept
        b_at_ba9876543210_and_a_at_0123456789ab=(2, 2),
        a_at_0123456789ab=(1, 2),
        person_at_0123456789ab=(1, 2),
        b_at_bbbbbbbbbbbb_and_a_at_bbbbbbbbbbbb=(1, 3),  # overlaps
        b_at_cccccccccccc_and_a_at_cccccccccccc=(5, 6),  # of another run since
        b_at_dddddddddddd_and_a_at_dddddddddddd=("", ""),
        by_hand=(1, 2),
    )
    said = []
    assert replace(store, 1, "a@aaaaaaaaaaaa+b@0123456789ab", "", said.append) == 24
    assert list(store.left.values()) == [0, 12, 0, 12, 12, 12, 12, 12, 12]
    assert len(said) == 8
    assert "predictions of by_hand stay, which is not known to be an older one" in said[-1]


def test_where_the_first_of_a_version_has_no_time_nothing_is_replaced_and_that_is_said():
    """As of a Label Studio that is not of the kit's image."""
    store, said = Versions(a_at_0123456789ab=("", 2), a_at_aaaaaaaaaaaa=("", 4)), []
    assert replace(store, 1, "a@aaaaaaaaaaaa", "", said.append) == 0
    assert said == [
        "predictions of a@0123456789ab stay, which may be newer: when the first of a@aaaaaaaaaaaa "
        "was stored is not known; ls-yolo predictions prune removes them"
    ]


def test_what_people_have_gone_back_to_is_not_replaced():
    store, said = Versions(a_at_0123456789ab=(1, 2), a_at_aaaaaaaaaaaa=(3, 4)), []
    assert replace(store, 1, "a@aaaaaaaaaaaa", "a@0123456789ab", said.append) == 0
    assert "which is shown" in said[0]


def test_of_a_users_own_model_nothing_is_replaced_and_that_is_said():
    store, said = Versions(**{"0.1.0": (1, 2), "0.2.0": (3, 4)}), []
    assert replace(store, 1, "0.2.0", "", said.append) == 0
    assert said == [
        "predictions of 0.1.0 stay, which is not known to be an older one of 0.2.0; "
        "ls-yolo predictions prune removes them"
    ]


@pytest.mark.parametrize(("how", "score"), [("margin-max", 0.5), ("margin-sum", 2 / 3)])
def test_the_score_is_made_as_the_setting_says(tmp_path, how, score):
    store = Store(1)
    run(store, tmp_path, score=how)
    (row,) = store.rows.values()
    assert row.score == pytest.approx(score)


def test_a_models_own_score_is_stored_where_its_regions_have_none(tmp_path):
    store = Store(1)
    region = {key: value for key, value in REGION.items() if key != "score"}
    answer = answer_of({"result": [region], "score": 0.3, "model_version": VERSION})
    run(store, tmp_path, Model(lambda task: answer))
    assert store.rows[1].score == 0.3


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
