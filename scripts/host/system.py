"""System, Python, disk and memory of this host."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from host import docker_engine
from host.checks import OK, STOP, WARNING, Check
from lib import ROOT, net, versions

GB = 10**9


def parse_os_release(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    return parse_os_release(path.read_text()) if path.is_file() else {}


def family(release: Mapping[str, str]) -> str:
    """``debian`` or ``ubuntu``, also for what is derived from them (Mint, Raspbian); else empty."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    return next((name for name in names if name in ("debian", "ubuntu")), "")


def check_os(release: Mapping[str, str], machine: str) -> Check:
    name = release.get("PRETTY_NAME") or platform.system()
    needed = "Linux on x86_64"
    if platform.system() != "Linux" or machine != "x86_64":
        fix = "The lock files name packages for Linux on x86_64 only: use such a machine"
        return Check("system", f"{name}, {machine}", needed, STOP, fix)
    if not family(release):
        return Check(
            "system", name, needed, WARNING,
            "Only Debian and Ubuntu get a missing engine installed; here do it by hand: "
            f"{docker_engine.DOCS}",
        )  # fmt: skip
    return Check("system", f"{name}, {machine}", needed)


def check_python(version: tuple[int, ...], needed: str) -> Check:
    found = ".".join(map(str, version))
    if versions.at_least(found, needed):
        return Check("python", found, needed)
    return Check(
        "python", found, needed, STOP, f"Run with a newer one: make up PYTHON=python{needed}"
    )


# Disk and memory


@dataclass(frozen=True)
class Need:
    """Disk that is going to be used: where, how much, what for."""

    path: Path
    gb: float
    purpose: str


def disk_needs(
    minimums: Mapping[str, str],
    data_root: Path,
    built: Iterable[str],
    cpu_torch: bool,
    install: bool,
    repository: Path = ROOT,
) -> list[Need]:
    """What is going to be written where, given which images are ``built`` already."""
    number = {name: float(value) for name, value in minimums.items() if name.startswith("disk_gb")}
    built = set(built)
    needs = [Need(data_root, number["disk_gb_running"], "running")]
    if "backend" not in built:
        gb = number["disk_gb_backend_cpu" if cpu_torch else "disk_gb_backend"]
        needs.append(Need(data_root, gb, "the backend's image"))
    if "label-studio" not in built:
        needs.append(Need(data_root, number["disk_gb_label_studio"], "Label Studio's image"))
    if built < {"backend", "label-studio"}:
        needs.append(Need(repository, number["disk_gb_repository"], "weights and images"))
    if install:
        needs.append(Need(Path("/usr"), number["disk_gb_engine"], "the Docker Engine"))
    return needs


def nearest(path: Path) -> Path:
    """``path`` or the nearest folder above it that is there and can be looked at."""
    while not os.path.exists(path) and path != path.parent:  # noqa: PTH110 # no error if forbidden
        path = path.parent
    return path


def check_disk(needs: Iterable[Need], cpu_saves_gb: float = 0) -> list[Check]:
    """One check a file system: what shares a disk adds up."""
    by_disk: dict[int, list[Need]] = {}
    for need in needs:
        by_disk.setdefault(nearest(need.path).stat().st_dev, []).append(need)
    checks = []
    for group in by_disk.values():
        where = nearest(group[0].path)
        free = shutil.disk_usage(where).free / GB
        total = sum(need.gb for need in group)
        purposes = ", ".join(f"{need.gb:g} {need.purpose}" for need in group)
        found, needed = f"{free:.1f} GB free at {where}", f"{total:g} GB: {purposes}"
        if free >= total:
            checks.append(Check("disk", found, f"{total:g} GB"))
            continue
        fix = (
            f"Free {total - free:.1f} GB at {where} (docker system prune removes what no "
            "container uses), or move the Docker Engine's data to a larger disk (data-root in "
            "/etc/docker/daemon.json)"
        )
        if cpu_saves_gb and any("backend" in need.purpose for need in group):
            fix += (
                f", or do without CUDA, which saves {cpu_saves_gb:g} GB: "
                f"make up TORCH_INDEX={net.CPU_TORCH_INDEX}"
            )
        checks.append(Check("disk", found, needed, STOP, fix))
    return checks


def memory_gb(meminfo: str) -> float:
    """All memory of the host in GB, from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 / GB
    return 0.0


def check_memory(found: float, needed: float) -> Check:
    # A machine sold as 4 GB shows somewhat less: the kernel and the firmware keep a part.
    state = OK if found >= needed * 0.9 else WARNING
    fix = (
        "" if state == OK else "Add memory or swap, or close what else runs: services may be killed"
    )
    return Check("memory", f"{found:.1f} GB", f"{needed:g} GB", state, fix)
