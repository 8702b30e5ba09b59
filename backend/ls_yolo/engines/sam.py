"""SAM (Segment Anything) by ultralytics on torch: an image is embedded once, then clicks are cheap.

Networks and the treatment of prompts are ultralytics' own; weights are read by torch's restricted
loader, from the very file that is named, whatever it is called.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from ultralytics.models.sam.build import sam_model_map
from ultralytics.models.sam.predict import Predictor, SAM2Predictor

from ls_yolo.engines import devices
from ls_yolo.engines.base import Embedding, EngineError, Prepared, Spot
from ls_yolo.engines.sam_grid import SIDE, geometry, outlined
from ls_yolo.engines.upsample import Floats
from ls_yolo.models import sam as sam_entries
from ls_yolo.models import weights as weights_files
from ls_yolo.results import Boxes, Image, Masks

OF_VIDEO = {"no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"}
"""What sets SAM 2.1 apart from SAM 2: numbers for the memory of videos, of which images need
none. ultralytics builds the places for them by the name of a file that it would fetch."""


@dataclass(frozen=True)
class SamInput(Prepared):
    """pixels: shape (`SIDE`, `SIDE`, 3), the image in its upper left corner."""

    pixels: Image


@dataclass(frozen=True)
class SamEmbedding(Embedding):
    """features: as ultralytics' predictor has them, 4 MB (SAM, MobileSAM) or 16 MB (SAM 2)."""

    features: Any


class SamSegmenter:
    """See `engines.base.Segmenter`.

    architecture: one of `ls_yolo.models.sam.ARCHITECTURES`.
    device: ``auto``, ``cpu`` or ``cuda:0``.

    Raises:
        EngineError: the weights cannot be used, or the device is not there.
    """

    def __init__(self, weights: Path, architecture: str, device: str) -> None:
        self._device = devices.find(device)
        self._architecture = architecture
        model = built(weights, architecture)
        kind = SAM2Predictor if architecture.startswith("sam2") else Predictor
        self._predictor: Any = kind(
            overrides={"imgsz": SIDE, "device": self._device, "verbose": False, "save": False}
        )
        try:
            self._predictor.setup_model(model, verbose=False)
        except Exception as error:  # no memory on the GPU, say
            raise EngineError(f"{weights}: cannot be put on {self._device}: {error}") from error
        devices.use_cores(self._device)  # ultralytics has left one out, for training
        self._predictor.imgsz = [SIDE, SIDE]

    @property
    def description(self) -> str:
        return f"torch {torch.__version__} on {self._device}, {self._architecture}"

    def warm_up(self) -> None:
        # A GPU is slow at first; a CPU is not, and would take seconds for nothing.
        if self._device.type == "cuda":
            black = self.prepare(np.zeros((SIDE, SIDE, 3), np.uint8))
            self.outline(self.embed(black), [(0.0, 0.0, True)], None)

    def prepare(self, image: Image) -> SamInput:
        (pixels,) = self._predictor.pre_transform([image])
        return SamInput(image.shape[1], image.shape[0], pixels)

    def embed(self, prepared: Prepared) -> SamEmbedding:
        assert isinstance(prepared, SamInput)
        predictor = self._predictor
        try:
            predictor.set_image(prepared.pixels)  # it is of the right size, so it stays as it is
            return SamEmbedding(prepared.width, prepared.height, predictor.features)
        finally:
            predictor.reset_image()

    def outline(
        self,
        embedding: Embedding,
        spots: Sequence[Spot],
        box: tuple[float, float, float, float] | None,
    ) -> Masks:
        assert isinstance(embedding, SamEmbedding)
        logits, score = self._logits(embedding, spots, box)
        mask = outlined(logits, geometry(embedding.width, embedding.height))
        if mask is None:
            return Masks(Boxes.none(), [])
        height, width = mask.pixels.shape
        edges = [mask.left, mask.top, mask.left + width, mask.top + height]
        boxes = Boxes(
            np.array([edges], np.float32), np.array([score], np.float32), np.zeros(1, np.int64)
        )
        return Masks(boxes, [lambda: mask])

    def _logits(
        self,
        embedding: SamEmbedding,
        spots: Sequence[Spot],
        box: tuple[float, float, float, float] | None,
    ) -> tuple[Floats, float]:
        """The mask on the network's grid, above 0 where the object is, and its score."""
        # One object, so one more dimension; ultralytics scales to its input. Nothing of these calls
        # is kept in the predictor, so that they may run beside `embed` and each other.
        points = [[(x, y) for x, y, _ in spots]] if spots else None
        labels = [[int(positive) for *_, positive in spots]] if spots else None
        with torch.inference_mode():
            prompts = self._predictor._prepare_prompts(
                (SIDE, SIDE),
                (embedding.height, embedding.width),
                None if box is None else [box],
                points,
                labels,
            )
            masks, scores = self._predictor._inference_features(embedding.features, *prompts)
            return masks[0].float().cpu().numpy(), float(scores[0])

    def release(self) -> None:
        del self._predictor
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def built(weights: Path, architecture: str) -> Any:
    """The network called ``architecture`` with the numbers of the file ``weights``.

    Raises:
        EngineError: the file cannot be read, or has other numbers.
    """
    try:
        # Tensors alone, whatever ALLOW_UNSAFE_WEIGHTS says: a state dict needs no code.
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling raises
        try:
            weights_files.inspect_for(weights, sam=True, sha256="-")
        except (weights_files.WeightsError, OSError) as known:
            raise EngineError(str(known)) from error
        if isinstance(error, pickle.UnpicklingError):  # torch would say how to run it
            raise EngineError(
                f"{weights}: found code in it, which is not loaded; expected the state dict of a "
                "SAM, which is numbers alone"
            ) from error
        raise EngineError(f"{weights}: cannot be loaded as weights of a SAM: {error}") from error
    inner = content.get("model") if isinstance(content, dict) else None
    numbers = inner if isinstance(inner, dict) else content
    if not isinstance(numbers, dict):
        raise EngineError(
            f"{weights}: found {type(numbers).__name__}, expected the state dict of a SAM"
        )
    model = sam_model_map[f"{architecture}.pt"]()
    later = OF_VIDEO if architecture.startswith("sam2.1") else set()
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in numbers.items()}
    if wrong := sam_entries.difference(found, wanted, later):
        raise EngineError(
            f"{weights}: does not fit the architecture {architecture!r}: {wrong}; say in its "
            "entry of models.yaml which architecture it is"
        )
    model.load_state_dict({name: numbers[name] for name in wanted})
    return model
