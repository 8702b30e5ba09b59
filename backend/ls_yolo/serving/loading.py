"""Models that are loaded: what they are, and how they are made of an entry of models.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ls_yolo.engines import load
from ls_yolo.engines.base import EngineError, Segmenter
from ls_yolo.engines.load import EngineOptions
from ls_yolo.models.config import ModelConfig
from ls_yolo.models.sam import SAM
from ls_yolo.serving.batcher import Batcher, BatchOptions

MEMORY_FACTOR, MEMORY_BASE = 4, 100 * 1024 * 1024
"""What a loaded model takes, estimated: so many times its weights file, and so many bytes. The file
holds half precision, and the results of layers come on top. Measured differences in memory say
less, because what was freed before is used again."""


@dataclass(frozen=True)
class Model:
    """A loaded model. ``names``: class index to class name, renamed as models.yaml says.

    Whoever holds it may use it: the engine is released when nobody does any longer.
    """

    entry: ModelConfig
    names: Mapping[int, str]
    batcher: Batcher
    task: str
    """What it does, as ultralytics calls it: a key of `results.RESULTS`."""
    size: int = 0
    """About how many bytes it takes in memory."""

    @property
    def version(self) -> str:
        return self.entry.version

    @property
    def imgsz(self) -> int:
        """The longer side of what the network gets, in pixels."""
        return self.entry.imgsz or self.batcher.imgsz

    @property
    def runner(self) -> Batcher:
        """What runs it, to be released."""
        return self.batcher

    @property
    def about(self) -> str:
        """For the log."""
        return f"{len(self.names)} classes"


@dataclass(frozen=True)
class SamModel:
    """A loaded SAM: it outlines what a person points at, and predicts nothing.

    Whoever holds it may use it, as with `Model`.
    """

    entry: ModelConfig
    segmenter: Segmenter
    size: int = 0
    """About how many bytes it takes in memory."""
    task = SAM
    names: Mapping[int, str] = field(default_factory=dict, hash=False)
    """It has no classes."""

    @property
    def version(self) -> str:
        return self.entry.version

    @property
    def runner(self) -> Segmenter:
        """What runs it, to be released."""
        return self.segmenter

    @property
    def about(self) -> str:
        """For the log."""
        return self.segmenter.description


Loaded = Model | SamModel


@dataclass(frozen=True)
class Loader:
    """Loads and warms up what entries of models.yaml name.

    engines: what runs their weights.
    batch: how the images of a model go together.
    """

    engines: EngineOptions = field(default_factory=EngineOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)

    def __call__(self, entry: ModelConfig) -> Loaded:
        """The model of ``entry``, warmed up.

        Raises:
            EngineError: it cannot be loaded, or is not what ``entry`` says.
        """
        return self._sam(entry) if entry.task == SAM else self._model(entry)

    def _model(self, entry: ModelConfig) -> Model:
        engine = load.load_engine(entry.weights, entry.sha256, entry.imgsz, self.engines)
        try:
            wrong = sorted(set(entry.names) - set(engine.names))
            if wrong:
                raise EngineError(
                    f"names of {entry.name}: found class {wrong[0]}, but {entry.weights.name} "
                    f"has classes 0 to {len(engine.names) - 1}"
                )
            if entry.task not in (None, engine.task):
                raise EngineError(
                    f"task of {entry.name}: found {entry.task!r}, but {entry.weights.name} is a "
                    f"model for {engine.task!r}"
                )
            engine.warm_up()
        except BaseException:
            engine.release()
            raise
        names = {**engine.names, **entry.names}
        batcher = Batcher(engine, self.batch, entry.name)
        return Model(entry, names, batcher, engine.task, size(entry))

    def _sam(self, entry: ModelConfig) -> SamModel:
        assert entry.architecture is not None  # or models.yaml would have been refused
        segmenter = load.load_sam(entry.weights, entry.architecture, self.engines)
        try:
            segmenter.warm_up()
        except BaseException:
            segmenter.release()
            raise
        return SamModel(entry, segmenter, size(entry))


def join_versions(versions: Iterable[str]) -> str:
    """The version of several models together: sorted, joined by ``+``."""
    return "+".join(sorted(set(versions)))


def describe(model: Loaded) -> dict[str, Any]:
    return {
        "task": model.task,
        "classes": list(model.names.values()),
        "engine": model.runner.description,
        "memory_mb": model.size >> 20,
    }


def size(entry: ModelConfig) -> int:
    """About how many bytes a model takes when it is loaded."""
    try:
        return entry.weights.stat().st_size * MEMORY_FACTOR + MEMORY_BASE
    except OSError:  # replaced and gone, yet in memory
        return MEMORY_BASE
