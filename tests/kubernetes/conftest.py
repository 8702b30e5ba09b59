"""A cluster with the images on its nodes, and releases of the chart in namespaces of their own."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import kubernetes
from dev import crds, testtools
from lib import ROOT, versions
from lib.cli import UserError
from release import CHART, HELM, HELM3, Release, lacking, namespace

HERE = Path(__file__).parent
CI = CHART / "ci"
ARTIFACTS = ROOT / "artifacts"


STATE = ROOT / ".cache" / "kubernetes"
made_by_kind: list[str] = []


def pytest_sessionstart(session: pytest.Session) -> None:
    """Makes a cluster by kind where none is named, before there are workers, which share it.

    The cluster that ~/.kube/config happens to name is somebody's work: it is not taken unasked.
    """
    ours = hasattr(session.config, "workerinput") or os.environ.get("KUBECONFIG")
    if ours or not shutil.which("kind") or session.config.option.collectonly:
        return
    made_by_kind.append(f"ls-yolo-{secrets.token_hex(3)}")
    os.environ["KUBECONFIG"] = str(STATE / f"{made_by_kind[0]}.kubeconfig")
    STATE.mkdir(parents=True, exist_ok=True)
    make = ["kind", "create", "cluster", "--name", made_by_kind[0], "--wait", "3m"]
    subprocess.run([*make, "--kubeconfig", os.environ["KUBECONFIG"]], check=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    for name in made_by_kind:
        subprocess.run(["kind", "delete", "cluster", "--name", name], check=False)
        Path(os.environ.pop("KUBECONFIG")).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[], Any]], Any]:
    """``once(name, make)``: what ``make`` returns; the workers of one run make it once.

    It is kept as JSON; whoever comes meanwhile waits.
    """
    # The folder of this run, above that of each worker.
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared

    def found(name: str, make: Callable[[], Any]) -> Any:
        kept = shared / f"{name}.json"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_text(json.dumps(make()))
        return json.loads(kept.read_text())

    return found


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    """What the tests run on this machine is there; the command that brings it is named else."""
    wanted = [*map(Path, (HELM, HELM3, kubernetes.KUBECTL)), testtools.SCANNERS, crds.FOLDER]
    if missing := [str(path.relative_to(ROOT)) for path in wanted if not path.exists()]:
        lacking(f"found no {', '.join(missing)}. Run: python3 scripts/dev testtools kubernetes")


@pytest.fixture(scope="session")
def reached() -> str:
    """The name of a cluster: that of KUBECONFIG, or the one that kind made."""
    if not os.environ.get("KUBECONFIG"):
        lacking(f"no cluster is named. {kubernetes.NO_CLUSTER}")
    try:
        return kubernetes.context()
    except UserError as failure:
        lacking(str(failure))


@pytest.fixture(scope="session")
def images(reached: str, once: Callable[..., Any]) -> dict[str, str]:
    """The two images, and that of Postgres, by the names that they have on the nodes."""
    try:
        names = [*versions.images().values(), versions.POSTGRES_IMAGE]
        found: dict[str, str] = once("images", lambda: kubernetes.bring_images(names))
        return found
    except UserError as failure:
        lacking(f"{failure} (make test-kubernetes builds all three images)")


@pytest.fixture(scope="session")
def demo_files(once: Callable[..., Any]) -> dict[str, Path]:
    """The demo's weights and images by name: of `make up`, else fetched now."""
    ours = {name: ROOT / name.removesuffix("_DIR").lower()
            for name in ("MODELS_DIR", "DATASETS_DIR", "PROJECTS_DIR")}  # fmt: skip

    def fetch() -> None:
        subprocess.run(
            [sys.executable, "scripts/demo.py"], cwd=ROOT, check=True,
            env={**os.environ, **{key: str(path) for key, path in ours.items()}},
        )  # fmt: skip

    once("demo", fetch)
    found = {path.name: path for path in (ours["DATASETS_DIR"] / "demo").iterdir()}
    return {**found, "yolov8n.pt": ours["MODELS_DIR"] / "yolov8n.pt"}


Make = Callable[..., Release]
Files = Mapping[str, Path | bytes]


@pytest.fixture(scope="class")
def make(
    request: pytest.FixtureRequest, images: Mapping[str, str], demo_files: Mapping[str, Path]
) -> Iterator[Make]:
    """Makes a namespace and a release in it, not installed yet: ``make(["cpu"], values)``.

    The namespace has the claim ``weights``, and what ``objects`` and ``claims`` (files of a claim,
    by name) say. All of it is gone after the test, or after the last test of a class.
    """
    with ExitStack() as stack:

        def release(
            files: Sequence[str],
            values: Mapping[str, Any] | None = None,
            claims: Mapping[str, Files] | None = None,
            objects: Sequence[Mapping[str, Any]] = (),
        ) -> Release:
            where = stack.enter_context(namespace(f"t-{files[0]}-{secrets.token_hex(2)}"))
            wanted = {"weights": {"yolov8n.pt": demo_files["yolov8n.pt"]}, **(claims or {})}
            kubernetes.apply(
                *(kubernetes.claim(where, name, "1Gi") for name in wanted),
                *({**o, "metadata": {**o["metadata"], "namespace": where}} for o in objects),
            )
            content = {f"{claim}/{file}": data for claim, found in wanted.items()
                       for file, data in found.items()}  # fmt: skip
            kubernetes.fill(where, images[versions.images()["backend"]], content)
            STATE.mkdir(parents=True, exist_ok=True)
            own = STATE / f"{where}.yaml"
            own.write_text(yaml.safe_dump(merged(_overlay(images), values or {})))
            stack.callback(own.unlink)
            chosen = [CI / f"{file}-values.yaml" for file in files]
            made = Release(where, [*chosen, HERE / "values" / "here.yaml", own])
            stack.callback(made.close)
            stack.callback(_keep_story, made)
            return made

        yield release


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: ``other`` counts more, mappings are merged."""
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], Mapping) and isinstance(other[key], Mapping):
            both[key] = merged(one[key], other[key])
    return both


def _overlay(images: Mapping[str, str]) -> dict[str, Any]:
    """Values that name the images as the nodes know them."""
    ours = versions.images()
    named = {
        "labelStudio": images[ours["label-studio"]],
        "backend": images[ours["backend"]],
        "postgres": images[versions.POSTGRES_IMAGE],
    }
    return {
        part: {"image": dict(zip(("repository", "tag"), name.rsplit(":", 1), strict=True))}
        for part, name in named.items()
    }


def _keep_story(made: Release) -> None:
    """What pods and events say, kept for whoever looks for the cause of a failure."""
    ARTIFACTS.mkdir(exist_ok=True)
    (ARTIFACTS / f"kubernetes-{made.namespace.rpartition('-')[0]}.log").write_text(made.story())
