"""Runs in the backend's image: what the engines answer there, as JSON. See test_engines.py.

/models and /images are mounted; /small is a disk that is nearly full, /fixed one that is read-only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import time
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
import torchvision  # type: ignore[import-not-found,unused-ignore]
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.data.loaders import LoadPilAndNumpy
from ultralytics.nn.tasks import DetectionModel

from ls_yolo import files
from ls_yolo.engines import int8, letterbox, nms
from ls_yolo.engines import load as loader
from ls_yolo.engines.base import Engine, EngineError, Precision
from ls_yolo.engines.hot_swap import HotSwapEngine
from ls_yolo.engines.torch_engine import TorchEngine
from ls_yolo.models import weights
from ls_yolo.results import Boxes, Result

WEIGHTS = Path("/models/yolov8n.pt")
CONF, IOU = 0.25, 0.7
weights.safe()


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("ls_yolo") and record.levelno >= logging.WARNING:
            self.lines.append(record.getMessage())


def read(name: str) -> Any:
    return cv2.imread(f"/images/{name}")


def rows(boxes: Result, names: dict[int, str]) -> list[Any]:
    """[class, score, box in pixels] each."""
    assert isinstance(boxes, Boxes)
    kinds = [names[int(index)] for index in boxes.classes]
    return [
        list(row) for row in zip(kinds, boxes.scores.tolist(), boxes.xyxy.tolist(), strict=True)
    ]


def predict(engine: Engine, images: dict[str, Any]) -> dict[str, list[Any]]:
    """Every image alone."""
    return {
        name: rows(engine.predict([engine.prepare(image, None)], CONF, IOU)[0], engine.names)
        for name, image in images.items()
    }


def together(engine: Any, images: dict[str, Any]) -> dict[str, list[Any]]:
    """All images in one batch of 32; what each is answered first."""
    names = (list(images) * 32)[:32]
    found = engine.predict([engine.prepare(images[name], None) for name in names], CONF, IOU)
    answers = {name: rows(found[number], engine.names) for number, name in enumerate(images)}
    for number, name in enumerate(names):
        first = found[list(images).index(name)]
        assert np.allclose(found[number].xyxy, first.xyxy, atol=0.5), (number, name)
    return answers


def direct(images: dict[str, Any]) -> dict[str, list[Any]]:
    """Ultralytics itself, on the files."""
    model = YOLO(WEIGHTS)
    answers = {}
    for name in images:
        found = model.predict(f"/images/{name}", conf=CONF, iou=IOU, verbose=False)[0].boxes
        answers[name] = [
            [model.names[int(b.cls)], float(b.conf), b.xyxy[0].tolist()] for b in found
        ]
    return answers


def load(
    cache: str,
    precision: Precision = "auto",
    images: Path | None = None,
    weights: Path = WEIGHTS,
    imgsz: int | None = None,
) -> tuple[Engine, dict[str, Any]]:
    """An engine as the backend loads it, and how that went."""
    lines = Lines()
    logging.getLogger().addHandler(lines)
    begin = time.monotonic()
    engine = loader.load_engine(
        weights,
        files.hash_file(weights),
        imgsz,
        loader.EngineOptions("cpu", "auto", precision, Path(cache), images),
    )
    told: dict[str, Any] = {"first": engine.description, "names": len(engine.names)}
    engine.warm_up()
    if isinstance(engine, HotSwapEngine):
        engine._thread.join(300)
    told["seconds"] = time.monotonic() - begin
    told["then"] = engine.description
    told["boxes"] = len(predict(engine, {"bus.jpg": read("bus.jpg")})["bus.jpg"])
    logging.getLogger().removeHandler(lines)
    told["log"] = lines.lines
    return engine, told


class Small:
    """A network on a GPU whose memory holds ``most`` images."""

    def __init__(self, network: Any, most: int) -> None:
        self._network, self._most = network, most

    def __call__(self, batch: Any) -> Any:
        if len(batch) > self._most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self._network(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def full_memory(images: dict[str, Any]) -> dict[str, Any]:
    """What is answered, and said, by a GPU that holds two images at a time."""
    engine, lines = TorchEngine(WEIGHTS, "cpu"), Lines()
    engine._model = Small(engine._model, 2)
    logging.getLogger().addHandler(lines)
    found = [together(engine, images) for _ in range(2)]
    logging.getLogger().removeHandler(lines)
    return {"boxes": found[1], "log": lines.lines}


class Halved(Small):
    """A network whose output is in half precision, as on a GPU."""

    def __call__(self, batch: Any) -> Any:
        output = super().__call__(batch)
        return (output[0] if isinstance(output, (list, tuple)) else output).half()


def at_the_threshold(engine: Any, image: Any) -> list[float]:
    """Thresholds, at scores and just below, at which an image alone has other boxes than with one
    whose threshold is lower."""
    item = [engine.prepare(image, None)]
    (together,) = engine.predict(item, CONF, IOU)
    scores = together.scores.tolist()
    assert scores
    return [
        conf
        for conf in [*scores, *(score * (1 - 1e-5) for score in scores)]
        if len(engine.predict(item, conf, IOU)[0].scores) != len(together.above(conf).scores)
    ]


def cut_images(folder: Path, images: dict[str, Any]) -> Path:
    """A folder of 120 images: parts of ``images``, some of them mirrored, some darker."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(120):
        image = list(images.values())[number % len(images)]
        height, width = (round(side * random.uniform(0.8, 1)) for side in image.shape[:2])
        part = image[:height, -width:][:, :: 1 if number % 2 else -1]
        darker = (part * random.uniform(0.6, 1)).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.jpg"), darker)
    return folder


