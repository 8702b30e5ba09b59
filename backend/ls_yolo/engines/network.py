"""What a network is: told by its weights, and written beside an export of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Network:
    """What an engine must know to feed a network and to read its outputs.

    names: class index to class name.
    task: what it does, as ultralytics calls it.
    imgsz, stride, channels: see `letterbox.Input`.
    end2end: whether the network itself leaves no doubles.
    keypoints: of pose, how many points an object has and how many values a point: 2, or 3 with a
        score; (0, 0) of any other task.
    transformer: whether it is an RT-DETR.
    """

    names: Mapping[int, str]
    task: str
    imgsz: int
    stride: int
    channels: int = 3
    end2end: bool = False
    keypoints: tuple[int, int] = (0, 0)
    transformer: bool = False

    def manifest(self) -> dict[str, Any]:
        """For JSON; `read` takes it."""
        return asdict(self)

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> Network:
        """What `manifest` wrote, among other things.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or is something else.
        """
        points, values = manifest["keypoints"]
        return cls(
            names={int(index): str(name) for index, name in dict(manifest["names"]).items()},
            task=str(manifest["task"]),
            imgsz=int(manifest["imgsz"]),
            stride=int(manifest["stride"]),
            channels=int(manifest["channels"]),
            end2end=bool(manifest["end2end"]),
            keypoints=(int(points), int(values)),
            transformer=bool(manifest["transformer"]),
        )
