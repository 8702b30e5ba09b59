#!/usr/bin/env python3
"""`make helm-prelabel PROJECT=Wheelhouse SHARDS=4`: predictions of a whole project by many pods, in
the Kubernetes cluster of kubectl's current context. Safe to stop and to run again.

    PROJECT     title or number of the project
    SHARDS      pods, with a share of its tasks each: 4 unless set
    ARGS        more options of `ls-yolo prelabel`, such as ARGS="--model wheelhouse-person"
    NAMESPACE   where the release is, ls-yolo unless set
    RELEASE     which, if there are several
    QUEUE       Kueue's LocalQueue
    DRY_RUN     1: prints the Job, changes nothing
    REPORT      a file that gets how each shard ended, as JSON
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from cluster import tools
from helm_install import RELEASE
from lib import ROOT
from lib.cli import UserError, run_main, say

# The one part of the backend that runs on a host: it needs nothing but Python.
sys.path.append(str(ROOT / "backend"))
from ls_yolo.jobs import kubernetes


def given(name: str) -> str:
    return os.environ.get(name, "").strip()


def main() -> int:
    project, shards = given("PROJECT"), given("SHARDS") or "4"
    if not project:
        raise UserError("PROJECT: found nothing, expected a title. Such as: PROJECT=Wheelhouse")
    if not shards.isascii() or not shards.isdigit():
        raise UserError(f"SHARDS: found {shards!r}, expected a number of pods, such as 4")
    tools.programs()
    os.environ["PATH"] = f"{tools.TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}"
    wanted = kubernetes.Wanted(
        project,
        int(shards),
        shlex.split(given("ARGS")),
        given("NAMESPACE") or RELEASE,
        given("RELEASE"),
        given("QUEUE"),
    )
    report = given("REPORT")
    try:
        return kubernetes.run(
            wanted, say, dry_run=given("DRY_RUN") == "1", report=Path(report) if report else None
        )
    except kubernetes.ClusterError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    if len(sys.argv) > 1:
        say(__doc__ or "")
        raise SystemExit(2)
    run_main(main)
