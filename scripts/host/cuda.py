"""Whether torch's CUDA runs on the NVIDIA driver and GPUs of this host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from lib import commands, versions

Gpu = tuple[str, str, str]
"""Name, driver and compute capability."""
Fault = tuple[str, str, str, str]
"""What it is of, what was found, what is needed, and the fix."""


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this host; none where there is no driver that can tell."""
    fields = "name,driver_version,compute_cap"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return parse(commands.output(command) or "")


def parse(listing: str) -> list[Gpu]:
    """The GPUs in what ``nvidia-smi`` prints, a line each; lines of another form are left out."""
    rows = [[part.strip() for part in line.split(",")] for line in listing.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]


def faults(found: Iterable[Gpu], needed: Mapping[str, str]) -> list[Fault]:
    """What torch's CUDA cannot use, each once. ``needed``: scripts/minimums.yml."""
    driver, capability = needed["gpu_driver"], needed["gpu_capability"]
    rows: list[Fault] = []
    for name, version, has in found:
        if _below(version, driver):
            fix = (
                f"torch's CUDA {needed['cuda']} does not run on this driver, so the CPU is used. "
                "Install a newer one, such as nvidia-driver of Debian 12 or later, and reboot"
            )
            rows.append(("GPU driver", version, driver, fix))
        if _below(has, capability):
            fix = (
                f"torch has nothing compiled for {name}: set DEVICE=cpu in .env, "
                "or use a newer GPU (Volta, of 2017, or later)"
            )
            rows.append(("GPU capability", has, capability, fix))
    return list(dict.fromkeys(rows))


def _below(found: str, needed: str) -> bool:
    # "[N/A]" and the like say nothing.
    return bool(re.fullmatch(r"[0-9.]+", found)) and not versions.at_least(found, needed)
