"""Every control, end to end: real models, stored predictions, and the page that shows them.

The models are trained on drawn shapes, so the places are known exactly; outlines are those of the
stock model. Label Studio checks predictions strictly here, but for what it does not look at.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import requests
import yaml
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image
from playwright.sync_api import Page

from conftest import ARTIFACTS, IMAGES, Stack, new_stack
from shapes import shapes
from test_page import open_page, open_task

pytestmark = pytest.mark.docker

Pixels = npt.NDArray[np.bool_]
OBB = ("plank", "brick")
POINTS = ("tip", "left", "right")


def labels(*names: str, tag: str = "Label", attributes: str = "") -> str:
    return "".join(f'<{tag} value="{name}" background="#00ff00" {attributes}/>' for name in names)


def view(inside: str) -> str:
    return f'<View><Image name="image" value="$image"/>{inside}</View>'


def control(tag: str, inside: str, attributes: str = "", name: str = "c") -> str:
    return f'<{tag} name="{name}" toName="image" {attributes}>{inside}</{tag}>'


@dataclass(frozen=True)
class Case:
    """A labeling config, the model and the image that it is for."""

    model: str
    config: str
    image: str = ""


POSE = "".join(
    f'<Label value="{name}" predicted_values="arrow" model_index="{index}" background="#00ff00"/>'
    for index, name in enumerate(POINTS)
)
SEEN = ("Person", "Bus")
CASES = {
    "turned boxes": Case(
        "obb", control("RectangleLabels", labels(*OBB), 'model_obb="true" canRotate="true"')
    ),
    "upright boxes of turned ones": Case("obb", control("RectangleLabels", labels(*OBB))),
    "boxes of outlines": Case("segment", control("RectangleLabels", labels(*SEEN))),
    "outlines": Case("segment", control("PolygonLabels", labels(*SEEN))),
    "brush": Case("segment", control("BrushLabels", labels(*SEEN))),
    "bitmask": Case("segment", control("BitmaskLabels", labels(*SEEN))),
    "ellipses": Case("segment", control("EllipseLabels", labels(*SEEN))),
    "labels beside": Case(
        "segment",
        control("Labels", labels(*SEEN), name="l") + control("Polygon", ""),
    ),
    "points": Case(
        "pose",
        control("RectangleLabels", labels("arrow"), name="c_bbox")
        + control("KeyPointLabels", POSE),
    ),
    "points alone": Case("pose", control("KeyPointLabels", POSE, 'model_add_bboxes="false"')),
    "choice": Case(
        "classify", control("Choices", labels("disc", "plank", "star", tag="Choice"))
    ),
    "taxonomy": Case(
        "classify",
        control(
            "Taxonomy",
            '<Choice value="round">' + labels("disc", tag="Choice") + "</Choice>"
            '<Choice value="other">' + labels("plank", "star", tag="Choice") + "</Choice>",
        ),
    ),
    "is it there": Case(
        "segment", control("Choices", labels("Person", "Cat", tag="Choice"), 'choice="multiple"')
    ),
    "how many": Case("segment", control("Number", "", 'model_count="person"')),
    "how many at most": Case(
        "segment", control("Rating", "", 'model_count="person" maxRating="3"')
    ),
    "several": Case(
        "segment",
        control("RectangleLabels", labels("Bus"), name="box")
        + control("PolygonLabels", labels("Person"), name="outline")
        + control("Choices", labels("Person", "Cat", tag="Choice"), 'choice="multiple"', name="has")
        + control("Choices", labels("Person", tag="Choice"), 'perRegion="true"', name="each"),
    ),
}  # fmt: skip


def untrained_sam(stack: Stack) -> str:
    """Puts the weights of a MobileSAM that nobody has trained where the models are."""
    folder = stack.folder / "untrained"
    folder.mkdir()
    folder.chmod(0o777)  # the image's user is not this one
    here = {str(Path(__file__).resolve().parent): "/tests", str(folder): "/out"}
    code = "import pathlib, sam_inside as s; s.untrained('mobile_sam', pathlib.Path('/out'))"
    stack.docker.containers.run(
        IMAGES["backend"], ["python", "-c", code], remove=True, network_mode="none",
        environment={"PYTHONPATH": "/app:/tests", "PYTHONDONTWRITEBYTECODE": "1"},
        volumes={path: {"bind": there, "mode": "rw"} for path, there in here.items()},
    )  # fmt: skip
    shutil.copy(folder / "mobile_sam.pt", stack.folder / "models")
    return "mobile_sam.pt"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The services with a model for each task."""
    found = shapes()
    with new_stack() as made:
        models: dict[str, Any] = {}
        models["segment"] = {"weights": "yolov8n-seg.pt", "task": "segment", "conf": 0.4}
        for task in ("obb", "pose", "classify"):
            shutil.copy(found / f"{task}.pt", made.folder / "models")
            models[task] = {"weights": f"{task}.pt", "task": task, "conf": 0.4}
        models["sam"] = {"weights": untrained_sam(made), "task": "sam"}
        for task in ("obb", "pose", "classify"):
            folder = made.datasets / task
            folder.mkdir()
            shutil.copy(found / f"{task}.jpg", folder / "image.jpg")
        (made.datasets / "segment").mkdir()
        shutil.copy(made.datasets / "demo" / "bus.jpg", made.datasets / "segment" / "image.jpg")
        (made.folder / "models" / "models.yaml").write_text(yaml.safe_dump(models))
        assert made.post("/reload", {}).status_code == 200
        yield made


