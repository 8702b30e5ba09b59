"""Every task, videos and clicks, against loops of ultralytics and against what a person waits."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from client import Backend, BenchError, Figures
from containers import backend, look, loop
from PIL import Image
from stage import SETTLE, WEIGHTS, Part, Stage, Way, ratio, turns

ROOT = Path(__file__).resolve().parents[2]
CONFIG = '<View><Image name="image" value="$image"/>{}</View>'
PERSONS = '<Label value="person"/><Label value="bus"/>'
TASKS = {
    "detect": (f'<RectangleLabels name="c" toName="image">{PERSONS}</RectangleLabels>', 640),
    "segment": (f'<PolygonLabels name="c" toName="image">{PERSONS}</PolygonLabels>', 640),
    "obb": (
        '<RectangleLabels name="c" toName="image" model_obb="true">'
        '<Label value="plank"/><Label value="brick"/></RectangleLabels>',
        640,
    ),
    "pose": (
        '<KeyPointLabels name="c" toName="image" model_add_bboxes="false">'
        '<Label value="tip" predicted_values="arrow" model_index="0"/></KeyPointLabels>',
        640,
    ),
    "classify": (
        '<Choices name="c" toName="image"><Choice value="disc"/><Choice value="plank"/>'
        '<Choice value="star"/></Choices>',
        224,
    ),
}
"""What each task is asked with, and the longest side that its network gets, in pixels."""
SHAPES = 160
"""Both sides of an image that the small models know, in pixels."""


def tasks(stage: Stage) -> Part:
    """Each task against the bare loop; see bench.py."""
    sys.path[:0] = [str(ROOT / "tests" / "integration")]
    from shapes import shapes  # small models, trained once

    options, small = stage.options, shapes()
    part = Part("8 clients, 1 task, regions made")
    shutil.copyfile(options.models / "yolov8n-seg.pt", stage.models / "segment.pt")
    shutil.copyfile(options.models / WEIGHTS, stage.models / "detect.pt")
    lines, ways, theirs = [], {}, []
    with contextlib.ExitStack() as stack:
        place = stage.place(datasets=(here := stack.enter_context(folder())))
        shutil.copytree(options.datasets / "demo", here / "demo")
        (here / "shapes").mkdir()
        for name in ("obb", "pose", "classify"):
            shutil.copyfile(small / f"{name}.pt", stage.models / f"{name}.pt")
            # As many shapes as fit, in the size that the models know.
            with Image.open(small / f"{name}.jpg") as found:
                tile = found.resize((SHAPES, SHAPES))
            image = Image.new("RGB", (4 * SHAPES, 4 * SHAPES))
            for number in range(16):
                image.paste(tile, (number % 4 * SHAPES, number // 4 * SHAPES))
            image.save(here / "shapes" / f"{name}.jpg", quality=95)
        for name, (_, imgsz) in TASKS.items():
            (stage.models / f"{name}.pt").chmod(0o644)
            lines.append(f"{name}: {{weights: {name}.pt, conf: 0.25, imgsz: {imgsz}}}\n")
        (stage.models / "models.yaml").write_text("".join(lines))
        service, _ = stack.enter_context(backend(place, stage.environ, stage.urls))
        service.settle(options.expect, SETTLE)
        for name, (config, imgsz) in TASKS.items():
            photos = name in ("detect", "segment")
            urls = stage.urls if photos else [f"/data/local-files/?d=shapes/{name}.jpg"]
            paths = stage.paths if photos else [f"/datasets/shapes/{name}.jpg"]
            run = loop(place, options.loop, f"/models/{name}.pt", "cpu", paths, name, imgsz)
            ways[f"{name}, bare loop"] = stack.enter_context(run)
            asked = service.asking(urls, CONFIG.format(config))
            ways[f"{name}, backend"] = lambda s, a=asked, n=name: a.run(8, 1, s, n)  # type: ignore[misc]
            theirs.append(f"{name}, bare loop")
            with contextlib.closing(asked.connect()) as connection:
                (answer,) = asked.ask(connection, urls[:1], name)
                print(f"{name}: {len(answer['result'])} regions", file=sys.stderr)
        turns(ways, options, part)
        part.ran = service.engine
    part.theirs = tuple(theirs)
    for name in TASKS:
        times = ratio(part, f"{name}, backend", f"{name}, bare loop")
        part.targets[f"{name}: {times:.2f} of the bare loop, at least 1.1"] = times >= 1.1
    return part


RATE, FRAMES = 24, 72
"""Of the clip: frames a second, and how many."""
VIDEO = (
    f'<View><Video name="v" value="$image" frameRate="{RATE}"/>'
    '<VideoRectangle name="b" toName="v" model_tracker="botsort"/>'
    f'<Labels name="l" toName="v">{PERSONS}</Labels></View>'
)
GROWTH = 24.0
"""Megabytes by which the service may grow once it has done some clips."""


def clip(photo: Path, path: Path) -> None:
    """A camera that moves across an image, 1280 x 720 pixels."""
    image = cv2.imread(str(photo))
    assert image is not None
    image = cv2.resize(image, (1380, round(1380 * image.shape[0] / image.shape[1])))
    file = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (1280, 720))
    for frame in range(FRAMES):
        file.write(np.ascontiguousarray(image[400 + frame :][:720, frame : frame + 1280]))
    file.release()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder of datasets that containers can read."""
    with tempfile.TemporaryDirectory(prefix="ls-yolo-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def video(stage: Stage) -> Part:
    """A clip against the loop of ultralytics; see bench.py."""
    options, bare, ours = stage.options, "YOLO.track", "backend"
    part = Part("A video of 720 lines, objects followed by BoT-SORT: frames", theirs=(bare,))
    with contextlib.ExitStack() as stack:
        place = stage.place(datasets=(here := stack.enter_context(folder())))
        clip(options.datasets / "demo" / "bus.jpg", here / "clip.mp4")
        service, name = stack.enter_context(backend(place, stage.environ, stage.urls))
        service.settle(options.expect, SETTLE)
        asked = service.asking(["/data/local-files/?d=clip.mp4"], VIDEO)
        weights, paths = f"/models/{WEIGHTS}", ["/datasets/clip.mp4"]
        run = stack.enter_context(loop(place, "track", weights, "cpu", paths))

        def one(seconds: float) -> Figures:
            found = asked.run(1, 1, seconds)  # of clips
            return {unit: figure * FRAMES if unit == "images_per_second" else figure / FRAMES
                    for unit, figure in found.items()}  # fmt: skip

        with contextlib.closing(asked.connect()) as connection:
            (answer,) = asked.ask(connection, asked.urls)
        regions = len([one for one in answer["result"] if one["type"] == "videorectangle"])
        print(f"video: {regions} objects", file=sys.stderr)
        one(options.seconds)
        before = look(name)["megabytes"]
        turns({bare: run, ours: one}, options, part)
        grown = look(name)["megabytes"] - before
        part.ran = service.engine
    times = ratio(part, ours, bare)
    part.targets[f"{times:.2f} of YOLO.track, at least 0.9"] = times >= 0.9
    text = f"{grown:.0f} MB more than after the first clips, at most {GROWTH:.0f}"
    part.targets[text] = grown <= GROWTH
    return part


SMART = (
    f'<BrushLabels name="c" toName="image">{PERSONS}</BrushLabels>'
    f'<KeyPointLabels name="k" toName="image" smart="true">{PERSONS}</KeyPointLabels>'
    f'<RectangleLabels name="r" toName="image" smart="true">{PERSONS}</RectangleLabels>'
)
SAM = """
import torch
from ultralytics.models.sam.build import build_mobile_sam
model = build_mobile_sam()
decoder = model.mask_decoder
# What is unsure of itself, ultralytics leaves out.
torch.nn.init.constant_(decoder.iou_prediction_head.layers[-1].bias, 0.6)
# Trained masks are no noise: here they are as coarse as what the decoder gets.
for layer in (decoder.output_upscaling[0], decoder.output_upscaling[3]):
    layer.weight.data[:] = layer.weight.data.mean((2, 3), keepdim=True)
torch.save(model.state_dict(), "/out/mobile_sam.pt")
"""
"""Makes a MobileSAM of random weights: it costs the same, and nothing is fetched."""
LOOKS = 120.0
"""Seconds that a SAM's first look at an image may take."""
ANSWERED = 240.0
"""Milliseconds that an answer may take: of 300 in all, Label Studio and the page take 60."""


def drawn(kind: str, control: str, **value: Any) -> Any:
    """The ``params`` of a request in which a smart tool has drawn so much, in per cent."""
    region = {"type": kind, "from_name": control, "to_name": "image", "is_positive": True}
    return {"context": {"result": [{**region, "value": {**value, kind: ["bus"]}}]}}


def looked_at(service: Backend, models: str) -> None:
    """Returns once a SAM of ``models`` answers, which has then seen the image."""
    until = time.monotonic() + LOOKS
    with contextlib.closing(service.connect()) as connection:
        while time.monotonic() < until:
            (answer,) = service.ask(connection, service.urls[:1], models)
            if answer["model_version"].startswith("sam@") and answer["result"]:
                return
            time.sleep(0.5)
    raise BenchError(f"no SAM answered within {LOOKS:g} s")


def clicks(stage: Stage) -> Part:
    """How long a person waits; see bench.py."""
    options, part = stage.options, Part("Smart tools, an image of 12 megapixels")
    shutil.copyfile(options.models / "yolov8n-seg.pt", stage.models / WEIGHTS)
    stage.make(SAM, "mobile_sam.pt")
    with (stage.models / "models.yaml").open("a") as file:
        file.write("sam: {weights: mobile_sam.pt, task: sam}\n")
    with contextlib.ExitStack() as stack:
        place = stage.place(datasets=(here := stack.enter_context(folder())))
        image = cv2.imread(str(options.datasets / "demo" / "bus.jpg"))
        assert image is not None
        image = cv2.resize(image, (3000, 4000), interpolation=cv2.INTER_CUBIC)
        urls = []
        for number in range(24):  # more than are kept
            cv2.imwrite(str(here / f"{number}.jpg"), image[number:])
            urls.append(f"/data/local-files/?d={number}.jpg")
        service, _ = stack.enter_context(backend(place, stage.environ, urls))
        service.settle(options.expect, SETTLE)
        config = CONFIG.format(SMART)
        click = drawn("keypointlabels", "k", x=50, y=35, width=0.5)
        box = drawn("rectanglelabels", "r", x=2, y=18, width=96, height=52, rotation=0)
        asked = {
            "the first click on an image": service.asking(urls, config, click),
            "the next click on it": service.asking(urls[:1], config, click),
            "a box": service.asking(urls[:1], config, box),
        }
        ways: dict[str, Way] = {}
        for name, one in asked.items():
            ways[name] = lambda seconds, one=one: one.run(1, 1, seconds)  # type: ignore[misc]
            with contextlib.closing(one.connect()) as connection:
                (answer,) = one.ask(connection, one.urls[:1])
            if not answer["result"]:
                raise BenchError(f"{name}: nothing was found")
        sam, models = service.asking(urls[-1:], config, click), "coco+sam"
        looked_at(sam, models)
        ways["the next click, by a SAM"] = lambda seconds: sam.run(1, 1, seconds, models)
        turns(ways, options, part)
        part.ran = service.engine
    for name, figures in part.figures.items():
        text = f"{name}: {figures['ms']:.0f} ms, at most {ANSWERED:.0f}"
        part.targets[text] = figures["ms"] <= ANSWERED
    return part
