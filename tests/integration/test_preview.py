"""`ls-yolo preview` on a live project: what it writes shows the boxes where they are stored."""

from __future__ import annotations

import base64
import io
import re
import tarfile
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import ARTIFACTS, Stack
from ls_yolo.cli import preview

pytestmark = pytest.mark.docker
FOLDER = "/data/preview"


def run(stack: Stack, project: int, *more: str, folder: str = FOLDER) -> tuple[int, str]:
    """Exit code and output of the command, in the backend's container as people call it."""
    words = ["ls-yolo", "preview", "--project", str(project), "--output", folder, *more]
    code, output = stack.container("backend").exec_run(words)
    return code, output.decode()


@pytest.fixture(scope="module")
def made(stack: Stack, demo: Any) -> tuple[str, dict[str, bytes]]:
    """What the command prints of the demo, and the files that it writes, the second time too."""
    for more in (["--tasks", "1"], []):
        code, said = run(stack, demo.id, *more)
        assert code == 0, said
    chunks, _ = stack.container("backend").get_archive(FOLDER)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        names = ("preview.html", "preview.png")
        read = {name: archive.extractfile(f"preview/{name}") for name in names}
        files = {name: file.read() for name, file in read.items() if file}
        assert len(archive.getmembers()) == 3  # the folder, and nothing else
    ARTIFACTS.mkdir(exist_ok=True)
    for name, data in files.items():
        (ARTIFACTS / name).write_bytes(data)
    return said, files


@pytest.fixture(scope="module")
def pictures(stack: Stack, demo: Any, made: Any) -> dict[str, Any]:
    """The pictures of the page, by file name of the task's image: shape (h, w, 3), RGB."""
    text = made[1]["preview.html"].decode()
    names = {task.id: stack.file_name(task) for task in stack.tasks(demo.id)}
    found = re.findall(r'base64,([^"]+)".*?<figcaption>task (\d+): ', text)
    return {
        names[int(task)]: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
        for data, task in found
    }


def test_every_task_is_told_with_its_labels(stack: Stack, demo: Any, made: Any) -> None:
    said, files = made
    (bus,) = [task for task in stack.tasks(demo.id) if stack.file_name(task) == "bus.jpg"]
    (line,) = [line for line in said.splitlines() if line.startswith(f"task {bus.id}: ")]
    assert "1 Bus" in line
    assert "Person" in line
    text = files["preview.html"].decode()
    assert line in text
    assert f"<h1>{demo.title}</h1>" in text
    assert text.count("<figure") == 5


def test_each_stored_box_is_drawn_on_its_picture_and_nothing_else(
    stack: Stack, demo: Any, pictures: Any
) -> None:
    drawn = 0
    for name, (stored,) in stack.predictions(demo.id).items():
        with Image.open(stack.datasets / "demo" / name) as file:
            image = file.convert("RGB")
        seen = pictures[name]
        height, width = seen.shape[:2]
        assert max(width, height) == min(preview.SIDE, max(image.size))
        plain = np.asarray(image.resize((width, height), Image.Resampling.BOX)).astype(int)
        changed = (np.abs(seen - plain).max(axis=2) > 60).astype(np.uint8)
        edges = np.zeros((height, width), np.uint8)
        for region in stored.result:
            value = region["value"]
            left, top = value["x"] * width / 100, value["y"] * height / 100
            right = left + value["width"] * width / 100
            bottom = top + value["height"] * height / 100
            corners = np.round([left, top, right, bottom]).astype(int).tolist()
            cv2.rectangle(edges, corners[:2], corners[2:], 1, 1)
            # Its label stands above its left upper corner, or inside at the top.
            cv2.rectangle(edges, (corners[0] - 90, corners[1] - 20),
                          (corners[0] + 100, max(corners[1], 20)), 2, cv2.FILLED)  # fmt: skip
            drawn += 1
        near = cv2.dilate(changed, np.ones((7, 7), np.uint8)) > 0
        if (edges == 1).any():
            assert near[edges == 1].mean() > 0.9, name
        # Away from boxes and labels the image is as it was.
        away = cv2.dilate(edges, np.ones((9, 9), np.uint8)) == 0
        assert changed[away].mean() < 0.02, name
    assert drawn >= 7


def test_the_sheet_is_the_same_pictures_as_one_image(pictures: Any, made: Any) -> None:
    sheet = np.asarray(Image.open(io.BytesIO(made[1]["preview.png"])).convert("RGB"))
    assert sheet.shape[1] == preview.COLUMNS * preview.CELL
    for picture in pictures.values():
        factor = (preview.CELL - preview.GAP) / max(picture.shape[:2])
        size = [max(round(side * factor), 1) for side in picture.shape[1::-1]]
        small = cv2.resize(picture.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
        assert cv2.matchTemplate(sheet, small, cv2.TM_CCOEFF_NORMED).max() > 0.98


@pytest.mark.parametrize(
    ("project", "folder", "said"),
    [
        (99999, FOLDER, "project 99999: Label Studio has none of this number"),
        (1, "/app/preview", "--output /app/preview: cannot be written: Read-only file system"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_predicted(
    stack: Stack, demo: Any, project: int, folder: str, said: str
) -> None:
    code, output = run(stack, project, folder=folder)
    assert (code, output.count("\n")) == (1, 1), output
    assert said in output