@pytest.fixture(scope="module")
def truth() -> Any:
    """Task to the shapes on its image: class, and corners in pixels."""
    return json.loads((shapes() / "truth.json").read_text())


@pytest.fixture(scope="module")
def stored(stack: Stack) -> dict[str, Any]:
    """The one prediction of each case, as Label Studio has it: setup made all of them at once."""
    projects = [
        {
            "title": title,
            "models": [case.model],
            "storage": {"path": case.model},
            "label_config": view(case.config),
        }
        for title, case in CASES.items()
    ]
    done = stack.setup(*projects)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for title in CASES:
        (prediction,) = stack.predictions(stack.project(title).id)["image.jpg"]
        assert prediction.score is not None, title
        found[title] = prediction
    return found


# Geometry


def polygon(corners: Any, width: int, height: int) -> Pixels:
    canvas = np.zeros((height, width), np.uint8)
    exact = np.round((np.asarray(corners) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [exact], 1, cv2.LINE_8, 4)
    return canvas.astype(bool)


def pixels(region: dict[str, Any]) -> Pixels:
    """What a region covers of its image."""
    value, width, height = region["value"], region["original_width"], region["original_height"]
    kind = region["type"].removesuffix("labels")
    if kind == "brush":
        flat = decode_rle(value["rle"]).reshape(height, width, 4)
        return np.asarray(flat[..., 3] > 0)
    if kind == "bitmask":
        data = base64.b64decode(value["imageDataURL"].partition(",")[2])
        return np.asarray(np.array(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3] > 0)
    side = np.array([width, height]) / 100
    if kind == "polygon":
        return polygon(np.array(value["points"]) * side, width, height)
    at = np.array([value["x"], value["y"]]) * side
    turn = np.deg2rad(value["rotation"])
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    if kind == "ellipse":
        around = np.linspace(0, 2 * np.pi, 90)
        radii = np.array([value["radiusX"], value["radiusY"]]) * side
        corners = np.stack([np.cos(around), np.sin(around)], 1) * radii
    else:
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (
            np.array([value["width"], value["height"]]) * side
        )
    return polygon(corners @ axes + at, width, height)


def iou(one: Pixels, other: Pixels) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def label_of(region: dict[str, Any]) -> str:
    return str(region["value"][region["type"]][0])


def matched(regions: list[dict[str, Any]], shapes: list[tuple[str, Pixels]]) -> list[float]:
    """How well each shape is covered by a region with its label; as many regions as shapes."""
    assert sorted(map(label_of, regions)) == sorted(name for name, _ in shapes)
    return [
        max(iou(pixels(region), shape) for region in regions if label_of(region) == name)
        for name, shape in shapes
    ]


SIDE = 640


def drawn(found: list[Any], upright: bool = False) -> list[tuple[str, Pixels]]:
    shapes = []
    for name, corners in found:
        points = np.asarray(corners)
        if upright:
            (x0, y0), (x1, y1) = points.min(0), points.max(0)
            points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        shapes.append((name, polygon(points, SIDE, SIDE)))
    return shapes


# Stored


def test_turned_boxes_lie_on_what_is_drawn(stored: Any, truth: Any) -> None:
    regions = stored["turned boxes"].result
    assert min(matched(regions, drawn(truth["obb"]))) > 0.5
    assert any(1 < region["value"]["rotation"] % 90 < 89 for region in regions)


def test_upright_boxes_of_turned_ones_are_their_bounds(stored: Any, truth: Any) -> None:
    regions = stored["upright boxes of turned ones"].result
    assert min(matched(regions, drawn(truth["obb"], upright=True))) > 0.5
    assert {region["value"]["rotation"] for region in regions} == {0}


def test_outlines_brush_and_bitmask_are_the_same_objects(stored: Any) -> None:
    brush = [(label_of(r), pixels(r)) for r in stored["brush"].result]
    assert sorted(name for name, _ in brush).count("Person") >= 3
    bitmask = matched(stored["bitmask"].result, brush)
    assert min(bitmask) == 1.0
    boxes = stored["boxes of outlines"].result
    for name, mask in brush:
        outlines = [pixels(r) for r in stored["outlines"].result if label_of(r) == name]
        # An object of several parts is several outlines.
        parts = [outline for outline in outlines if (outline & mask).sum() > 0.9 * outline.sum()]
        assert iou(np.any(parts, axis=0), mask) > 0.95
        inside = max((pixels(r) & mask).sum() / mask.sum() for r in boxes if label_of(r) == name)
        assert inside > 0.98
        ellipses = [pixels(r) for r in stored["ellipses"].result if label_of(r) == name]
        assert max(iou(ellipse, mask) for ellipse in ellipses) > 0.6


def test_a_shape_without_labels_and_its_labels_are_a_pair(stored: Any) -> None:
    pairs: dict[str, list[Any]] = {}
    for region in stored["labels beside"].result:
        pairs.setdefault(region["id"], []).append(region)
    assert len(pairs) == len(stored["outlines"].result)
    for shape, named in pairs.values():
        assert (shape["from_name"], named["from_name"]) == ("c", "l")
        assert shape["value"]["points"] == named["value"]["points"]
        assert named["value"]["labels"][0] in SEEN


def test_points_are_where_they_are_drawn_each_under_its_body(stored: Any, truth: Any) -> None:
    regions = stored["points"].result
    boxes = {r["id"]: r for r in regions if r["type"] == "rectanglelabels"}
    assert {r["from_name"] for r in boxes.values()} == {"c_bbox"}
    assert min(matched(list(boxes.values()), drawn(truth["pose"], upright=True))) > 0.5
    points = [r for r in regions if r["type"] == "keypointlabels"]
    assert len(points) == 3 * len(boxes)
    for _, corners in truth["pose"]:
        for name, (x, y) in zip(POINTS, corners, strict=True):
            near = [
                np.hypot(p["value"]["x"] / 100 * SIDE - x, p["value"]["y"] / 100 * SIDE - y)
                for p in points
                if label_of(p) == name and p["parentID"] in boxes
            ]
            assert min(near) < 0.1 * SIDE, name
    alone = stored["points alone"].result
    assert {r["type"] for r in alone} == {"keypointlabels"}
    assert len(alone) == len(points)


def test_what_an_image_is_and_has_is_chosen(stored: Any, truth: Any) -> None:
    ((name, _),) = truth["classify"]
    (choice,) = stored["choice"].result
    assert choice["value"]["choices"] == [name]
    (path,) = stored["taxonomy"].result
    assert path["value"]["taxonomy"] == [["round" if name == "disc" else "other", name]]
    (there,) = stored["is it there"].result
    assert there["value"]["choices"] == ["Person"]


def test_objects_are_counted_and_rated_no_higher_than_the_tag_allows(stored: Any) -> None:
    persons = sum(label_of(r) == "Person" for r in stored["boxes of outlines"].result)
    (number,) = stored["how many"].result
    assert number["value"]["number"] == persons
    (rating,) = stored["how many at most"].result
    assert rating["value"]["rating"] == min(persons, 3)


def test_several_controls_get_each_its_own_and_what_people_fill_in_stays_empty(
    stored: Any,
) -> None:
    found: dict[str, set[str]] = {}
    for region in stored["several"].result:
        found.setdefault(region["from_name"], set()).add(label_of(region))
    assert found == {"box": {"Bus"}, "outline": {"Person"}, "has": {"Person"}}


# Seen


SERIALIZED = "() => window.Htx.annotationStore.selected.serializeAnnotation()"
SHOWN = "turned boxes", "outlines", "brush", "bitmask", "ellipses", "labels beside", "points"


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with open_page(stack) as page:
        yield page


@pytest.mark.browser
@pytest.mark.parametrize("title", CASES)
def test_the_page_holds_what_is_stored_and_draws_it(
    stack: Stack, stored: Any, page: Page, title: str
) -> None:
    project = stack.project(title)
    (task,) = stack.tasks(project.id)
    open_task(stack, page, project.id, task.id)
    page.wait_for_timeout(1000)  # the canvas draws after the picture has loaded
    held = page.evaluate(SERIALIZED)
    result = stored[title].result
    assert sorted(r["type"] for r in held) == sorted(r["type"] for r in result)
    assert sorted(names(r) for r in held) == sorted(names(r) for r in result)
    shot = ARTIFACTS / f"control-{title.replace(' ', '-')}.png"
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(shot))
    if title in SHOWN:
        assert coloured(page, shot, result) > 0.6


