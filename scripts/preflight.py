#!/usr/bin/env python3
"""Looks at this host before `make up` touches it: what was found, what is needed, what to do.

Changes nothing. Exit code 0: all is well (warnings aside). 3: only things are missing that
scripts/install_engine.py can bring. 1: a person must do something first.
"""

from __future__ import annotations

import difflib
import errno
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import cuda
import database
import env
import gpu
import lan
from checks import INSTALLABLE, OK, STOP, WARNING, Check
from engine import Engine, find_engine, images_built
from gpu import gpus

DOCS = "https://docs.docker.com/engine/install/"
GB = 10**9
# What the look at the settings exits with when one cannot be used.
EX_CONFIG = 78


# What the host is


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
        cure = "The lock files name packages for Linux on x86_64 only: use such a machine"
        return Check("system", f"{name}, {machine}", needed, STOP, cure)
    if not family(release):
        return Check(
            "system", name, needed, WARNING,
            f"Only Debian and Ubuntu get a missing engine installed; here do it by hand: {DOCS}",
        )  # fmt: skip
    return Check("system", f"{name}, {machine}", needed)


def check_python(version: tuple[int, ...], needed: str) -> Check:
    found = ".".join(map(str, version))
    if common.at_least(found, needed):
        return Check("python", found, needed)
    return Check(
        "python", found, needed, STOP, f"Run with a newer one: make up PYTHON=python{needed}"
    )


# The engine


def check_engine(
    engine: Engine, needed: Mapping[str, str], installable: bool, user: str
) -> list[Check]:
    """Engine, client, compose and buildx. ``installable``: Debian or Ubuntu, and root at hand."""
    absent = INSTALLABLE if installable else STOP
    will = "It is installed by make up" if installable else f"Install it as root: {DOCS}"
    old = engine.too_old(dict(needed))
    want = needed["docker_engine"]
    checks = []

    if engine.state == "denied":
        checks.append(Check(
            "engine", "runs, but this user may not use it", want, STOP,
            f"Run: sudo usermod -aG docker {user}   then log in again (or run: newgrp docker)",
        ))  # fmt: skip
    elif engine.state == "unreachable":
        checks.append(Check(
            "engine", f"none answers at DOCKER_HOST={engine.detail}", want, STOP,
            "Start that engine, or unset DOCKER_HOST",
        ))  # fmt: skip
    elif engine.state == "missing":
        checks.append(Check("engine", "none", want, absent, will))
    elif engine.state == "stopped":
        cure = (
            "It is started by make up"
            if installable
            else "Start it as root: systemctl start docker"
        )
        checks.append(Check("engine", "installed, does not run", want, absent, cure))
    elif "engine" in old:
        checks.append(Check(
            "engine", engine.version, want, STOP,
            "It is left alone, because other containers may need it. Replace it by a newer one: "
            f"{DOCS}",
        ))  # fmt: skip
    else:
        checks.append(Check("engine", engine.version, want))

    for name, found in (("compose", engine.compose), ("buildx", engine.buildx)):
        if not found:
            checks.append(Check(name, "none", needed[name], absent, will))
        elif name in old:
            checks.append(Check(
                name, found, needed[name], STOP,
                f"Replace it by a newer one (package docker-{name}-plugin): {DOCS}",
            ))  # fmt: skip
        else:
            checks.append(Check(name, found, needed[name]))
    if not engine.client and engine.state != "missing":
        checks.append(Check("docker client", "none", "any", absent, will))
    return checks


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
    repository: Path = common.ROOT,
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
        needs.append(Need(repository, number["disk_gb_repository"], "weights and photographs"))
    if install:
        needs.append(Need(Path("/usr"), number["disk_gb_engine"], "the engine"))
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
        cure = (
            f"Free {total - free:.1f} GB at {where} (docker system prune removes what no "
            "container uses), or move the engine's data to a larger disk (data-root in "
            "/etc/docker/daemon.json)"
        )
        if cpu_saves_gb and any("backend" in need.purpose for need in group):
            cure += (
                f", or do without CUDA, which saves {cpu_saves_gb:g} GB: "
                f"make up TORCH_INDEX={common.CPU_TORCH_INDEX}"
            )
        checks.append(Check("disk", found, needed, STOP, cure))
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
    cure = (
        "" if state == OK else "Add memory or swap, or close what else runs: services may be killed"
    )
    return Check("memory", f"{found:.1f} GB", f"{needed:g} GB", state, cure)


