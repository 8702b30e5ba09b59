"""Runs in the backend's image: trains small models on drawn shapes, whose places are known exactly.

    python train_shapes.py PRETRAINED FOLDER

PRETRAINED: yolov8n.pt, whose backbone they keep. FOLDER gets ``<task>.pt`` for obb, pose and
classify, and ``<task>.jpg``, an image for each, with ``truth.json``, which says what is drawn
there: class and corners, in pixels. A model learns its image by heart: it is asked for regions in
known places, not for knowledge of shapes, and that would take ten times as long.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch  # type: ignore[import-not-found,unused-ignore]
from ultralytics import YOLO

SIZE = 160
"""Both sides of an image, in pixels."""
IMAGES = 8
EPOCHS = {"obb": 110, "pose": 110, "classify": 40}
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


def shown(task: str) -> tuple[Any, list[tuple[int, Points]]]:
    """The image of ``task``, four times as large as the network takes it, and what is on it."""
    return draw(np.random.default_rng(9), task, 4 * SIZE)


def write(folder: Path, task: str) -> Path:
    """The dataset of ``task`` in ``folder``; what ultralytics takes as ``data``."""
    random = np.random.default_rng(0)
    large, shapes = shown(task)
    small = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)  # as it is predicted
    drawn = [(small, [(kind, corners / 4) for kind, corners in shapes])]
    drawn += [draw(random, task) for _ in range(IMAGES - 1)]
    for number, (image, shapes) in enumerate(drawn):
        if task == "classify":
            place = folder / "train" / KINDS[task][shapes[0][0]] / f"{number}.png"
        else:
            place = folder / "images" / f"{number}.png"
            text = folder / "labels" / f"{number}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("\n".join(label(task, *shape, SIZE) for shape in shapes))
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), image)
    if task == "classify":
        (folder / "val").symlink_to("train")
        return folder
    data = {"path": str(folder), "train": "images", "val": "images",
            "names": dict(enumerate(KINDS[task]))}  # fmt: skip
    if task == "pose":
        data |= {"kpt_shape": [3, 3], "flip_idx": [0, 2, 1]}
    (folder / "data.yaml").write_text(json.dumps(data))
    return folder / "data.yaml"


def train(task: str, pretrained: Path, output: Path) -> None:
    ending = "cls" if task == "classify" else task
    with tempfile.TemporaryDirectory() as name:
        model = YOLO(f"yolov8n-{ending}.yaml").load(str(pretrained))
        model.train(
            data=str(write(Path(name, "data"), task)), epochs=EPOCHS[task], imgsz=SIZE,
            batch=IMAGES, nbs=IMAGES, device="cpu", workers=0, seed=0, deterministic=True,
            plots=False, val=False, save=False, project=name, name="run", exist_ok=True,
            verbose=False, optimizer="AdamW", lr0=0.002, warmup_epochs=0, freeze=9, cache=True,
            auto_augment=None, mosaic=0.0, erasing=0.0, scale=0.0, translate=0.0, fliplr=0.0,
            hsv_h=0.0, hsv_s=0.0, hsv_v=0.0,
        )  # fmt: skip
        shutil.copyfile(Path(name, "run", "weights", "last.pt"), output)


def main(pretrained: str, folder: str) -> None:
    torch.set_num_threads(2)
    place, truth = Path(folder), {}
    for task, kinds in KINDS.items():
        train(task, Path(pretrained), place / f"{task}.pt")
        image, shapes = shown(task)
        cv2.imwrite(str(place / f"{task}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        truth[task] = [[kinds[index], corners.tolist()] for index, corners in shapes]
    (place / "truth.json").write_text(json.dumps(truth))


if __name__ == "__main__":
    main(*sys.argv[1:])
