"""Bulk calls against a running Label Studio: those of the image, and the same by its public API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from conftest import Stack, label_config
from ls_yolo.cli import main
from ls_yolo.labelstudio.bulk import Calls, NoBulkCalls, PlainStore, Row, store_of
from ls_yolo.labelstudio.client import Studio, StudioError
from ls_yolo.labelstudio.lookup import find_project

pytestmark = pytest.mark.docker

URL = "/data/local-files/?d=demo/bus.jpg"
VALUE = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "rectanglelabels": ["person"]}
BOX = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": VALUE}


@pytest.fixture(scope="module")
def studio(stack: Stack) -> Studio:
    return Studio(stack.url, stack.env["LABEL_STUDIO_API_KEY"])


@pytest.fixture(params=[Calls, PlainStore])
def store(request: pytest.FixtureRequest, studio: Studio) -> Calls | PlainStore:
    made: Calls | PlainStore = request.param(studio)
    return made


@pytest.fixture
def project(stack: Stack, request: pytest.FixtureRequest) -> Iterator[int]:
    title = request.node.name[:50]
    number = stack.api.projects.create(title=title, label_config=label_config("person")).id
    yield number
    stack.api.projects.delete(number)


@pytest.fixture
def tasks(stack: Stack, project: int) -> list[int]:
    stack.api.projects.import_tasks(id=project, request=[{"image": URL}] * 6)
    return sorted(task.id for task in stack.tasks(project))


def rows(tasks: list[int], version: str = "m@1", score: float | None = 0.5) -> list[Row]:
    return [Row(task, [BOX] if score else [], score, version) for task in tasks]


def predictions(stack: Stack, project: int, version: str = "m@1") -> list[Any]:
    found = stack.api.predictions.list(project=project)
    return [row for row in found if row.model_version == version]


def test_the_image_of_the_kit_has_the_calls(studio: Studio) -> None:
    assert isinstance(store_of(studio), Calls)


def test_rows_are_stored_once_and_what_is_wrong_with_others_is_told(
    stack: Stack, store: Calls | PlainStore, project: int, tasks: list[int]
) -> None:
    stack.api.tasks.delete(str(tasks[-1]))
    bad = replace(rows(tasks[:1])[0], result=[{**BOX, "from_name": "other"}])
    outcome = store.store(project, [bad, *rows(tasks[1:])])
    assert (outcome.stored, outcome.present, outcome.gone) == (4, 0, (tasks[-1],))
    ((task, why),) = outcome.refused
    assert task == tasks[0] and "other" in why
    again = store.store(project, rows(tasks[:-1]))
    assert (again.stored, again.present, again.gone, again.refused) == (1, 4, (), ())
    assert sorted(row.task for row in predictions(stack, project)) == tasks[:-1]


def test_a_good_prediction_takes_the_place_of_a_failed_one(
    stack: Stack, store: Calls | PlainStore, project: int, tasks: list[int]
) -> None:
    store.store(project, rows(tasks[:2], score=None))
    assert store.count(project, "m@1").failed == 2
    assert store.store(project, rows(tasks[:1])).stored == 1
    found = {row.task: row.score for row in predictions(stack, project)}
    assert found == {tasks[0]: 0.5, tasks[1]: None}


def test_writers_at_once_leave_one_prediction_a_task(
    stack: Stack, store: Calls | PlainStore, project: int, tasks: list[int]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: store.store(project, rows(tasks)), range(4)))
    assert all(outcome.stored + outcome.present == 6 for outcome in outcomes)
    store.store(project, rows(tasks))  # by the public API, what came last may be there twice
    assert sorted(row.task for row in predictions(stack, project)) == tasks


def test_what_is_missing_is_counted_and_paged_through(
    store: Calls | PlainStore, project: int, tasks: list[int]
) -> None:
    store.store(project, rows(tasks[:1]))
    store.store(project, rows(tasks[1:2], "m@12"))
    counts = store.count(project, "m@1")
    assert (counts.total, counts.missing, counts.failed) == (6, 5, 0)
    found, after = [], 0
    while True:
        page = store.missing(project, "m@1", after=after, limit=2)
        assert all(task.data == {"image": URL} for task in page.tasks)
        found += [task.id for task in page.tasks]
        after = page.last
        if not after:
            break
    assert found == tasks[1:]
    by_id = {"filter": "filter:tasks:id", "operator": "less", "type": "Number", "value": tasks[4]}
    where = {"conjunction": "and", "items": [by_id]}
    some = store.missing(project, "m@1", where=where, shard=(0, 2), highest=tasks[3])
    assert [task.id for task in some.tasks] == [task for task in tasks[1:4] if task % 2 == 0]
    assert store.count(project, "m@1", where, (1, 2)).total == sum(t % 2 for t in tasks[:4])
    assert store.highest(project) == tasks[-1]


def test_numbers_go_into_the_data_of_tasks_and_over_nothing_else(
    stack: Stack, store: Calls | PlainStore, project: int, tasks: list[int]
) -> None:
    values: dict[int, dict[str, float]] = {
        tasks[0]: {"objects": 3, "image": 1},
        tasks[1]: {"objects": 0.5},
    }
    assert store.numbers(project, values) == 2
    assert store.numbers(project, values) == 0
    store.numbers(project, {tasks[0]: {"objects": 4}})
    assert stack.api.tasks.get(str(tasks[0])).data["objects"] == 4
    # As it is stored; a task that is asked for alone has its URLs resolved.
    assert store.missing(project, "m@1", limit=1).tasks[0].data == {"image": URL, "objects": 4}


def test_a_version_is_deleted_and_no_other(
    stack: Stack, store: Calls | PlainStore, project: int, tasks: list[int]
) -> None:
    for version in ("m@1", "m@1+n@2"):
        store.store(project, rows(tasks, version))
    assert [(v.name, v.count) for v in store.versions(project)] == [("m@1", 6), ("m@1+n@2", 6)]
    deleted: list[int] = []
    while not deleted or deleted[-1]:
        deleted.append(store.delete(project, "m@1", limit=4))
    assert sum(deleted) == 6
    assert predictions(stack, project) == []
    assert len(predictions(stack, project, "m@1+n@2")) == 6


def test_a_folder_becomes_tasks_whose_files_the_backend_is_sent(
    stack: Stack, studio: Studio, project: int
) -> None:
    storage = stack.api.import_storage.local.create(
        project=project, path="/datasets/demo", use_blob_urls=True, regex_filter=r".*\.jpg"
    )
    with pytest.raises(NoBulkCalls, match="has no call that makes tasks"):
        PlainStore(studio).make_tasks(storage.id)
    made = Calls(studio).make_tasks(storage.id)
    names = sorted(path.name for path in (stack.datasets / "demo").glob("*.jpg"))
    assert (made.made, made.left) == (len(names), 0)
    for store in (Calls(studio), PlainStore(studio)):
        found = store.missing(project, "m@1").tasks
        assert sorted(task.data["image"] for task in found) == [
            f"/data/local-files/?d=demo/{name}" for name in names
        ]
    assert stack.api.import_storage.local.sync(storage.id).last_sync_count == 0
    with pytest.raises(StudioError, match="found no localfiles storage 99999"):
        Calls(studio).make_tasks(99999)


def test_a_project_is_found_by_title_or_id_and_what_is_near_is_named(
    stack: Stack, studio: Studio, project: int
) -> None:
    twins = [stack.api.projects.create(title=title).id for title in ("Harbour", "twin", "twin")]
    try:
        assert find_project(studio, "Harbour").id == twins[0]
        assert find_project(studio, str(twins[0])).title == "Harbour"
        with pytest.raises(StudioError, match="did you mean 'Harbour'"):
            find_project(studio, "harbor")
        with pytest.raises(StudioError, match=f"by its id: .*{twins[1]}"):
            find_project(studio, "twin")
        with pytest.raises(StudioError, match="found no project with the title or id '99999'"):
            find_project(studio, "99999")
    finally:
        for number in twins:
            stack.api.projects.delete(number)


def test_a_token_that_is_not_taken_is_said(stack: Stack) -> None:
    for ask in (store_of, lambda studio: find_project(studio, "1")):
        with pytest.raises(StudioError, match="LABEL_STUDIO_API_KEY"):
            ask(Studio(stack.url, "0" * 40))


@pytest.fixture
def ls_yolo(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line; exit code and what it printed."""
    monkeypatch.setenv("LABEL_STUDIO_URL", stack.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", stack.env["LABEL_STUDIO_API_KEY"])

    def run(*words: str) -> tuple[int, str, str]:
        code = main.main(list(words))
        return code, *capsys.readouterr()

    return run


def test_versions_are_listed_shown_again_and_pruned(
    stack: Stack,
    studio: Studio,
    project: int,
    tasks: list[int],
    ls_yolo: Callable[..., tuple[int, str, str]],
) -> None:
    number = str(project)
    assert "no predictions" in ls_yolo("predictions", "list", number)[1]
    one, two, three, four = (f"m@{number:012}" for number in range(1, 5))
    for version in (one, "imported", two, three):
        Calls(studio).store(project, rows(tasks, version))
    Calls(studio).store(project, rows(tasks[:1], four, None))

    code, _, error = ls_yolo("predictions", "rollback", number, "--to", "m@9")
    assert code == 1 and f"there are some of: {one}, imported, {two}" in error
    code, output, _ = ls_yolo("predictions", "rollback", number, "--to", two)
    assert code == 0 and output.rstrip().endswith(f"shows {two}; before: none")
    assert stack.api.projects.get(project).model_version == two
    assert f"shows {two} already" in ls_yolo("predictions", "rollback", number, "--to", two)[1]

    listed = json.loads(ls_yolo("predictions", "list", number, "--json")[1])["versions"]
    assert [
        (row["version"], row["predictions"], row["failed"], row["shown"]) for row in listed
    ] == [
        (one, 6, 0, False),
        ("imported", 6, 0, False),
        (two, 6, 0, True),
        (three, 6, 0, False),
        (four, 1, 1, False),
    ]

    code, _, error = ls_yolo("predictions", "prune", number, "--version", two, "--yes")
    assert code == 1 and f"{two} is shown, and stays" in error
    code, _, error = ls_yolo("predictions", "prune", number)
    assert code == 1 and "12 predictions would be deleted" in error  # one and three; nobody to ask
    assert len(predictions(stack, project, one)) == 6
    code, output, _ = ls_yolo("predictions", "prune", number, "--yes")
    assert code == 0 and "deleted 12 predictions" in output
    left = [version.name for version in Calls(studio).versions(project)]
    assert left == ["imported", two, four]
    assert "nothing to delete" in ls_yolo("predictions", "prune", number, "--yes")[1]
    assert stack.api.projects.get(project).model_version == two