# Ports


@dataclass(frozen=True)
class PortUse:
    """Who has a port: ``free``, ``ours``, ``taken`` (by ``who``) or ``bad`` (``who`` says why)."""

    state: str
    who: str = ""


def parse_port(text: str) -> int:
    """The port that ``text`` names; 0 if it names none."""
    if re.fullmatch(r"[0-9]{1,5}", text.strip()) and 1 <= int(text) <= 65535:
        return int(text)
    return 0


def published(listing: str, port: int) -> str:
    """Which container publishes ``port``, by lines "name<TAB>ports" of ``docker ps``."""
    for line in listing.splitlines():
        name, _, ports = line.partition("\t")
        for part in ports.split(","):
            outside = part.strip().partition("->")[0]
            span = outside.rpartition(":")[2] if "->" in part else ""
            low, _, high = span.partition("-")
            if low.isdecimal() and int(low) <= port <= int(high or low):
                return name
    return ""


def try_bind(address: str, port: int) -> OSError | None:
    """The error that the engine would meet on publishing the port; None if there is none."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            probe.listen(1)
    except OSError as error:
        return error
    return None


def target_of(link: Path) -> str:
    """Where a link of /proc points; empty if it has gone meanwhile."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def listener(port: int, proc: Path = Path("/proc")) -> str:
    """Name and id of the process that listens on ``port``, if this user may see it; else empty."""
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if any(target_of(link) in inodes for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # it has ended, or belongs to someone else
    return "a process of another user"


def look_at_port(address: str, port: int, ours: str, all_containers: str) -> PortUse:
    """Who has ``port``: ``ours`` and ``all_containers`` are listings of ``docker ps``."""
    # Whoever has the port: containers of ours may have it at the address that was set before.
    # Any port will do for this question (0), as a low one may be refused for another reason.
    if error := try_bind(address, 0):
        return PortUse("bad", error.strerror or str(error))
    if published(ours, port):
        return PortUse("ours")
    if name := published(all_containers, port):
        return PortUse("taken", f"container {name}")
    error = try_bind(address, port)
    if error is None or error.errno == errno.EACCES:  # a low port: the engine is root and may
        return PortUse("free")
    if error.errno == errno.EADDRINUSE:
        return PortUse("taken", listener(port))
    return PortUse("bad", error.strerror or str(error))


def check_port(setting: str, address: str, port: int, use: PortUse, spare: int) -> Check:
    """``spare`` is a free port to propose."""
    where = f"port {port}"
    if use.state == "bad":
        return Check(
            where, f"cannot be used at {address}: {use.who}", f"free at {address}", STOP,
            "Set BIND_ADDRESS in .env to an address of this host: 127.0.0.1 or 0.0.0.0",
        )  # fmt: skip
    if use.state == "taken":
        by = f" by {use.who}" if use.who else ""
        return Check(
            where, f"taken{by}", f"free at {address}", STOP,
            f"Stop that, or take another port: make up {setting}={spare}   "
            f"(to keep it: {setting}={spare} in .env)",
        )  # fmt: skip
    return Check(where, "used by ls-yolo" if use.state == "ours" else "free", f"free at {address}")


def check_ports(values: Mapping[str, str], engine: Engine) -> list[Check]:
    address = values["BIND_ADDRESS"]
    ours = everyone = ""
    if engine.state == "answers" and engine.client:
        ps = [engine.client, "ps", "--format", "{{.Names}}\t{{.Ports}}"]
        project = f"label=com.docker.compose.project={values['COMPOSE_PROJECT_NAME']}"
        ours = common.output([*ps, "--filter", project]) or ""
        everyone = common.output(ps) or ""
    checks: list[Check] = []
    seen: dict[int, str] = {}
    for setting in ("LABEL_STUDIO_PORT", "BACKEND_PORT"):
        port = parse_port(values[setting])
        if not port:
            continue  # check_settings says so
        if port in seen:
            cure = f"Give {setting} and {seen[port]} different ports"
            checks.append(Check(f"port {port}", "asked for twice", "once", STOP, cure))
            continue
        seen[port] = setting
        use = look_at_port(address, port, ours, everyone)
        spare = next(
            (p for p in range(port + 1, min(port + 50, 65535)) if not try_bind(address, p)),
            port + 1,
        )
        checks.append(check_port(setting, address, port, use, spare))
    return checks


# Settings and folders


def to_look_at(
    values: Mapping[str, str], settings: Iterable[Mapping[str, Any]], given: Collection[str]
) -> dict[str, str]:
    """``values`` as the services will see them: ``.env`` will have secrets, for which made-up ones
    stand here, and what Compose fixes is not what the environment happens to say.
    """
    result = dict(values)
    for setting in settings:
        if setting["fixed"]:
            result[setting["name"]] = setting["default"]
        elif setting["generate"] and setting["name"] not in given:
            result[setting["name"]] = "0" * 40
    return result


def ask_for_faults(values: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code and output of the backend's own look at the settings."""
    done = subprocess.run(
        [sys.executable, "-m", "ls_yolo.settings", "--check"],
        env={
            **os.environ, **values,
            "PYTHONPATH": str(common.ROOT / "backend"), "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def check_settings(
    values: Mapping[str, str],
    ask: Callable[[Mapping[str, str]], tuple[int, str, str]] = ask_for_faults,
) -> list[Check]:
    """One line for each value that cannot be used; one in all if there is none."""
    code, lines, errors = ask(values)
    if code not in (0, EX_CONFIG):
        raise common.Failure(f"the settings cannot be looked at:\n{errors.strip()}")
    faults = lines.splitlines() if code else []
    if values["BASIC_AUTH_PASS"] and not values["BASIC_AUTH_USER"]:
        faults.append(
            "BASIC_AUTH_USER: found '', expected a user for BASIC_AUTH_PASS, or both empty"
        )
    if not faults:
        return [Check("settings", "can be used", "can be used")]
    checks = []
    for fault in faults:
        name, _, rest = fault.partition(": ")
        found, _, expected = rest.removeprefix("found ").partition(", expected ")
        cure = "Correct it in .env, or where the environment sets it"
        if expected:
            cure = f"Expected {expected}. {cure}"
        checks.append(Check(name, found, expected, STOP, cure))
    return checks


# Names of .env that are no settings of ours but mean something to docker, Compose or a proxy.
OTHERS = re.compile(r"(COMPOSE|DOCKER|BUILDX|BUILDKIT|LS_YOLO)_\w+|\w+_PROXY", re.IGNORECASE)


def check_names(written: Iterable[str], settings: Iterable[Mapping[str, Any]]) -> list[Check]:
    """A line for each name in ``.env`` that changes nothing: most likely a slip of the hand."""
    fixed = {setting["name"]: setting["fixed"] for setting in settings}
    free = [name for name, is_fixed in fixed.items() if not is_fixed]
    checks = []
    for name in written:
        if fixed.get(name):
            found, cure = "has no effect", "Compose sets it: remove its line from .env"
        elif name in fixed or OTHERS.fullmatch(name):
            continue
        else:
            found, cure = "is no setting", "docs/settings.md lists them"
            if near := difflib.get_close_matches(name.upper(), free, 1):
                cure = f"Did you mean {near[0]}?"
        checks.append(Check(name, f"{found}, but is in .env", "a setting", WARNING, cure))
    return checks


def check_references(names: Iterable[str]) -> list[Check]:
    """A line for each value of ``.env`` that Compose would read another way than the scripts."""
    cure = "Write out what $ stands for; or, where it is part of the value, put the value in '...'"
    return [
        Check(name, "has a $ that Compose fills in", "a plain value", STOP, cure) for name in names
    ]


def check_folders(values: Mapping[str, str]) -> list[Check]:
    """What a person must bring who does not use the folders of this repository."""
    models = common.host_path(values["MODELS_DIR"])
    projects = common.host_path(values["PROJECTS_DIR"])
    listed = models / "models.yaml"
    checks = []
    if values["MODEL_CLASS"] and models.is_dir():  # a class of one's own reads no models.yaml
        checks.append(Check("models", str(models), "a folder"))
    elif listed.is_file():
        checks.append(Check("models", str(listed), "models.yaml"))
    else:
        found = f"no models.yaml in {models}" if models.is_dir() else f"no folder {models}"
        checks.append(Check(
            "models", found, "models.yaml", STOP,
            f"Write {listed}; for the weights {models / 'best.pt'}, two lines are enough:\n"
            "      my-model:\n"
            "        weights: best.pt\n"
            "    Or correct MODELS_DIR in .env; ./models is the demo's",
        ))  # fmt: skip
    if projects.is_dir():
        checks.append(Check("projects", str(projects), "a folder"))
    else:
        checks.append(Check(
            "projects", f"no folder {projects}", "a folder", STOP,
            "Make it and describe a project in it (docs/projects.md), or correct PROJECTS_DIR in "
            ".env; ./projects is the demo's",
        ))  # fmt: skip
    return checks


# All of it


def without_cuda(
    values: Mapping[str, str], written: Mapping[str, str], found_gpus: Collection[str]
) -> bool:
    """Whether torch comes without CUDA: by TORCH_INDEX, or by what a new ``.env`` will choose."""
    if values["TORCH_INDEX"] or "TORCH_INDEX" in written:
        return values["TORCH_INDEX"].rstrip("/").endswith("/cpu")
    return not found_gpus and env.cpu_index_answers()


def all_checks(ports: bool = True) -> list[Check]:
    """Every check; each is made, whatever the others say, so that a person sees all at once."""
    minimums = common.minimums()
    values = common.values()
    written = common.parse_env(common.env_text())
    given = {n for n in values for layer in (os.environ, written) if common.is_given(n, layer)}
    release = os_release()
    engine = find_engine()
    # sudo is asked only where something is missing: a refusal is logged and may alarm someone.
    lacking = engine.state in ("missing", "stopped") or bool(engine.lacks())
    installable = lacking and bool(family(release)) and common.may_become_root()
    tags = common.images()
    there = images_built(list(tags.values())) if engine.state == "answers" else set()
    found_gpus = gpus()
    cpu_torch = without_cuda(values, written, found_gpus)
    saves = float(minimums["disk_gb_backend"]) - float(minimums["disk_gb_backend_cpu"])
    needs = disk_needs(
        minimums,
        Path(engine.root or "/var/lib/docker"),
        {name for name, tag in tags.items() if tag in there},
        cpu_torch,
        bool(engine.lacks()),
    )
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        needs = [need for need in needs if need.path == common.ROOT]  # its disk is not here
    return [
        check_os(release, platform.machine()),
        check_python(sys.version_info[:3], minimums["python"]),
        *check_engine(engine, minimums, installable, os.environ.get("USER") or "$USER"),
        *check_disk(needs, saves if not found_gpus and not cpu_torch else 0),
        check_memory(memory_gb(Path("/proc/meminfo").read_text()), float(minimums["memory_gb"])),
        *(check_ports(values, engine) if ports else []),
        *(Check(*fault[:3], WARNING, fault[3]) for fault in cuda.faults(cuda.cards(), minimums)),
        *gpu.checks(values, found_gpus, engine.state == "answers"),
        *lan.checks(values, engine.state == "answers"),
        *database.checks(values, engine.state == "answers"),
        *check_settings(to_look_at(values, common.settings(), given)),
        *check_names(written, common.settings()),
        *check_references(common.references(common.env_text())),
        *check_folders(values),
    ]


def exit_code(checks: Iterable[Check]) -> int:
    states = {check.state for check in checks}
    return 1 if STOP in states else 3 if INSTALLABLE in states else 0


def verdict(checks: Iterable[Check]) -> str:
    """The one message at the end: what stops us, and the cure."""
    stops = [
        f"{check.name}: {check.found}. {check.cure}" for check in checks if check.state == STOP
    ]
    return "nothing was changed, because this must be put right first:\n  " + "\n  ".join(stops)


def table(checks: Iterable[Check]) -> str:
    """The table for people; what to know stands under the line that it belongs to."""
    rows = [("check", "found", "needed", "")]
    cures = [""]
    for check in checks:
        rows.append((check.name, check.found, check.needed, check.state))
        cures.append(check.cure)
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, cure in zip(rows, cures, strict=True):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=False))
        lines.append(f"{cells}  {row[3]}".rstrip())
        if cure and row[3] != STOP:  # those stand in the message at the end
            lines.append(f"    -> {cure}")
    return "\n".join(lines)


def main() -> int:
    checks = all_checks()
    common.say(table(checks))
    code = exit_code(checks)
    if code == 1:
        common.say_error(verdict(checks))
    return code


if __name__ == "__main__":
    common.run_main(main)
