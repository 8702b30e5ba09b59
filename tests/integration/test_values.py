"""Labeling configs as people write them, in Label Studio itself: what is stored, and when."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from conftest import Stack, label_config

pytestmark = pytest.mark.docker

URL = "/data/local-files/?d=demo/{}.jpg"


def stored(stack: Stack, title: str, config: str, data: dict[str, Any]) -> list[Any]:
    """The regions that are stored for a task with ``data``."""
    made = stack.api.projects.create(title=title, label_config=config)
    stack.api.projects.import_tasks(id=made.id, request=[data])
    done = stack.setup({"title": title, "label_config": config, "models": ["coco"]})
    assert done.returncode == 0, done.stdout + done.stderr
    (prediction,) = stack.api.predictions.list(project=made.id)
    return list(prediction.result)


@pytest.mark.parametrize(
    ("title", "value", "data"),
    [
        ("nested", "$photo.url", {"photo": {"url": URL.format("bus")}}),
        ("index", "$images[1]", {"images": ["x", URL.format("bus")]}),
        ("prefix", "/data/local-files/?d=demo/$image", {"image": "bus.jpg"}),
    ],
)
def test_an_image_is_predicted_wherever_the_page_finds_it(
    stack: Stack, title: str, value: str, data: dict[str, Any]
) -> None:
    config = label_config("person").replace("$image", value)
    assert len(stored(stack, title, config, data)) >= 3


def test_the_images_of_a_list_are_predicted_by_item_index(stack: Stack) -> None:
    config = label_config("person").replace('value="$image"', 'valueList="$images"')
    urls = [URL.format("zidane"), URL.format("bus")]
    regions = stored(stack, "list", config, {"images": urls})
    assert {region["item_index"] for region in regions} == {0, 1}


def test_lower_case_tags_are_predicted(stack: Stack) -> None:
    config = label_config("person").replace("RectangleLabels", "rectanglelabels")
    # In a namespace too, but there Label Studio's strict checking, which is on here, refuses all.
    assert len(stored(stack, "lower", config, {"image": URL.format("bus")})) >= 3


def test_a_project_with_nothing_to_draw_connects_says_so_and_is_predicted_once_it_has_labels(
    stack: Stack,
) -> None:
    project = {"title": "waiting", "models": ["coco"], "storage": {"path": "demo"}}
    done = stack.setup({**project, "label_config": "<View></View>"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for something to draw: controls: found none, expected" in done.stdout
    number = stack.project("waiting").id
    (connection,) = stack.api.ml.list(project=number)
    assert (connection.state, connection.model_version.partition(":")[0]) == (
        "CO",
        "waiting for something to draw",
    )
    assert f"project {number}: waiting for something to draw" in stack.log("backend")
    stack.retrieve(number)
    assert list(stack.api.predictions.list(project=number)) == []
    done = stack.setup({**project, "label_config": label_config("person")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(stack.api.predictions.list(project=number))) == 5


def test_a_title_with_blanks_around_it_is_the_same_project_the_next_time(stack: Stack) -> None:
    project = {"title": " blanks \n", "label_config": label_config("person"),
               "models": ["coco"], "storage": {"path": "demo \n"}}  # fmt: skip
    for _ in range(2):
        done = stack.setup(project)
        assert done.returncode == 0, done.stdout + done.stderr
    number = stack.project("blanks").id
    assert len(stack.tasks(number)) == 5
    assert len(list(stack.api.import_storage.local.list(project=number))) == 1


def test_files_that_cannot_become_tasks_are_named_and_the_others_do(stack: Stack) -> None:
    folder = stack.datasets / "mixed"
    folder.mkdir()
    bus = (stack.datasets / "demo" / "bus.jpg").read_bytes()
    for name in ("good.jpg", "._good.jpg", "b.avif", "c.AVIF"):
        (folder / name).write_bytes(bus)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(bus)
    folder.chmod(0o755)
    done = stack.setup(
        {"title": "mixed", "label_config": label_config("person"), "models": ["coco"],
         "storage": {"path": "mixed"}}
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "their names are not UTF-8: 'caf\\xe9.jpg'; rename them" in done.stdout
    assert "3 files are no tasks, since storage.regex leaves out: 2 .avif, 1 ._*" in done.stdout
    assert list(stack.predictions(stack.project("mixed").id)) == ["good.jpg"]
    assert "caf\\xe9.jpg: left out" in stack.log("label-studio")
