#!/usr/bin/env python3
"""`make helm-install`: what `make up` does, in the Kubernetes cluster of kubectl's current context.

The images are built and brought to the nodes, weights and images are copied into claims, and the
chart is installed with models/models.yaml and projects/*.yaml. Safe to run again: after a change of
models, images or projects too.

    NAMESPACE   where, ls-yolo unless set; made if missing
    KUBE_LOAD   command that brings images to the nodes, if it is not a kind cluster
    VALUES      a file of more values, which count most

For an installation to keep, see docs/kubernetes.md: it needs no more than Helm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import demo
import up
from cluster import kubernetes, tools
from lib import ROOT, settings, versions
from lib.cli import UserError, run_main, say

RELEASE = "ls-yolo"
CHART = ROOT / "charts" / "ls-yolo"
HELM = str(tools.TOOLS / "bin" / "helm")
CLAIMS = {"models": "MODELS_DIR", "datasets": "DATASETS_DIR"}
WITHIN = "15m"


def files_of(folder: Path) -> dict[str, Path]:
    """What goes into a claim, by its path there; nothing that is hidden or only explains."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.name != "README.md"
    }


def size_of(files: Mapping[str, Path]) -> str:
    """The size of a claim for files: room for four times as much, at least 1 GiB."""
    total = sum(path.stat().st_size for path in files.values())
    return f"{max(1, -(-4 * total // 2**30))}Gi"


def values(folders: Mapping[str, Path], images: Mapping[str, str]) -> dict[str, Any]:
    """The chart's values for what this host has.

    Raises:
        UserError: a file that is needed is missing.
    """
    models = folders["MODELS_DIR"] / "models.yaml"
    if not models.is_file():
        raise UserError(f"found no {models}, which names the models. Make it: docs/models.md")
    projects = sorted(folders["PROJECTS_DIR"].glob("*.y*ml"))
    named = {
        part: dict(zip(("repository", "tag"), images[tag].rsplit(":", 1), strict=True))
        for part, tag in zip(("labelStudio", "backend"), versions.images().values(), strict=True)
    }
    return {
        **{part: {"image": image} for part, image in named.items()},
        "models": {
            "type": "claim",
            "claim": {"existingClaim": f"{RELEASE}-models"},
            "config": models.read_text(),
        },
        "datasets": {"type": "claim", "claim": {"existingClaim": f"{RELEASE}-datasets"}},
        "projects": {path.name: path.read_text() for path in projects},
        # The demo is that of projects/, with the same images as on a host.
        "setup": {"demo": False},
    }


def fill_claims(namespace: str, image: str, folders: Mapping[str, Path]) -> None:
    """Copies weights and images into their claims, which are made where they are missing."""
    found = {claim: files_of(folders[setting]) for claim, setting in CLAIMS.items()}
    there = {claim["metadata"]["name"] for claim in kubernetes.get("pvc", "-n", namespace)["items"]}
    kubernetes.apply(*(
        kubernetes.claim(namespace, f"{RELEASE}-{claim}", size_of(files))
        for claim, files in found.items() if f"{RELEASE}-{claim}" not in there
    ))  # fmt: skip
    content: dict[str, Path | bytes] = {
        f"{RELEASE}-{claim}/{name}": path
        for claim, files in found.items()
        for name, path in files.items()
    }
    say(f"copying {len(content)} files into the claims")
    kubernetes.fill(namespace, image, content)


def helm(namespace: str, chosen: Mapping[str, Any]) -> None:
    """Installs or upgrades the release.

    Raises:
        UserError: Helm fails, after it has said why.
    """
    command = [HELM, "upgrade", "--install", RELEASE, str(CHART), "-n", namespace,
               "--wait", "--timeout", WITHIN, "-f", "-"]  # fmt: skip
    if more := os.environ.get("VALUES", "").strip():
        command += ["-f", more]
    done = subprocess.run(command, input=json.dumps(chosen), text=True)
    if done.returncode:
        raise UserError(
            "the installation did not come up; the lines above say why. What its pods say:\n"
            f"  kubectl -n {namespace} get pods\n"
            f"  kubectl -n {namespace} logs job/{RELEASE}-setup\n"
            "Put that right and run make helm-install again"
        )


def main() -> int:
    began = time.monotonic()
    namespace = os.environ.get("NAMESPACE", "").strip() or RELEASE
    tools.programs()
    where = kubernetes.context()
    say(f"cluster: {where}, namespace: {namespace}")
    demo.main()
    folders = {name: settings.host_path(settings.values()[name])
               for name in ("MODELS_DIR", "DATASETS_DIR", "PROJECTS_DIR")}  # fmt: skip
    up.main(["prepare"])
    images = kubernetes.bring_images(versions.images().values())
    chosen = values(folders, images)
    kubernetes.make_namespace(namespace)
    fill_claims(namespace, images[versions.images()["backend"]], folders)
    helm(namespace, chosen)
    say(f"Ready after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        say(__doc__ or "")
        raise SystemExit(2)
    run_main(main)
