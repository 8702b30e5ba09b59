"""How the backend gets an NVIDIA GPU on this host: by CDI, or by NVIDIA's runtime for Docker.

CDI (Container Device Interface) is a file that names each GPU with all that a container needs for
it; the Docker Engine reads it itself. ``nvidia-ctk cdi generate`` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.checks import OK, STOP, Check
from lib import commands, docker, settings

KIND = "nvidia.com/gpu"
FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
CDI, RUNTIME = "gpu.yaml", "gpu-runtime.yaml"
TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/install-guide.html"
GENERATE = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


@dataclass(frozen=True)
class Host:
    """What there is for a GPU. ``devices``: names in CDI specifications, without the kind.

    ``cdi``: whether the Docker Engine reads such specifications. ``runtime``: whether it knows
    NVIDIA's. Both are None where no engine answers yet.
    """

    gpus: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    cdi: bool | None = None
    runtime: bool | None = None


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs; "NVIDIA GPU" where the driver's tool is missing."""
    lines = commands.output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    if lines:
        return lines.splitlines()
    return ["NVIDIA GPU" for _ in Path("/dev").glob("nvidia[0-9]*")]


def names_in(text: str) -> list[str]:
    """The devices of a CDI specification in JSON or YAML; none if it is of another kind.

    A bare host has no YAML parser. Of a file that a program writes, its lines are enough: ``kind:``
    at the left, and ``name:`` directly in the items of ``devices:``.
    """
    if text.lstrip().startswith("{"):
        try:
            found: Any = json.loads(text)
            return [str(d["name"]) for d in found["devices"]] if found["kind"] == KIND else []
        except (ValueError, KeyError, TypeError):
            return []
    if not re.search(rf"(?m)^kind:\s*[\"']?{re.escape(KIND)}[\"']?\s*$", text):
        return []
    names: list[str] = []
    inside, item = False, -1
    for line in text.splitlines():
        body = line.lstrip(" ")
        indent = len(line) - len(body)
        if not body or body.startswith("#"):
            continue
        if indent == 0 and not body.startswith("-"):
            inside, item = body.startswith("devices:"), -1
            continue
        if inside and body.startswith("- ") and item in (-1, indent):
            item, indent, body = indent, indent + 2, body[2:]
        if inside and indent == item + 2 and (found := re.match(r"name:\s*(.+?)\s*$", body)):
            names.append(found[1].strip("\"'"))
    return names


def devices(folders: Iterable[Path] = FOLDERS) -> list[str]:
    """Names of the GPUs in all specifications on this host, each once."""
    names: dict[str, None] = {}
    for folder in folders:
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix in (".yaml", ".json"):
                try:
                    names.update(dict.fromkeys(names_in(path.read_text())))
                except (OSError, UnicodeDecodeError):
                    continue
    return list(names)


def look(found: Sequence[str], answers: bool) -> Host:
    """``found``: names of the GPUs. ``answers``: whether there is a Docker Engine to ask."""
    if not answers:
        return Host(tuple(found), tuple(devices()))
    info = commands.output([docker.client(), "info", "--format", "{{json .}}"])
    told = json.loads(info) if info else {}
    # Its folders; none: it does not read specifications, and those here wait for that.
    reads = [Path(folder) for folder in told.get("CDISpecDirs") or ()]
    return Host(
        tuple(found),
        tuple(devices(reads or FOLDERS)),
        bool(reads),
        "nvidia" in (told.get("Runtimes") or {}),
    )


def overlay(host: Host) -> str:
    """The Compose file to use: CDI's, unless the runtime is all that there is."""
    return RUNTIME if host.runtime and not (host.cdi and host.devices) else CDI


def check(host: Host, device: str, torch_index: str) -> Check:
    """Whether the backend can get GPU ``device``, and what to do if not."""
    name, needed = "GPU", f"GPU_DEVICE={device} for the backend"
    shown = ", ".join(host.gpus) or "none"
    if torch_index.rstrip("/").endswith("/cpu"):
        return Check(
            name, f"{shown}, but torch for the CPU", needed, STOP,
            f"TORCH_INDEX is {torch_index}, which has no CUDA: make it empty in .env, or GPU=0",
        )  # fmt: skip
    if overlay(host) == RUNTIME:
        return Check(name, f"{shown}, by NVIDIA's runtime", needed)
    if not host.devices:
        if not host.gpus:
            return Check(
                name, "no NVIDIA driver, or no GPU", needed, STOP,
                "Install the driver, until nvidia-smi lists the GPU (Debian: apt install "
                "nvidia-driver, from non-free; Ubuntu: ubuntu-drivers install; then reboot). "
                "Or go on without: GPU=0",
            )  # fmt: skip
        return Check(
            name, f"{shown}, but no CDI specification of it", needed, STOP,
            f"Install the NVIDIA Container Toolkit ({TOOLKIT}), then run: {GENERATE}",
        )  # fmt: skip
    if device not in host.devices:
        return Check(
            name, f"no {device} among {', '.join(host.devices)}", needed, STOP,
            "Set GPU_DEVICE in .env to one of these. If the GPU is new, or a UUID is missing, "
            f"run: {GENERATE}",
        )  # fmt: skip
    if host.cdi is False:
        return Check(
            name, f"{shown}, but the Docker Engine does not read CDI specifications", needed, STOP,
            'Put "features": {"cdi": true} into /etc/docker/daemon.json (engine 28.3 and later do '
            "without), then run: sudo systemctl restart docker",
        )  # fmt: skip
    return Check(name, f"{KIND}={device} by CDI", needed)


def checks(values: Mapping[str, str], found: Sequence[str], answers: bool) -> list[Check]:
    """The one line about the GPU."""
    if settings.enabled(values, "GPU"):
        return [check(look(found, answers), values["GPU_DEVICE"], values["TORCH_INDEX"])]
    if not found:
        return [Check("GPU", "none: the CPU is used", "none")]
    fix = "It is not used. To use it: make up GPU=1   (to keep it: GPU=1 in .env)"
    return [Check("GPU", ", ".join(found), "none", OK, fix)]
