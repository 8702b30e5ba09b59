"""Runs in the backend's image: SAMs by the engine and by ultralytics itself, and clicks that they
answer, as JSON. See test_sam.py.

/models has yolov8n-seg.pt, /images the demo's images.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]

from ls_yolo.models import sam as entries
from ls_yolo.models import weights

weights.safe()

from ultralytics.models.sam import Predictor, SAM2Predictor, build  # noqa: E402

from ls_yolo.engines import cpu  # noqa: E402
from ls_yolo.engines.base import EngineError  # noqa: E402
from ls_yolo.engines.load import EngineOptions, load_engine, load_sam  # noqa: E402
from ls_yolo.engines.sam import OF_VIDEO, SamEmbedding, SamSegmenter  # noqa: E402
from ls_yolo.models.config import Source  # noqa: E402
from ls_yolo.results import Masks  # noqa: E402
from ls_yolo.serving import embeddings  # noqa: E402
from ls_yolo.serving.clicks import Clicks  # noqa: E402
from ls_yolo.serving.interactive import Point, Prompts  # noqa: E402
from ls_yolo.serving.loading import Loader  # noqa: E402
from ls_yolo.serving.planning import plan  # noqa: E402
from ls_yolo.serving.reading import ImageReader  # noqa: E402
from ls_yolo.serving.registry import Registry  # noqa: E402

FOLDER = Path("/tmp/models")
CPU = EngineOptions(device="cpu", engine="torch")
PROMPTS: dict[str, tuple[list[tuple[float, float, bool]], Any]] = {
    "a click": ([(400, 500, True)], None),
    "clicks on it and beside it": ([(400, 500, True), (200, 300, False), (90, 700, True)], None),
    "a box": ([], (100, 250, 700, 900)),
    "a box and clicks": ([(400, 500, True), (110, 260, False)], (100, 250, 700, 900)),
}
SIZES: dict[str, int] = {}
"""Bytes of an embedding, by architecture."""
CONFIG = """<View><Image name="image" value="$image"/>
<PolygonLabels name="outline" toName="image"><Label value="person"/><Label value="door"/></PolygonLabels>
<KeyPointLabels name="click" toName="image" smart="true" smartOnly="true">
<Label value="person"/><Label value="door"/></KeyPointLabels></View>"""  # noqa: E501


def untrained(architecture: str, folder: Path = FOLDER) -> None:
    """Writes weights of a network that nobody has trained, as they are published: a state dict."""
    torch.manual_seed(0)
    model = build.sam_model_map[f"{architecture}.pt"]()
    decoder = getattr(model, "mask_decoder", None) or model.sam_mask_decoder
    for network in decoder.output_hypernetworks_mlps:
        # Or a mask would be nearly the same number everywhere.
        torch.nn.init.normal_(network.layers[-1].weight, std=1.0)
    head = decoder.iou_prediction_head.layers[-1]
    torch.nn.init.constant_(head.bias, 0.6)  # ultralytics leaves out what scores below 0.25
    numbers: dict[str, Any] = model.state_dict()
    if architecture.startswith("sam2.1"):
        numbers |= {"no_obj_embed_spatial": torch.zeros(1, 64)}
        numbers |= {"obj_ptr_tpos_proj.weight": torch.zeros(64, 256)}
        numbers |= {"obj_ptr_tpos_proj.bias": torch.zeros(64)}
        assert numbers.keys() >= OF_VIDEO
    content = {"model": numbers} if "sam2" in architecture else numbers
    torch.save(content, folder / f"{architecture}.pt")


def whole(found: Masks, shape: tuple[int, int]) -> Any:
    pixels = np.zeros(shape, bool)
    for make in found.masks:
        mask = make()
        rows, columns = mask.pixels.shape
        pixels[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.pixels
    return pixels


def compared(architecture: str, images: dict[str, Any], said: list[str]) -> dict[str, Any]:
    """Our masks and ultralytics' own, for the prompts ``said`` on each image."""
    path = FOLDER / f"{architecture}.pt"
    ours = load_sam(path, architecture, CPU)
    kind = SAM2Predictor if "sam2" in architecture else Predictor
    theirs = kind(
        overrides={"model": str(path), "task": "segment", "mode": "predict", "imgsz": 1024,
                   "conf": 0.25, "retina_masks": True, "save": False, "verbose": False}
    )  # fmt: skip
    answer: dict[str, Any] = {}
    for name, image in images.items():
        theirs.set_image(image)  # once: a SAM called by its name looks again for each prompt
        embedding = ours.embed(ours.prepare(image))
        assert isinstance(embedding, SamEmbedding)
        SIZES[architecture] = tensors(embedding.features)
        for prompt in said:
            spots, box = PROMPTS[prompt]
            found = ours.outline(embedding, spots, box)
            wanted = theirs(
                points=[[spot[:2] for spot in spots]] if spots else None,
                labels=[[int(spot[2]) for spot in spots]] if spots else None,
                bboxes=[box] if box else None,
            )[0]
            one = whole(found, image.shape[:2])
            other = wanted.masks.data[0].numpy().astype(bool)
            answer[f"{name}: {prompt}"] = {
                "iou": float((one & other).sum() / max((one | other).sum(), 1)),
                "differ": int((one ^ other).sum()),
                "area": float(other.mean()),
                "score": float(found.boxes.scores[0]),
                "off": abs(float(found.boxes.scores[0] - wanted.boxes.conf[0])),
            }
    return answer


