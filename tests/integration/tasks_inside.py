"""Runs in the backend's image: every task by both engines and by ultralytics itself, as JSON. See
test_engine_tasks.py.

/shapes has what train_shapes.py wrote, /models yolov8n-seg.pt, /images the demo's images.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from ultralytics import RTDETR, YOLO
from ultralytics.utils.metrics import batch_probiou

from ls_yolo import files
from ls_yolo.engines import export, mean_ap
from ls_yolo.engines.base import Engine, EngineError, Precision
from ls_yolo.engines.openvino_engine import OpenVINOEngine
from ls_yolo.engines.tasks.obb import regular
from ls_yolo.engines.torch_engine import TorchEngine
from ls_yolo.models import weights
from ls_yolo.results import Boxes, Classes, Keypoints, Mask, Masks, OrientedBoxes, Result

CONF, IOU = 0.25, 0.7
SIZE = 160
"""What untrained networks get, in pixels."""
ARCHITECTURES = [
    "yolov3-tiny.yaml", "yolov5n.yaml", "yolov6n.yaml", "yolov8n.yaml", "yolov8n-p2.yaml",
    "yolov9t.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolo11n-obb.yaml", "yolo12n-seg.yaml",
    "yolov8n-pose.yaml", "yolov8s-worldv2.yaml", "yoloe-11s.yaml", "yoloe-11s-seg.yaml",
    "yolo26n.yaml", "yolo26n-seg.yaml", "yolo26n-obb.yaml", "yolo26n-pose.yaml",
    "yolo26n-cls.yaml", "rtdetr-resnet50.yaml",
]  # fmt: skip
"""One of each family, as small as it comes, and the newest of each task."""
EXPORTED = ["yolov10n.yaml", "yolo26n-seg.yaml", "yolov8s-worldv2.yaml", "rtdetr-resnet50.yaml"]
"""Those that OpenVINO runs too: each has an end of its own."""
weights.safe()


def untrained(architecture: str, lively: bool = False) -> Path:
    """Weights of a network that nobody has trained, as training writes them.

    lively: with an end that says something else at each place.
    """
    torch.manual_seed(0)
    yolo = (RTDETR if "rtdetr" in architecture else YOLO)(architecture)
    if lively:
        last = yolo.model.model[-1].classifier[-1]
        torch.nn.init.normal_(last.weight)
        image = cv2.resize(read("/images/zidane.jpg"), (SIZE, 96)).transpose(2, 0, 1)[None]
        with torch.inference_mode():
            logits = yolo.model.eval()(torch.from_numpy(image[:, ::-1] / np.float32(255)))
            # Spread alike for each class, so that none wins everywhere.
            middle, spread = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
        last.weight.data /= spread[:, None, None, None] / 3
        last.bias.data = 3 * (last.bias.data - middle) / spread
    path = Path("/tmp", architecture).with_suffix(".pt")
    # In half precision what is spread so far would be no number.
    model = yolo.model if lively else yolo.model.half()
    content = {"model": model, "train_args": {"imgsz": SIZE, "task": yolo.task}}
    torch.save(content, path)
    return path


def openvino(path: Path, precision: Precision = "f32") -> OpenVINOEngine:
    """OpenVINO's engine, exported in this process: starting another costs seconds."""
    cache, sha256 = Path("/tmp/cache"), files.hash_file(path)

    def make(folder: Path) -> dict[str, Any]:
        with contextlib.chdir(folder):
            return export._make(path, sha256, None, folder)

    export.write(cache, sha256, make)
    found = export.find(cache, sha256)
    assert found is not None
    return OpenVINOEngine(found, None, precision)


def read(path: str) -> Any:
    return cv2.imread(path)


def predict(engine: Engine, image: Any, conf: float = CONF) -> Result:
    (found,) = engine.predict([engine.prepare(image, None)], conf, IOU)
    return found