SMALLER = 320
"""What the network gets where 200 images and more go through it, in pixels."""


def int8_models(images: dict[str, Any]) -> dict[str, Any]:
    """int8 models: one that is taken, one that is refused, one of too few images."""
    answer: dict[str, Any] = {}
    _, answer["too few"] = load("/tmp/cache", "int8", Path("/images"))
    one, other = (cut_images(Path(f"/tmp/{name}"), images) for name in ("one", "other"))
    engine, _ = load("/tmp/cache", imgsz=SMALLER)
    answer["float"] = predict(engine, images)
    _, answer["made"] = load("/tmp/cache", "int8", one, imgsz=SMALLER)
    # What becomes of the first is the CPU's business; the second is to end in the other way.
    taken = "int8 (" in answer["made"]["then"]
    int8.LOSS = 0.0 if taken else 1.0
    with contextlib.suppress(int8.Refused):
        int8.make(Path("/tmp/cache/openvino"), files.hash_file(WEIGHTS), SMALLER, other)
    engine, answer["taken"] = load("/tmp/cache", "int8", one if taken else other, imgsz=SMALLER)
    answer["boxes"] = predict(engine, images)
    _, answer["refused"] = load("/tmp/cache", "int8", other if taken else one, imgsz=SMALLER)
    return answer


def shapes() -> list[Any]:
    """Sizes of images whose input is not what ultralytics makes of them."""
    random = np.random.default_rng(0)
    wrong = []
    for _ in range(100):
        width, height = (int(side) for side in random.integers(1, 2000, 2))
        image = random.integers(0, 255, (height, width, 3), np.uint8)
        wanted = LetterBox((640, 640), auto=True, stride=32)(image=image)
        found = letterbox.apply(image, letterbox.fit(width, height, 640)).pixels
        if not np.array_equal(wanted, found):
            wrong.append([width, height])
    return wrong


def suppressed() -> int:
    """How many of 200 random sets of boxes are suppressed unlike torchvision does it."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        count, iou = int(random.integers(1, 400)), float(random.uniform(0.1, 0.9))
        xy, wh = random.uniform(100, 540, (count, 2)), random.uniform(1, 200, (count, 2))
        xywh = np.concatenate([xy, wh], 1).astype(np.float32)
        scores = random.uniform(0, 1, count).astype(np.float32)
        classes = random.integers(0, 80, count) // 40
        xyxy = torch.from_numpy(np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2,
                                                xywh[:, :2] + xywh[:, 2:] / 2], 1))  # fmt: skip
        offset = torch.from_numpy((classes * 7680).astype(np.float32))[:, None]
        keep = torchvision.ops.nms(xyxy + offset, torch.from_numpy(scores), iou)[:300].numpy()
        found = nms.upright(xyxy.numpy(), scores, classes, iou)
        wrong += not np.array_equal(scores[found], scores[keep])
    return wrong


def answers(engine: Engine) -> dict[str, list[Any]]:
    return predict(engine, {"bus.jpg": read("bus.jpg")})


def network(path: Path, task: str = "yolov8n.yaml", channels: int = 3) -> Path:
    """Weights of a network that nobody has trained, as training writes them."""
    torch.manual_seed(0)
    model = YOLO(task)
    if channels != 3:
        model.model = DetectionModel(task, ch=channels, verbose=False)
        model.model.args = model.overrides
    torch.save({"model": model.model.half(), "train_args": {"imgsz": 320, "task": "detect"}}, path)
    return path


NAMES = ["two-yolov5n.pt", "it's.pt", "yolov8s.pt", "my-yoloe-11.pt", "own-world.pt", "a b .pt"]
"""Names of files that ultralytics rewrites, fetches, or takes for something else."""


def renamed() -> dict[str, Any]:
    """What engines and the command line say of copies of the weights whose names ultralytics takes
    for another file's. Where it has another one to take, that has other class names and boxes."""
    folder = Path("/tmp/renamed")
    folder.mkdir()
    network(folder / "two-yolov5nu.pt")
    network(folder / "its.pt")
    found: dict[str, Any] = {}
    for name in NAMES:
        shutil.copyfile(WEIGHTS, folder / name)
        torch_engine = TorchEngine(folder / name, "cpu")
        weights.rename(folder / name, {0: "man"}, folder / f"renamed-{name}")
        again = YOLO(str(shutil.copyfile(folder / f"renamed-{name}", folder / "check.pt")))
        found[name] = {"torch": answers(torch_engine), "renamed": again.names[0]}
    found["two-yolov5n.pt"]["export"] = answers(
        load("/tmp/other", weights=folder / "two-yolov5n.pt")[0]
    )
    return found