def names(region: dict[str, Any]) -> str:
    value = region["value"]
    return json.dumps([region["from_name"], value.get(region["type"])])


def coloured(page: Page, shot: Path, regions: list[dict[str, Any]]) -> float:
    """The part of the regions' edges near which the page has their colour, green, 0 to 1."""
    canvas = page.locator(".konvajs-content").first.bounding_box()
    assert canvas is not None
    seen = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    green = seen[..., 1] - np.maximum(seen[..., 0], seen[..., 2])
    green = cv2.dilate((green > 40).astype(np.uint8), np.ones((9, 9), np.uint8))
    found = []
    for region in regions:
        if region["type"] in ("keypointlabels", "labels"):
            continue
        mask = pixels(region).astype(np.uint8)
        edges, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        at = np.concatenate(edges)[:, 0]
        scale = min(canvas["width"] / mask.shape[1], canvas["height"] / mask.shape[0])
        x = np.clip(canvas["x"] + at[:, 0] * scale, 0, seen.shape[1] - 1).astype(int)
        y = np.clip(canvas["y"] + at[:, 1] * scale, 0, seen.shape[0] - 1).astype(int)
        found.append(green[y, x].mean())
    return float(np.mean(found))


# Under the mouse

TOOLS = "".join(
    control(tag, labels("Person"), 'smart="true" smartOnly="true"', name=tag.lower())
    for tag in ("KeyPointLabels", "RectangleLabels")
)
SUGGESTED = "() => window.Htx.annotationStore.selected.suggestions.size"


