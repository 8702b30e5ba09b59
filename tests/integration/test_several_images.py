"""Tasks with several images: each region is on its own image, stored and in the page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from label_studio_sdk.core.api_error import ApiError
from playwright.sync_api import Page

from conftest import ARTIFACTS, Stack
from test_page import open_page, open_task

pytestmark = [pytest.mark.docker, pytest.mark.browser]

LABELS = '<Label value="Person" background="#00ff00"/><Label value="Bus" background="#0000ff"/>'
URLS = [f"/data/local-files/?d=demo/{name}" for name in ("bus.jpg", "zidane.jpg")]


def image(name: str, value: str) -> str:
    return f'<Image name="{name}" {value}/>'


def boxes(name: str, to_name: str) -> str:
    return f'<RectangleLabels name="{name}" toName="{to_name}">{LABELS}</RectangleLabels>'


TWO = {"first": URLS[0], "second": URLS[1]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a list": (image("pages", 'valueList="$images"') + boxes("box", "pages"), {"images": URLS}),
    "a control each": (
        image("left", 'value="$first"') + boxes("of_left", "left")
        + image("right", 'value="$second"') + boxes("of_right", "right"),
        TWO,
    ),
    "a control for both": (
        image("left", 'value="$first"') + image("right", 'value="$second"')
        + boxes("box", "left,right"),
        TWO,
    ),
    "a repeater": (
        '<Repeater on="$pages">' + image("page_{{idx}}", 'value="$pages[{{idx}}].url"')
        + boxes("box_{{idx}}", "page_{{idx}}") + "</Repeater>",
        {"pages": [{"url": url} for url in URLS]},
    ),
}  # fmt: skip
Place = tuple[str, str, int | None]
PLACES: dict[str, tuple[Place, Place]] = {
    "a list": (("box", "pages", 0), ("box", "pages", 1)),
    "a control each": (("of_left", "left", None), ("of_right", "right", None)),
    "a control for both": (("box", "left", None), ("box", "right", None)),
    "a repeater": (("box_0", "page_0", None), ("box_1", "page_1", None)),
}
"""Where the regions of the first and of the second image are."""
STORE = """
import json, sys
from tasks.models import Prediction, Task
task, made = json.loads({!r})
Prediction.objects.create(
    task=Task.objects.get(id=task), project=Task.objects.get(id=task).project,
    result=made["result"], score=made["score"], model_version=made["model_version"])
"""


@pytest.fixture(scope="module")
def projects(stack: Stack) -> dict[str, tuple[Any, Any]]:
    """The project of each case, with its one task."""
    configs = {title: f"<View>{config}</View>" for title, (config, _) in CASES.items()}
    done = stack.setup(
        *({"title": title, "models": ["coco"], "label_config": config, "storage": {"path": "demo"},
           "predict": False} for title, config in configs.items())
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for title, (_, data) in CASES.items():
        project = stack.project(title)
        for task in stack.tasks(project.id):  # those of the storage, which has its files served
            stack.api.tasks.delete(str(task.id))
        found[title] = project, stack.api.tasks.create(project=project.id, data=data)
    return found


def answered(stack: Stack, title: str) -> Any:
    """What the backend says of the task of a case."""
    config, data = CASES[title]
    body = {"tasks": [{"id": 1, "data": data}], "label_config": f"<View>{config}</View>"}
    (found,) = stack.post("/m/coco/predict", body).json()["results"]
    return found


def places(regions: list[Any]) -> Counter[Any]:
    """How many regions each control has on each image, by label."""
    return Counter(
        (r["from_name"], r["to_name"], r.get("item_index"), r["value"]["rectanglelabels"][0])
        for r in regions
    )


def right(title: str, regions: list[Any]) -> None:
    """Fails where the persons and the bus of the first image, and the persons of the second, are
    not each on its own."""
    first, second = PLACES[title]
    found = places(regions)
    assert {place[:3] for place in found} == {first, second}
    assert found[(*first, "Person")] >= 3
    assert found[(*first, "Bus")] == 1
    assert found[(*second, "Person")] == 2
    assert found[(*second, "Bus")] == 0
    # Of 810 x 1080 and of 1280 x 720 pixels.
    sides = {(r["to_name"], r.get("item_index")): r["original_width"] for r in regions}
    assert sides == {first[1:]: 810, second[1:]: 1280}


@pytest.mark.parametrize("title", [title for title in CASES if title != "a repeater"])
def test_regions_on_several_images_are_stored_each_on_its_own(
    stack: Stack, projects: Any, title: str
) -> None:
    project, task = projects[title]
    stack.retrieve(project.id)
    (stored,) = stack.api.predictions.list(project=project.id)
    assert stored.task == task.id
    right(title, stored.result)


def test_a_repeater_is_refused_by_strict_checking_and_setup_has_said_so(
    stack: Stack, projects: Any
) -> None:
    project, task = projects["a repeater"]
    said = stack.post(
        "/m/coco/setup", {"project": f"{project.id}.0", "schema": project.label_config}
    ).json()
    (warning,) = said["warnings"]
    assert "Repeater" in warning
    assert warning in stack.log("backend")
    with pytest.raises(ApiError, match=r"box_0.* not found in configuration"):
        stack.retrieve(project.id)
    made = answered(stack, "a repeater")
    right("a repeater", made["result"])
    # As Label Studio stores it where it does not check.
    script = STORE.format(json.dumps([task.id, made]))
    code, output = stack.container("label-studio").exec_run(
        ["sh", "-c", "cd $(python -c 'import label_studio; print(label_studio.__path__[0])') && "
         'python manage.py shell -c "$0"', script]
    )  # fmt: skip
    assert code == 0, output.decode()


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with open_page(stack) as page:
        yield page


@pytest.mark.parametrize("title", CASES)
def test_the_page_holds_each_region_on_its_own_image(
    stack: Stack, projects: Any, page: Page, title: str
) -> None:
    """The predictions are those of the tests before."""
    project, task = projects[title]
    open_task(stack, page, project.id, task.id)
    held = page.evaluate("() => window.Htx.annotationStore.selected.serializeAnnotation()")
    right(title, held)
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / f"images-{title.replace(' ', '-')}.png"))
