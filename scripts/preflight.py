#!/usr/bin/env python3
"""Looks at this host before `make up` touches it: what was found, what is needed, what to do.

Changes nothing. Exit code 0: all is well (warnings aside). 3: only things are missing that
scripts/install_engine.py can bring. 1: a person must do something first.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import env
from host import configuration, cuda, database, docker_engine, gpu, macvlan, system
from host.checks import INSTALLABLE, STOP, WARNING, Check
from host.ports import check_ports
from lib import ROOT, commands, settings, versions
from lib.cli import TO_DO, run_main, say, say_error

# All of it


def without_cuda(
    values: Mapping[str, str], written: Mapping[str, str], found_gpus: Collection[str]
) -> bool:
    """Whether torch comes without CUDA: by TORCH_INDEX, or by what a new ``.env`` will choose."""
    if values["TORCH_INDEX"] or "TORCH_INDEX" in written:
        return values["TORCH_INDEX"].rstrip("/").endswith("/cpu")
    return not found_gpus and env.cpu_index_answers()


def all_checks(ports: bool = True, folders: bool = True) -> list[Check]:
    """Every check; each is made, whatever the others say, so that a person sees all at once.
    But for another system than Linux, where the others would not know where to look.

    folders: models and projects are looked at too, which a restore brings only later.
    """
    release = system.os_release()
    system_check = system.check_os(release, platform.machine())
    if platform.system() != "Linux":
        return [system_check]
    minimums = versions.minimums()
    values = settings.values()
    written = settings.parse_env(settings.env_text())
    given = {n for n in values for layer in (os.environ, written) if settings.is_given(n, layer)}
    engine = docker_engine.find_engine()
    # sudo is asked only where something is missing: a refusal is logged and may alarm someone.
    lacking = engine.state in ("missing", "stopped") or bool(engine.lacks())
    installable = lacking and bool(system.family(release)) and commands.may_become_root()
    answers = engine.state == "answers" and bool(engine.client)  # the client asks it
    tags = versions.images()
    there = docker_engine.images_built(list(tags.values())) if answers else set()
    if values["IMAGES"] == "present":  # then none is built
        there = set(tags.values())
    found_gpus = gpu.gpus()
    cpu_torch = len(there) < len(tags) and without_cuda(values, written, found_gpus)
    saves = float(minimums["disk_gb_backend"]) - float(minimums["disk_gb_backend_cpu"])
    needs = system.disk_needs(
        minimums,
        Path(engine.root or "/var/lib/docker"),
        {name for name, tag in tags.items() if tag in there},
        cpu_torch,
        bool(engine.lacks()),
    )
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        needs = [need for need in needs if need.path == ROOT]  # its disk is not here
    return [
        system_check,
        system.check_python(sys.version_info[:3], minimums["python"]),
        *docker_engine.check_engine(
            engine, minimums, installable, os.environ.get("USER") or "$USER"
        ),
        *system.check_disk(needs, saves if not found_gpus and not cpu_torch else 0),
        system.check_memory(
            system.memory_gb(Path("/proc/meminfo").read_text()), float(minimums["memory_gb"])
        ),
        *(check_ports(values, engine) if ports else []),
        *(Check(*fault[:3], WARNING, fault[3]) for fault in cuda.faults(cuda.gpus(), minimums)),
        *gpu.checks(values, found_gpus, answers),
        *macvlan.checks(values, answers),
        *database.checks(values, answers),
        *configuration.check_settings(configuration.to_look_at(values, settings.declared(), given)),
        *configuration.check_names(written, settings.declared()),
        *configuration.check_references(settings.references(settings.env_text())),
        *(configuration.check_folders(values) if folders else []),
    ]


def exit_code(checks: Iterable[Check]) -> int:
    states = {check.state for check in checks}
    return 1 if STOP in states else TO_DO if INSTALLABLE in states else 0


def verdict(checks: Iterable[Check]) -> str:
    """The one message at the end: what stops us, and the fix."""
    stops = [f"{check.name}: {check.found}. {check.fix}" for check in checks if check.state == STOP]
    return "nothing was changed, because this must be put right first:\n  " + "\n  ".join(stops)


def table(checks: Iterable[Check]) -> str:
    """The table for people; what to know stands under the line that it belongs to."""
    rows = [("check", "found", "needed", "")]
    fixes = [""]
    for check in checks:
        rows.append((check.name, check.found, check.needed, check.state))
        fixes.append(check.fix)
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, fix in zip(rows, fixes, strict=True):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=False))
        lines.append(f"{cells}  {row[3]}".rstrip())
        if fix and row[3] != STOP:  # those stand in the message at the end
            lines.append(f"    -> {fix}")
    return "\n".join(lines)


def main() -> int:
    checks = all_checks()
    say(table(checks))
    code = exit_code(checks)
    if code == 1:
        say_error(verdict(checks))
    return code


if __name__ == "__main__":
    run_main(main)
