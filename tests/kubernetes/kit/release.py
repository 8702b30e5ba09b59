"""The chart, installed in a namespace, and what a test asks of it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests
import yaml
from label_studio_sdk import LabelStudio

from cluster import kubernetes, tools
from lib import ROOT
from lib.cli import UserError

CHART = ROOT / "charts" / "ls-yolo"
HELM = str(tools.TOOLS / "bin" / "helm")
HELM3 = str(tools.TOOLS / "bin" / "helm3")
NAME = "ls-yolo"
COMPONENT = "app.kubernetes.io/component"
INSTANCE = "app.kubernetes.io/instance"
WITHIN = "8m"


def lacking(what: str) -> NoReturn:
    """Skips a test for what this machine lacks; CI brings it, so there it is a failure."""
    if os.environ.get("LS_YOLO_NO_SKIPS"):
        pytest.fail(what)
    pytest.skip(what)


def until(true: Callable[[], Any], seconds: float, what: str, every: float = 1.0) -> Any:
    """What ``true`` returns, once that is something.

    Raises:
        AssertionError: it was not in time; ``what`` was waited for.
    """
    end = time.monotonic() + seconds
    while True:
        if found := true():
            return found
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(every)


@dataclass
class Release:
    """One release. ``files``: of values, in the order that Helm gets them."""

    namespace: str
    files: Sequence[Path]
    chart: Path = CHART
    helm_program: str = HELM
    _forward: subprocess.Popen[str] | None = field(default=None, init=False)
    _port: int = field(default=0, init=False)

    # Helm

    def helm(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs helm in the release's namespace."""
        done = subprocess.run(
            [self.helm_program, *words, "-n", self.namespace],
            capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"helm {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
                f"\n{self.story()}"
            )
        return done

    def install(
        self, *words: str, values: dict[str, Any] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Installs or upgrades, and waits; ``values`` count more than the files."""
        line = [word for file in self.files for word in ("-f", str(file))]
        with contextlib.ExitStack() as stack:
            if values:
                file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".yaml"))
                yaml.safe_dump(values, file)
                file.flush()
                line += ["-f", file.name]
            return self.helm(
                "upgrade", "--install", NAME, str(self.chart), "--wait", "--timeout", WITHIN,
                *line, *words, check=check,
            )  # fmt: skip

    def test(self, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs ``helm test``, and sees to it that there was one."""
        done = self.helm("test", NAME, "--logs", "--timeout", "5m", check=check)
        assert "TEST SUITE: None" not in done.stdout, "the chart has no test"
        return done

    def rollback(self) -> None:
        self.helm("rollback", NAME, "--wait", "--timeout", WITHIN)

    def uninstall(self) -> None:
        self.close()
        self.helm("uninstall", NAME, "--wait", "--timeout", "3m")

    def live(self, title: str = "ls-yolo demo", other: dict[str, Any] | None = None) -> None:
        """Other values, the old ones again, uninstalled, installed anew; after each of these the
        Secret and what is stored are those before."""
        before = self._kept(title)
        self.install(values=other or {"labelStudio": {"env": {"LABEL_STUDIO_THREADS": "9"}}})
        assert self._kept(title) == before, "an upgrade"
        self.rollback()
        assert self._kept(title) == before, "a rollback"
        self.uninstall()
        self.install()
        assert self._kept(title) == before, "a new installation on what was left"

    def _kept(self, title: str) -> tuple[dict[int, set[int]], dict[str, str]]:
        stored = self.stored(self.project(title).id)
        assert stored and all(stored.values()), "each task has a prediction"
        return {task: set(found) for task, found in stored.items()}, self.secret()

    # The cluster

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return kubernetes.kubectl("-n", self.namespace, *words, stdin=stdin)

    def get(self, kind: str, component: str = "") -> list[dict[str, Any]]:
        """Objects of the release, of one component or of all."""
        selector = f"{INSTANCE}={NAME}" + (f",{COMPONENT}={component}" if component else "")
        found: list[dict[str, Any]] = kubernetes.get(kind, "-n", self.namespace, "-l", selector)[
            "items"
        ]
        return found

    def one(self, kind: str, component: str = "") -> dict[str, Any]:
        (found,) = self.get(kind, component)
        return found

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods that are not about to go."""
        return [pod for pod in self.get("pods", component) if not _going(pod)]

    def ready(self, component: str) -> list[dict[str, Any]]:
        return [pod for pod in self.pods(component) if _ready(pod)]

    def story(self) -> str:
        """What a person would look at first when an installation does not come up."""
        parts = []
        for words in (
            ("get", "pods,jobs,pvc", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "-l", f"{INSTANCE}={NAME}", "--all-containers", "--tail=25", "--prefix"),
        ):
            with contextlib.suppress(UserError):
                parts.append(self.kubectl(*words))
        return "\n".join(parts)[-12000:]

    def secret(self) -> dict[str, str]:
        """What is secret, from the Secret that Label Studio's pods are given."""
        for found in kubernetes.get("secrets", "-n", self.namespace)["items"]:
            data = found.get("data") or {}
            if "LABEL_STUDIO_API_KEY" in data:
                return {key: base64.b64decode(value).decode() for key, value in data.items()}
        raise AssertionError("found no Secret with the key LABEL_STUDIO_API_KEY")

    # Label Studio

    @property
    def url(self) -> str:
        """Where Label Studio answers now, through a port-forward that is made anew if need be."""
        if self._forward is not None and self._forward.poll() is None and self._answers():
            return f"http://127.0.0.1:{self._port}"
        return str(until(self._connect, 120, "Label Studio through a port-forward"))

    def _answers(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            url = f"http://127.0.0.1:{self._port}/health"
            return requests.get(url, timeout=10).status_code == 200
        return False

    def _connect(self) -> str | None:
        self.close()
        service = self.one("services", "label-studio")["metadata"]["name"]
        port = self.one("services", "label-studio")["spec"]["ports"][0]["port"]
        self._forward = subprocess.Popen(
            [kubernetes.KUBECTL, "port-forward", "-n", self.namespace, f"service/{service}",
             f":{port}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._forward.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", self._forward.stdout.readline())
        if not found:
            return None
        self._port = int(found[1])
        return f"http://127.0.0.1:{self._port}" if self._answers() else None

    def close(self) -> None:
        if self._forward is not None:
            self._forward.kill()
            self._forward.wait()
            if self._forward.stdout:
                self._forward.stdout.close()
            self._forward = None

    @property
    def api(self) -> Any:  # the SDK's types are unions that no caller could narrow
        make: Any = LabelStudio
        return make(base_url=self.url, api_key=self.secret()["LABEL_STUDIO_API_KEY"], timeout=120)

    def project(self, title: str) -> Any:
        (found,) = [
            p for p in self.api.projects.list(title=title, page_size=100).items if p.title == title
        ]
        return found

    def stored(self, project: int) -> dict[int, dict[int, Any]]:
        """Stored predictions by task and by number."""
        api = self.api
        found: dict[int, dict[int, Any]] = {
            task.id: {}
            for task in api.tasks.list(project=project, fields="all", page_size=500).items
        }
        for prediction in api.predictions.list(project=project):
            found[prediction.task][prediction.id] = prediction
        return found

    def counted(self, title: str = "ls-yolo demo") -> dict[int, dict[int, Any]]:
        """Stored predictions of a project whose tasks have just one each, with boxes."""
        stored = self.stored(self.project(title).id)
        assert stored, "a project without tasks"
        for task, found in stored.items():
            assert [bool(prediction.result) for prediction in found.values()] == [True], task
        return stored

    def retrieve(self, project: int, tasks: Sequence[int] = ()) -> None:
        """What the button "Retrieve predictions" does, on all tasks or on some."""
        chosen = {"all": False, "included": list(tasks)} if tasks else {"all": True, "excluded": []}
        self.api.actions.create(
            id="retrieve_tasks_predictions", project=project, selected_items=chosen
        )


def _going(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _ready(pod: dict[str, Any]) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])
    )


@contextlib.contextmanager
def namespace(name: str) -> Iterator[str]:
    """A namespace that takes only what Pod security calls restricted; removed in the end."""
    kubernetes.make_namespace(name)
    try:
        until(
            lambda: json.loads(kubernetes.kubectl("get", "sa", "-n", name, "-o", "json"))["items"],
            60,
            "the default service account",
            0.2,
        )
        yield name
    finally:
        # Pods may take their time to end; the next test need not wait for them.
        kubernetes.kubectl("delete", "namespace", name, "--wait=false")
