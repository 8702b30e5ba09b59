"""Runs in the backend's image: trains small models on drawn shapes, whose places are known exactly.

    python train_shapes.py PRETRAINED FOLDER

PRETRAINED: yolov8n.pt, whose backbone they begin with. FOLDER gets ``<task>.pt`` for obb, pose and
classify, and ``<task>.jpg``, an image for each that it has not seen, with ``truth.json``, which
says what is drawn there: class and corners, in pixels.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch  # type: ignore[import-not-found,unused-ignore]
from ultralytics import YOLO

SIZE = 160
"""Both sides of an image, in pixels."""
IMAGES, EPOCHS = 96, 40
KINDS = {"obb": ["plank", "brick"], "pose": ["arrow"],
         "classify": ["disc", "plank", "star"]}  # fmt: skip
SMOOTH = 4
"""Corners are drawn at so many bits below a pixel."""

Points = npt.NDArray[np.float64]
Random = np.random.Generator


def turned(angle: float) -> Points:
    """What turns points, as rows, by ``angle`` in radians, clockwise as one sees it."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def outline(kind: str, size: float, angle: float) -> Points:
    """The corners of a shape around 0, 0; ``size`` is its longest side in pixels; shape (n, 2)."""
    if kind in ("plank", "brick"):
        half = np.array([size, size / (4 if kind == "plank" else 2)]) / 2
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    elif kind == "arrow":  # tip, left, right as one looks along it
        corners = np.array([[0.5, 0], [-0.5, -0.3], [-0.5, 0.3]]) * size
    elif kind == "disc":
        around = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        corners = np.stack([np.cos(around), np.sin(around)], 1) * size / 2
    else:  # a star of five points
        around = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        radius = np.where(np.arange(10) % 2, size / 4.5, size / 2)[:, None]
        corners = np.stack([np.cos(around), np.sin(around)], 1) * radius
    return corners @ turned(angle)


def background(random: Random, side: int) -> Any:
    """Dark and grainy, so that there is something to tell shapes from; uint8 (side, side, 3)."""
    coarse = random.uniform(20, 90, (side // 20, side // 20, 3)).astype(np.float32)
    grain = random.normal(0, 8, (side, side, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (side, side)) + grain, 0, 255).astype(np.uint8)


def draw(random: Random, task: str, side: int = SIZE) -> tuple[Any, list[tuple[int, Points]]]:
    """An image of ``side`` pixels, and of each shape on it the class and the corners in pixels."""
    image = background(random, side)
    shapes: list[tuple[int, Points]] = []
    taken: list[tuple[Any, float]] = []
    unit = side / SIZE
    for _ in range(1 if task == "classify" else int(random.integers(2, 5))):
        index = int(random.integers(len(KINDS[task])))
        for _ in range(50):
            size = random.uniform(40, 75) * unit
            centre = random.uniform(0.5 * size + 2, side - 0.5 * size - 2, 2)
            # Apart from each other, so that what is hidden is no question.
            if all(np.hypot(*(centre - c)) > (size + s) / 2 + 4 * unit for c, s in taken):
                break
        else:
            continue
        taken.append((centre, size))
        corners = outline(KINDS[task][index], size, random.uniform(0, 2 * np.pi)) + centre
        colour = random.uniform(130, 255, 3).tolist()
        # Pixel edges are whole numbers here, pixel centres in OpenCV.
        exact = np.round((corners - 0.5) * (1 << SMOOTH)).astype(np.int32)
        cv2.fillPoly(image, [exact], colour, cv2.LINE_AA, SMOOTH)
        shapes.append((index, corners))
    return image, shapes


def label(task: str, index: int, corners: Points, side: int) -> str:
    """A line of a label file of ultralytics."""
    flat = [f"{value:.6f}" for value in (corners / side).ravel()]
    if task != "pose":
        return " ".join([str(index), *flat])
    low, high = corners.min(0) / side, corners.max(0) / side
    box = [*((low + high) / 2), *(high - low)]
    points = [f"{x:.6f} {y:.6f} 2" for x, y in corners / side]
    return " ".join([str(index), *(f"{value:.6f}" for value in box), *points])


def write(folder: Path, task: str, random: Random) -> Path:
    """The dataset of ``task`` in ``folder``; what ultralytics takes as ``data``."""
    for part, count in (("train", IMAGES), ("val", 8)):
        for number in range(count):
            image, shapes = draw(random, task)
            if task == "classify":
                place = folder / part / KINDS[task][shapes[0][0]] / f"{number}.png"
            else:
                place = folder / "images" / part / f"{number}.png"
                text = folder / "labels" / part / f"{number}.txt"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text("\n".join(label(task, *shape, SIZE) for shape in shapes))
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), image)
    if task == "classify":
        return folder
    data = {"path": str(folder), "train": "images/train", "val": "images/val",
            "names": dict(enumerate(KINDS[task]))}  # fmt: skip
    if task == "pose":
        data |= {"kpt_shape": [3, 3], "flip_idx": [0, 2, 1]}
    (folder / "data.yaml").write_text(json.dumps(data))
    return folder / "data.yaml"


def train(task: str, pretrained: Path, output: Path) -> None:
    ending = "cls" if task == "classify" else task
    with tempfile.TemporaryDirectory() as name:
        data = write(Path(name, "data"), task, np.random.default_rng(0))
        model = YOLO(f"yolov8n-{ending}.yaml").load(str(pretrained))
        model.train(
            data=str(data), epochs=EPOCHS if task != "classify" else 15, imgsz=SIZE, batch=16,
            device="cpu", workers=0, seed=0, deterministic=True, plots=False, val=False,
            project=name, name="run", exist_ok=True, verbose=False, optimizer="AdamW", lr0=0.002,
            warmup_epochs=1, mosaic=0.0, erasing=0.0, degrees=0.0, scale=0.3, fliplr=0.5,
        )  # fmt: skip
        shutil.copyfile(Path(name, "run", "weights", "last.pt"), output)


def unseen(folder: Path) -> Iterator[tuple[str, Any]]:
    """An image for each task, four times as large as those of the training, and what is on it."""
    random = np.random.default_rng(1)
    for task in KINDS:
        image, shapes = draw(random, task, 4 * SIZE)
        cv2.imwrite(str(folder / f"{task}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        yield task, [[KINDS[task][index], corners.tolist()] for index, corners in shapes]


def main(pretrained: str, folder: str) -> None:
    torch.set_num_threads(2)
    place = Path(folder)
    for task in KINDS:
        train(task, Path(pretrained), place / f"{task}.pt")
    (place / "truth.json").write_text(json.dumps(dict(unseen(place))))


if __name__ == "__main__":
    main(*sys.argv[1:])