def directly(path: Path, image: Any) -> Result:
    """What ultralytics itself says, in our types."""
    yolo = YOLO(path)
    (found,) = yolo.predict(image, conf=CONF, iou=IOU, retina_masks=True, verbose=False)
    if found.probs is not None:
        return Classes(found.probs.data.numpy())
    if found.obb is not None:
        one = found.obb
        kinds = one.cls.numpy().astype(np.int64)
        return OrientedBoxes(regular(one.xywhr.numpy()), one.conf.numpy(), kinds)
    if getattr(found, "semantic_mask", None) is not None:
        seen = found.semantic_mask
        seen = np.asarray(getattr(seen, "data", seen)).squeeze()
        return areas(seen)
    boxes = Boxes(
        found.boxes.xyxy.numpy(), found.boxes.conf.numpy(), found.boxes.cls.numpy().astype(np.int64)
    )
    if found.keypoints is not None:
        return Keypoints(boxes, found.keypoints.xy.numpy(), found.keypoints.conf.numpy())
    if found.masks is not None:
        whole = [mask.astype(bool) for mask in found.masks.data.numpy()]
        return Masks(boxes, [partial(Mask, 0, 0, mask) for mask in whole])
    return boxes


def areas(seen: Any) -> Masks:
    kinds = np.unique(seen).astype(np.int64)
    whole = np.array([[0, 0, seen.shape[1], seen.shape[0]]] * len(kinds), np.float32)
    masks = [partial(Mask, 0, 0, seen == kind) for kind in kinds]
    return Masks(Boxes(whole, np.ones(len(kinds), np.float32), kinds), masks)


def points(result: Result) -> Any:
    """Places that say where each object is, shape (n, k, 2)."""
    if isinstance(result, OrientedBoxes):
        return mean_ap._corners(result)
    corners = mean_ap.objects(result).xyxy.reshape(-1, 2, 2)
    return np.concatenate([corners, result.xy], 1) if isinstance(result, Keypoints) else corners