def all_compared() -> dict[str, Any]:
    bus: Any = cv2.imread("/images/bus.jpg")
    upright, across = {"upright": bus}, {"across": np.rot90(bus)[:, :1001].copy()}
    asked: dict[str, Any] = {
        "mobile_sam": (upright | across, list(PROMPTS)),
        "sam2_t": (upright, list(PROMPTS)),
        "sam2.1_t": (across, ["a box and clicks"]),
    }
    return {name: compared(name, *what) for name, what in asked.items()}


def error_of(path: Path, architecture: str) -> str:
    try:
        load_sam(path, architecture, CPU)
    except EngineError as error:
        return str(error)
    return ""


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/evil",)


def refused() -> dict[str, Any]:
    """What cannot be loaded, and why."""
    mobile, two = FOLDER / "mobile_sam.pt", FOLDER / "sam2_t.pt"
    torch.save({"image_encoder.a": Evil(), "mask_decoder.a": 0}, FOLDER / "evil.pt")
    (FOLDER / "cut.pt").write_bytes(mobile.read_bytes()[:10_000])
    stock = Path("/models/yolov8n-seg.pt")
    answer = {
        "other": error_of(mobile, "sam_b"),
        "two": error_of(mobile, "sam2_t"),
        "later": error_of(two, "sam2.1_t"),
        "larger": error_of(two, "sam2_b"),
        "yolo": error_of(stock, "mobile_sam"),
        "evil": error_of(FOLDER / "evil.pt", "mobile_sam"),
        "cut": error_of(FOLDER / "cut.pt", "mobile_sam"),
        "ran": Path("/tmp/evil").exists(),
    }
    try:
        load_engine(mobile, "0", options=CPU)
    except EngineError as error:
        answer["as yolo"] = str(error)
    return answer


def clicks() -> dict[str, Any]:
    """Clicks with an own model and the SAM: what answered, and how often the SAM had looked."""
    (FOLDER / "models.yaml").write_text(
        "own: {weights: yolov8n-seg.pt}\nsam: {weights: mobile_sam.pt, task: sam}\n"
    )
    (FOLDER / "yolov8n-seg.pt").write_bytes(Path("/models/yolov8n-seg.pt").read_bytes())
    registry = Registry(
        Source(FOLDER / "models.yaml", FOLDER, 0.25),
        Loader(CPU),
    )
    looks: list[int] = []
    segmenter = registry.sam("sam").segmenter
    assert isinstance(segmenter, SamSegmenter)
    encoder = segmenter._predictor.model.image_encoder
    encoder.register_forward_hook(lambda *_: looks.append(nice_of(threading.get_native_id())))
    reader = ImageReader(Path("/images"), None, "http://localhost:8080")
    under = Clicks(reader)
    found = plan(registry, CONFIG, ["own", "sam"], [])

    def ask(image: str, label: str, *points: Point) -> Any:
        task = {"id": image, "data": {"image": f"/data/local-files/?d={image}"}}
        drawn = Prompts(label, "click", "image", points=points)
        answer = under.answer(task, found, drawn)
        (region, *_) = answer["result"] or [{"from_name": "", "value": {}}]
        return [answer["model_version"].partition("@")[0], region["from_name"],
                region["value"].get("polygonlabels"), len(looks)]  # fmt: skip

    on, beside = Point(18, 60, True), Point(60, 40, False)
    answer: dict[str, Any] = {"first": ask("bus.jpg", "person", on)}
    answer["threads"], answer["cores"] = torch.get_num_threads(), cpu.available()
    until(lambda: under._embeddings.get(("bus.jpg", "/data/local-files/?d=bus.jpg", sam(found))))
    answer["second"] = ask("bus.jpg", "person", on)
    answer["third"] = ask("bus.jpg", "person", on, beside)
    # No class of the own model is a door, so the first click waits for the SAM.
    answer["unknown to the model"] = ask("zidane.jpg", "door", on)
    answer["nice"], answer["default"] = looks, registry.default
    answer["bytes"] = sizes(under._embeddings)
    under._embeddings.close()
    registry.close()
    return answer


def sam(found: Any) -> str:
    return str(found.sams[0].version)


def nice_of(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def sizes(kept: embeddings.Embeddings[Any]) -> list[int]:
    return [tensors(value[1].features) for _, value in kept._values.values()]


def tensors(found: Any) -> int:
    if isinstance(found, dict):
        return sum(map(tensors, found.values()))
    if isinstance(found, list):
        return sum(map(tensors, found))
    return int(found.untyped_storage().nbytes())


def until(true: Any) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def main() -> None:
    tempfile.tempdir = "/tmp"
    FOLDER.mkdir()
    answer: dict[str, Any] = {
        "architectures": sorted(f"{one}.pt" for one in entries.ARCHITECTURES),
        "built": sorted(build.sam_model_map),
    }
    for one in ("mobile_sam", "sam2_t", "sam2.1_t"):
        untrained(one)
    answer["compared"] = all_compared()
    answer["compared sizes"] = {one: SIZES[one] for one in ("mobile_sam", "sam2_t")}
    answer["refused"] = refused()
    answer["inspected"] = {
        one: weights.inspect(FOLDER / f"{one}.pt").task for one in ("mobile_sam", "sam2.1_t")
    }
    answer["clicks"] = clicks()
    print("ANSWER", json.dumps(answer))


if __name__ == "__main__":
    main()