@pytest.fixture(scope="module")
def pointing(stack: Stack) -> Any:
    """A project with outlines, and tools to point at objects."""
    project = {
        "title": "smart",
        "models": ["segment"],
        "storage": {"path": "segment"},
        "label_config": view(control("PolygonLabels", labels("Person")) + TOOLS),
    }
    done = stack.setup(project)
    assert done.returncode == 0, done.stdout + done.stderr
    return stack.project("smart")


@pytest.mark.browser
@pytest.mark.parametrize("tool", ["rectangle-tool", "key-point-tool"])
def test_an_object_that_is_pointed_at_is_drawn_by_the_model(
    stack: Stack, stored: Any, pointing: Any, page: Page, tool: str
) -> None:
    person = max(
        (r for r in stored["outlines"].result if label_of(r) == "Person"), key=lambda r: r["score"]
    )
    outline = np.array(person["value"]["points"]) / 100
    (task,) = stack.tasks(pointing.id)
    page.goto(f"{stack.url}/projects/{pointing.id}/data?task={task.id}")
    page.locator(".konvajs-content canvas").first.wait_for(timeout=60_000)
    page.get_by_label("Create an annotation").click()
    page.wait_for_timeout(1000)
    if not page.locator(".lsf-tool_smart").count():  # the page remembers it
        page.locator("label:has-text('Auto-Annotation')").first.click()
    page.locator(".lsf-tool_smart").first.hover()
    page.locator(f"button.lsf-tool_smart[aria-label={tool}]").first.click(force=True)
    number = 1 if tool == "key-point-tool" else 2
    page.locator("[class*=lsf-label]:text-is('Person')").nth(number).click()
    page.wait_for_timeout(500)

    canvas = page.locator(".konvajs-content").first.bounding_box()
    assert canvas is not None
    sides = np.array([person["original_width"], person["original_height"]])
    scale = min(np.array([canvas["width"], canvas["height"]]) / sides)

    def at(place: Any) -> list[float]:
        found: list[float] = (place * sides * scale + [canvas["x"], canvas["y"]]).tolist()
        return found

    with page.expect_request("**/interactive-annotating*"):
        if tool == "rectangle-tool":
            page.mouse.move(*at(outline.min(0)))
            page.mouse.down()
            page.mouse.move(*at((outline.min(0) + outline.max(0)) / 2), steps=5)
            page.mouse.move(*at(outline.max(0)), steps=5)
            page.mouse.up()
        else:
            mask = pixels(person)
            inside = np.argwhere(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) > 8)
            page.mouse.click(*at(inside[len(inside) // 2][::-1] / sides))
    page.wait_for_function(SUGGESTED, timeout=20_000)
    page.screenshot(path=str(ARTIFACTS / f"smart-{tool}.png"))
    page.get_by_test_id("bottombar-accept-suggestions-button").click()
    page.wait_for_timeout(500)
    (drawn,) = [r for r in page.evaluate(SERIALIZED) if r["type"] == "polygonlabels"]
    assert label_of(drawn) == "Person"
    assert iou(pixels(drawn), pixels(person)) > 0.8


def test_a_sam_beside_the_model_draws_what_the_model_does_not_know(
    stack: Stack, stored: Any
) -> None:
    done = stack.setup(
        {
            "title": "sam",
            "models": ["segment", "sam"],
            "storage": {"path": "segment"},
            "label_config": view(control("BrushLabels", labels("Person", "Door")) + TOOLS),
        }
    )
    assert done.returncode == 0, done.stdout + done.stderr
    project = stack.project("sam")
    ((_, predictions),) = stack.predictions(project.id).items()
    assert [one.model_version.partition("@")[0] for one in predictions] == ["segment"]
    (task,) = stack.tasks(project.id)
    (connection,) = stack.api.ml.list(project=project.id)
    person = max(
        (r for r in stored["brush"].result if label_of(r) == "Person"), key=lambda r: r["score"]
    )
    mask = pixels(person)
    inside = np.argwhere(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) > 8)
    y, x = inside[len(inside) // 2] / mask.shape * 100

    def click(label: str) -> tuple[str, list[Any]]:
        value = {"x": float(x), "y": float(y), "width": 0.4, "keypointlabels": [label]}
        drawn = {"type": "keypointlabels", "from_name": "keypointlabels", "to_name": "image"}
        answer = requests.post(
            f"{stack.url}/api/ml/{connection.id}/interactive-annotating",
            json={"task": task.id, "context": {"result": [{**drawn, "value": value}]}},
            headers={"Authorization": f"Token {stack.env['LABEL_STUDIO_API_KEY']}"},
            timeout=120,
        )
        found = answer.json()["data"]
        return str(found["model_version"]).partition("@")[0], list(found["result"])

    name, (region,) = click("Person")
    assert name == "segment"
    assert iou(pixels(region), mask) > 0.9
    # No class of the model is a door, so this waits for the SAM to have looked at the image.
    name, (region,) = click("Door")
    assert (name, region["from_name"], label_of(region)) == ("sam", "c", "Door")
    assert pixels(region).any()
    began = time.monotonic()
    name, (again,) = click("Person")
    assert (name, label_of(again)) == ("sam", "Person")
    assert time.monotonic() - began < 20
    assert (pixels(again) == pixels(region)).all()  # the same place, whatever it is called


# Videos

RATE, FRAMES = 25, 40
STAR = (1, 15), (26, 40)
"""The first and the last frame of the times in which a star is seen."""


def film(path: Path, frames: Iterable[Any]) -> None:
    """Writes ``frames`` as a video that Chromium plays: WebM, VP8."""
    pictures = list(frames)
    height, width = pictures[0].shape[:2]
    kind = cv2.VideoWriter.fourcc(*"VP80")
    file = cv2.VideoWriter(str(path), kind, RATE, (width, height))
    for picture in pictures:
        file.write(picture)
    file.release()
    path.chmod(0o644)


def walk(bus: Path) -> tuple[list[Any], list[float]]:
    """The frames of a person that walks from left to right, and where it is in each: the centre, in
    parts of the width."""
    image = cv2.imread(str(bus))
    assert image is not None
    person = cv2.resize(image[390:910, 210:350], (129, 480))
    frames, places = [], []
    for frame in range(FRAMES):
        left = 10 + 10 * frame
        canvas = np.full((480, 640, 3), 110, np.uint8)
        canvas[:, left : left + 129] = person
        frames.append(canvas)
        places.append((left + 64.5) / 640)
    return frames, places


@pytest.fixture(scope="module")
def films(stack: Stack) -> tuple[dict[str, Any], list[float]]:
    """The regions of a video for each control, by title; and where the person is in each frame."""
    for name in ("walk", "star"):
        (stack.datasets / name).mkdir()
    frames, places = walk(stack.datasets / "demo" / "bus.jpg")
    film(stack.datasets / "walk" / "a.webm", frames)
    star = cv2.imread(str(stack.datasets / "classify" / "image.jpg"))
    assert star is not None
    other = np.full_like(star, 60)
    cv2.circle(other, (SIDE // 2, SIDE // 2), SIDE // 5, (200, 180, 240), -1, cv2.LINE_AA)
    there = {frame for first, last in STAR for frame in range(first, last + 1)}
    film(stack.datasets / "star" / "a.webm",
         (star if frame in there else other for frame in range(1, FRAMES + 1)))  # fmt: skip
    controls = {
        "walk": ("segment", '<VideoRectangle name="box" toName="video" model_tracker="bytetrack"/>'
                 f'<Labels name="label" toName="video">{labels("Person")}</Labels>'),
        "star": ("classify", '<TimelineLabels name="label" toName="video">'
                 f'{labels("star")}</TimelineLabels>'),
    }  # fmt: skip
    done = stack.setup(
        *(
            {
                "title": title,
                "models": [model],
                "storage": {"path": title, "regex": r".*\.webm$"},
                "label_config": f'<View><Video name="video" value="$video" frameRate="{RATE}"/>'
                f"{control}</View>",
            }
            for title, (model, control) in controls.items()
        )
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for title in controls:
        (prediction,) = stack.api.predictions.list(project=stack.project(title).id)
        found[title] = prediction.result
    return found, places


def test_an_object_is_followed_through_a_video(films: Any) -> None:
    regions, places = films
    (region,) = regions["walk"]
    assert region["value"]["labels"] == ["Person"]
    sequence = region["value"]["sequence"]
    shown = [key for key in sequence if key["enabled"]]
    assert shown[0]["frame"] <= 5
    assert shown[-1]["frame"] >= FRAMES - 5
    # Few keyframes say it all, since it walks straight on.
    assert len(sequence) < FRAMES / 2
    for key in shown:
        centre = (key["x"] + key["width"] / 2) / 100
        assert centre == pytest.approx(places[key["frame"] - 1], abs=0.03)
        assert key["time"] == pytest.approx((key["frame"] - 1) / RATE)


def test_times_are_those_in_which_it_is_seen(films: Any) -> None:
    found = [region["value"] for region in films[0]["star"]]
    assert [value["timelinelabels"] for value in found] == [["star"], ["star"]]
    spans = [(span["start"], span["end"]) for value in found for span in value["ranges"]]
    assert spans == list(STAR)


@pytest.mark.browser
def test_the_page_draws_the_box_of_a_video_where_the_object_is(
    stack: Stack, films: Any, page: Page
) -> None:
    regions, places = films
    opened(stack, page, "walk")
    (held,) = page.evaluate(SERIALIZED)
    assert held["value"]["labels"] == ["Person"]
    # The page reckons times anew from the frames.
    kept, stored = (
        [{key: part for key, part in row.items() if key != "time"} for row in value["sequence"]]
        for value in (held["value"], regions["walk"][0]["value"])
    )
    assert kept == stored
    video = "window.Htx.annotationStore.selected.names.get('video')"
    for frame in (5, 20, 35):
        page.evaluate(f"() => {video}.setFrame({frame})")
        page.wait_for_function(f"() => {video}.frame === {frame}", timeout=10_000)
        shot, there = ARTIFACTS / f"video-{frame}.png", pytest.approx(places[frame - 1], abs=0.03)
        # The picture of that frame comes, then the box is drawn: on a busy machine after seconds.
        for _ in range(20):
            page.wait_for_timeout(1000)
            page.screenshot(path=str(shot))
            if (drawn := sum(green_edges(page, shot)) / 2) == there:
                break
        assert drawn == there


@pytest.mark.browser
def test_the_page_shows_times_on_the_timeline(stack: Stack, films: Any, page: Page) -> None:
    opened(stack, page, "star")
    held = page.evaluate(SERIALIZED)
    assert [region["value"]["ranges"] for region in held] == [
        [{"start": first, "end": last}] for first, last in STAR
    ]
    page.screenshot(path=str(ARTIFACTS / "video-timeline.png"))
    seen = np.asarray(Image.open(ARTIFACTS / "video-timeline.png").convert("RGB")).astype(int)
    # Below the picture each time is a bar in the label's colour: as long as the time, one further
    # down than the other.
    green = seen[..., 1] - np.maximum(seen[..., 0], seen[..., 2]) > 40
    rows = [np.flatnonzero(row) for row in green[:, :1080] if row.sum() > 100]
    bars = Counter((int(row[0]), len(row)) for row in rows if row[-1] - row[0] < 1.1 * len(row))
    (first, length), (second, other) = sorted(bar for bar, _ in bars.most_common(2))
    assert length == pytest.approx(other, abs=3)
    (start, end), (again, _) = STAR
    assert (second - first) / length == pytest.approx((again - start) / (end - start + 1), rel=0.1)


def opened(stack: Stack, page: Page, title: str) -> None:
    """Opens the one task of a project with a video, once its regions are there."""
    project = stack.project(title)
    (task,) = stack.tasks(project.id)
    open_task(stack, page, project.id, task.id, "canvas")
    page.wait_for_function("() => document.querySelector('video')?.readyState >= 2", timeout=30_000)
    page.wait_for_timeout(1000)
    ARTIFACTS.mkdir(exist_ok=True)


def green_edges(page: Page, shot: Path) -> tuple[float, float]:
    """Where the first and the last column of the video are in which a line of the label's colour
    stands, in parts of its width, or NaN; of 640 x 480 pixels."""
    seen = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    green = seen[..., 1] - np.maximum(seen[..., 0], seen[..., 2]) > 60
    canvas = page.locator(".konvajs-content").first.bounding_box()
    assert canvas is not None
    x, y = round(canvas["x"]), round(canvas["y"])
    part = green[y : y + round(canvas["height"]), x : x + round(canvas["width"])]
    columns = np.flatnonzero(part.sum(axis=0) > 0.3 * len(part))
    if not len(columns):
        return math.nan, math.nan  # no box is drawn
    # The video, 640 pixels wide, is in the middle of the canvas, as large as it is.
    left, right = (columns[[0, -1]] - (part.shape[1] - 640) / 2) / 640
    return float(left), float(right)