def overlap(one: Mask, other: Mask, shape: tuple[int, int]) -> float:
    whole = np.zeros((2, *shape), bool)
    for place, mask in zip(whole, (one, other), strict=True):
        rows, columns = mask.pixels.shape
        place[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.pixels
    return float((whole[0] & whole[1]).sum() / max((whole[0] | whole[1]).sum(), 1))


def contested(result: Result, index: int) -> bool:
    """Whether another turned box of its class covers one about as much as NMS allows: then a
    hundredth decides whether it stays.
    """
    if not isinstance(result, OrientedBoxes):
        return False
    others = result.classes == result.classes[index]
    others[index] = False
    boxes = torch.from_numpy(result.xywhr)
    return bool((batch_probiou(boxes[index][None], boxes[others]) > IOU - 0.1).any())


def compared(one: Result, other: Result, shape: tuple[int, int]) -> dict[str, Any]:
    """How many objects ``one`` has, how many of them ``other`` lacks, and how far those that both
    have differ at worst: places in pixels, scores, and masks by their IoU."""
    if isinstance(one, Classes) and isinstance(other, Classes):
        off = float(np.abs(one.scores - other.scores).max())
        return {"count": 1, "missing": 0, "pixels": 0.0, "score": off, "iou": 1.0}
    first, second = mean_ap.objects(one), mean_ap.objects(other)
    places, others = points(one), points(other)
    answer = {"count": 0, "missing": 0, "pixels": 0.0, "score": 0.0, "iou": 1.0}
    for index, (score, kind) in enumerate(zip(first.scores, first.classes, strict=True)):
        if score < CONF + 0.02:  # at the threshold it may be on either side
            continue
        if contested(one, index):
            continue
        answer["count"] += 1
        same = np.flatnonzero(second.classes == kind)
        # The corners of a box whose angle is near a quarter may begin elsewhere.
        apart = np.hypot(*np.moveaxis(places[index][:, None] - others[same][:, None], -1, 0))
        if isinstance(one, OrientedBoxes):
            apart = apart.min(axis=2).max(axis=1)
        else:
            apart = np.diagonal(apart, axis1=1, axis2=2).max(axis=1)
        if not apart.size or apart.min() > 20:
            answer["missing"] += 1
            continue
        match = int(same[apart.argmin()])
        answer["pixels"] = max(answer["pixels"], float(apart.min()))
        answer["score"] = max(answer["score"], abs(float(score - second.scores[match])))
        if isinstance(one, Masks) and isinstance(other, Masks):
            iou = overlap(one.masks[index](), other.masks[match](), shape)
            answer["iou"] = min(answer["iou"], iou)
    return answer


def batches(engine: Engine, images: list[Any]) -> list[dict[str, Any]]:
    """Each image alone against the same among all."""
    found = engine.predict([engine.prepare(image, None) for image in images], CONF, IOU)
    return [
        compared(predict(engine, image), one, image.shape[:2])
        for image, one in zip(images, found, strict=True)
    ]


def trained() -> Iterator[tuple[str, dict[str, Any]]]:
    photos = [read(str(path)) for path in sorted(Path("/images").iterdir())]
    for task in ("obb", "pose", "classify", "segment"):
        stock = Path("/models/yolov8n-seg.pt")
        path = stock if task == "segment" else Path("/shapes", f"{task}.pt")
        drawn = [] if task == "segment" else [read(f"/shapes/{task}.jpg")]
        images = photos if task in ("segment", "classify") else [drawn[0], drawn[0][::2, ::3]]
        images = [*drawn, *images]
        engines: dict[str, Engine] = {
            "torch": TorchEngine(path, "cpu"), "openvino": openvino(path),
            "auto": openvino(path, "auto"),
        }  # fmt: skip
        answer: dict[str, Any] = {}
        for image in images:
            shape, wanted = image.shape[:2], directly(path, image)
            found = {name: predict(engine, image) for name, engine in engines.items()}
            pairs = {"torch, ultralytics": (found["torch"], wanted),
                     "ultralytics, torch": (wanted, found["torch"]),
                     "openvino, torch": (found["openvino"], found["torch"]),
                     "torch, openvino": (found["torch"], found["openvino"]),
                     "auto, torch": (found["auto"], found["torch"])}  # fmt: skip
            for name, pair in pairs.items():
                answer.setdefault(name, []).append(compared(*pair, shape))
        for name in ("torch", "openvino"):
            answer[f"{name}, together"] = batches(engines[name], images)
        if drawn:
            answer["seen"] = seen(predict(engines["torch"], drawn[0]), engines["torch"].names)
        yield task, answer


def seen(result: Result, names: dict[int, str]) -> list[Any]:
    """Class and places of each object, the best class of an image."""
    if isinstance(result, Classes):
        return [[names[int(result.scores.argmax())], []]]
    kinds = mean_ap.objects(result).classes.tolist()
    places = result.xy if isinstance(result, Keypoints) else points(result)
    return [[names[kind], place.tolist()] for kind, place in zip(kinds, places, strict=True)]


def semantic() -> dict[str, Any]:
    """A network that nobody has trained; ultralytics gives no scores and no bounds."""
    path = untrained("yolo26n-sem.yaml", lively=True)
    image = read("/images/zidane.jpg")
    wanted, answer = directly(path, image), {}
    engines: dict[str, Engine] = {"torch": TorchEngine(path, "cpu"), "openvino": openvino(path)}
    for name, engine in engines.items():
        found = predict(engine, image, 0.0)
        assert isinstance(found, Masks) and isinstance(wanted, Masks)
        of_class = dict(zip(wanted.boxes.classes.tolist(), wanted.masks, strict=True))
        pairs = [
            (made := mask(), overlap(made, of_class[kind](), image.shape[:2]))
            for kind, mask in zip(found.boxes.classes.tolist(), found.masks, strict=True)
        ]
        total = sum(made.pixels.sum() for made, _ in pairs)
        shared = sum(made.pixels.sum() * iou for made, iou in pairs) / total
        answer[name] = {"classes": len(pairs), "iou": float(shared)}
    return answer


def architectures() -> dict[str, Any]:
    answer: dict[str, Any] = {}
    image = read("/images/bus.jpg")
    for architecture in ARCHITECTURES:
        path = untrained(architecture)
        engine = TorchEngine(path, "cpu")
        found = predict(engine, image, 0.0)
        answer[architecture] = {"task": engine.task, "type": type(found).__name__}
        if isinstance(found, Masks):
            assert found.masks[0]().pixels.ndim == 2
        if architecture in EXPORTED:
            again = predict(openvino(path), image, 0.0)
            scores = [mean_ap.objects(result).scores[:50] for result in (found, again)]
            # What nobody has trained says much the same everywhere: told by how much that differs.
            off = np.abs(scores[0] - scores[1]).max() / np.ptp(scores[0])
            answer[architecture]["off"] = float(off)
        path.unlink()
    try:
        TorchEngine(untrained("yolo26n-depth.yaml"), "cpu")
    except EngineError as error:
        answer["depth"] = str(error)
    return answer


def main() -> None:
    tempfile.tempdir = "/tmp"
    answer: dict[str, Any] = dict(trained())
    answer["semantic"] = semantic()
    answer["architectures"] = architectures()
    print("ANSWER", json.dumps(answer))


if __name__ == "__main__":
    main()
