"""Where torch computes."""

from __future__ import annotations

import torch  # type: ignore[import-not-found,unused-ignore]

from ls_yolo.engines import cpu
from ls_yolo.engines.base import EngineError


def find(device: str) -> torch.device:
    """The device that the setting DEVICE means: ``auto``, ``cpu`` or ``cuda:0``. On a CPU, torch
    then uses all cores, see `use_cores`.

    Raises:
        EngineError: it is not there.
    """
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError(
            f"DEVICE: found {device!r}, but torch {torch.__version__} sees no GPU; "
            "expected cpu or auto, or a container that has the GPU"
        )
    found = torch.device("cuda:0" if device == "cuda" else device)
    use_cores(found)
    return found


def use_cores(device: torch.device) -> None:
    """On a CPU, has torch use as many threads as there are cores for this process."""
    if device.type == "cpu":
        torch.set_num_threads(cpu.available())
