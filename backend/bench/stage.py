"""What parts of the bench share: the folders and settings that they run with, and turns of ways."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from client import Figures
from containers import Place, docker, put

HERE = Path(__file__).resolve().parent
WEIGHTS = "yolov8n.pt"
SETTLE = 300.0
"""Seconds that an export may take."""

Way = Callable[[float], Figures]


@dataclass
class Part:
    """What a part of the report says. ``targets``: what must hold, and whether it does."""

    title: str
    ran: str = ""
    figures: dict[str, Figures] = field(default_factory=dict)
    rounds: list[dict[str, Figures]] = field(default_factory=list)
    targets: dict[str, bool] = field(default_factory=dict)
    theirs: tuple[str, ...] = ()
    """The ways that are not the backend's."""


def turns(ways: dict[str, Way], options: argparse.Namespace, part: Part) -> None:
    """Runs ``ways`` in turn, so many rounds, after a second of each; ``part`` gets every round, and
    the medians."""
    for way in ways.values():
        way(1)
    for number in range(options.rounds):
        part.rounds.append({name: way(options.seconds) for name, way in ways.items()})
        print(f"{part.title}: round {number + 1} of {options.rounds}", file=sys.stderr)
    part.figures = {
        name: {
            unit: statistics.median(found[name][unit] for found in part.rounds) for unit in figures
        }
        for name, figures in part.rounds[0].items()
    }


def ratio(part: Part, one: str, other: str) -> float:
    """How many times as fast ``one`` is as ``other``: the median of what the rounds say."""
    return statistics.median(
        found[one]["images_per_second"] / found[other]["images_per_second"] for found in part.rounds
    )


class Stage:
    """The folders that containers get: a copy of the demo's model, which may be changed."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.models = folder / "models"
        self.models.mkdir()
        self.models.chmod(0o755)
        shutil.copyfile(options.models / WEIGHTS, self.models / WEIGHTS)
        shutil.copyfile(HERE / "torch_each.py", self.models / "torch_each.py")
        (self.models / "models.yaml").write_text(f"coco: {{weights: {WEIGHTS}, conf: 0.25}}\n")
        photos = sorted((options.datasets / "demo").glob("*.jpg"))
        self.paths = [f"/datasets/demo/{photo.name}" for photo in photos]
        self.urls = [f"/data/local-files/?d=demo/{photo.name}" for photo in photos]
        self.environ = [f"MODEL_POLL_SECONDS={0 if 'swap' not in options.parts else 2}"]
        self.environ += options.env

    def place(self, gpu: bool = False, datasets: Path | None = None) -> Place:
        options = self.options
        arguments = [
            *("-v", f"{(datasets or options.datasets).resolve()}:/datasets:ro"),
            *("-v", f"{self.models}:/models:ro"),
            *("--pids-limit", "512"),
            *([] if gpu else [f"--cpuset-cpus={options.cpus}"]),
            *(["--device", "nvidia.com/gpu=all"] if gpu else []),
        ]
        if options.source:
            arguments += ["-v", f"{options.source.resolve()}:/app/ls_yolo:ro"]
        return Place(options.image, arguments)

    def make(self, code: str, name: str, *words: str) -> None:
        """Puts the weights ``name`` that ``code`` makes in the models folder."""
        with tempfile.TemporaryDirectory(dir=self.models.parent) as out:
            Path(out).chmod(0o777)
            docker("run", "--rm", "-v", f"{self.models}:/models:ro", "-v", f"{out}:/out",
                   self.options.image, "python3", "-c", code, *words)  # fmt: skip
            put(self.models / name, (Path(out) / name).read_bytes())