def grey() -> dict[str, Any]:
    """Models of one channel and of four, and what ultralytics itself feeds the first."""
    path = network(Path("/tmp/grey.pt"), channels=1)
    answer: dict[str, Any] = {}
    engine, answer["start"] = load("/tmp/grey", weights=path)
    image = read("bus.jpg")
    prepared = engine.prepare(image, None)
    assert isinstance(prepared, letterbox.Letterboxed)
    (wanted,) = LoadPilAndNumpy(image, channels=1).im0
    resized = LetterBox((320, 320), auto=True, stride=32)(image=wanted)
    answer["same pixels"] = bool(np.array_equal(np.atleast_3d(resized), prepared.pixels))
    theirs = YOLO(path).predict(image, conf=0.0001, imgsz=320, verbose=False)[0].boxes
    for name, one in {"torch": TorchEngine(path, "cpu"), "openvino": engine}.items():
        (found,) = one.predict([one.prepare(image, None)], 0.0001, IOU)
        assert isinstance(found, Boxes)
        answer[name] = [len(found.scores), float(found.scores.max(initial=0))]
    answer["ultralytics"] = [len(theirs), float(theirs.conf.max()) if len(theirs) else 0.0]
    try:
        load("/tmp/grey", weights=network(Path("/tmp/four.pt"), channels=4))
    except EngineError as error:
        answer["four"] = str(error)
    return answer


def strangers() -> dict[str, str]:
    """What is said of files that are no weights of ultralytics, by the engine and by inspect."""
    state = YOLO(WEIGHTS).model.state_dict()
    torch.save(state, "/tmp/state.pt")
    Path("/tmp/lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    Path("/tmp/page.pt").write_text("<!DOCTYPE html>\n<html></html>\n")
    modules = {name: types.ModuleType(name) for name in ("models", "models.yolo", "mine")}
    sys.modules.update(modules)
    for module, kind, file in (("models.yolo", "Model", "v5"), ("mine", "Attention", "own")):
        made = type(kind, (torch.nn.Module,), {"__module__": module})
        setattr(modules[module], kind, made)
        torch.save({"model": made()}, f"/tmp/{file}.pt")
    for name in modules:
        del sys.modules[name]
    told = {}
    for file in ("state", "lfs", "page", "v5", "own"):
        try:
            TorchEngine(Path(f"/tmp/{file}.pt"), "cpu")
        except EngineError as error:
            told[file] = str(error)
        try:
            weights.inspect(Path(f"/tmp/{file}.pt"))
        except weights.WeightsError as error:
            assert str(error) == told[file], (error, told[file])
    return told


def main() -> None:
    images = {path.name: read(path.name) for path in sorted(Path("/images").iterdir())}
    answer: dict[str, Any] = {"direct": direct(images)}
    reference = TorchEngine(WEIGHTS, "cpu")
    answer["torch"] = predict(reference, images)
    answer["torch, 32 together"] = together(reference, images)
    answer["at the threshold"] = {"torch": at_the_threshold(reference, images["bus.jpg"])}
    answer["full memory"] = full_memory(images)
    answer["torch, full memory"] = answer["full memory"].pop("boxes")
    engine, answer["first start"] = load("/tmp/cache")
    answer["openvino"] = predict(engine, images)
    answer["openvino, 32 together"] = together(engine, images)
    answer["at the threshold"]["openvino"] = at_the_threshold(engine, images["bus.jpg"])
    reference._model = Halved(reference._model, 32)
    answer["at the threshold"]["torch, half"] = at_the_threshold(reference, images["bus.jpg"])
    engine.release()
    _, answer["second start"] = load("/tmp/cache")
    (model,) = Path("/tmp/cache").glob("openvino/*/model.bin")
    model.write_bytes(model.read_bytes()[: 1 << 20])
    _, answer["damaged cache"] = load("/tmp/cache")
    _, answer["after the repair"] = load("/tmp/cache")
    answer["int8"] = int8_models(images)
    engine, answer["in full"] = load("/tmp/cache", "f32")
    answer["openvino, f32"] = predict(engine, images)
    _, answer["full disk"] = load("/small")
    answer["left on the full disk"] = [path.name for path in Path("/small/openvino").iterdir()]
    _, answer["read-only"] = load("/fixed")
    answer["shapes"] = shapes()
    answer["nms"] = suppressed()
    answer["renamed"] = renamed()
    answer["grey"] = grey()
    answer["strangers"] = strangers()
    print("ANSWER", json.dumps(answer))


if __name__ == "__main__":
    main()
