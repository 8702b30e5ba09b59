"""What `helm test` runs: looks for pods that wait, then has Label Studio store a prediction.

It makes a project of its own, uploads an image, has it predicted as setup does, reads what is
stored, and deletes the project again. The exit status is 0 only if a prediction is stored and no
pod of the release waits.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
import sys
import uuid
from html import escape
from pathlib import Path
from typing import Any

import httpx

from ls_yolo import settings
from ls_yolo.cli.apply import bring
from ls_yolo.cli.common import ToolError
from ls_yolo.config import ConfigError
from ls_yolo.labelstudio.client import Studio, StudioError
from ls_yolo.projects import config
from ls_yolo.projects.apply import Applier
from ls_yolo.projects.backend import ApplyError, Backend, wait
from ls_yolo.projects.config import Project

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "https://kubernetes.default.svc"
FIXES = {
    "nvidia.com/": "Lower backend.replicas or backend.gpu.count, or add a node with a free GPU",
    "Insufficient": "Lower resources.requests, or add a node",
    "taint": "Add tolerations for the taints of the nodes",
    "affinity": "Look at nodeSelector and affinity: no node fits",
    "PersistentVolumeClaim": "kubectl describe pvc tells why the claim has no volume",
    "image": "Check the image's name, and imagePullSecrets",
    "Secret": "Make the Secret that is named in the values, with its keys",
}


def say(text: str) -> None:
    print(text, flush=True)


def pods() -> list[dict[str, Any]]:
    """The pods of the release, as the API server knows them."""
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    # Python asks more of a certificate than Go does, with which clusters make theirs.
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    answer = httpx.get(
        f"{API}/api/v1/namespaces/{(ACCOUNT / 'namespace').read_text()}/pods",
        params={"labelSelector": os.environ["PODS"]},
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"},
        verify=trust,
        timeout=10,
    )
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def reason(pod: dict[str, Any]) -> str:
    """Why a pod is not ready; empty where it is, or is none that should be."""
    status, owner = pod["status"], pod["metadata"]["labels"].get("app.kubernetes.io/component")
    if owner in ("setup", "test") or status.get("phase") in ("Succeeded", "Failed"):
        return ""
    conditions = {row["type"]: row for row in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    if pod["metadata"].get("deletionTimestamp"):
        return ""
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason") or "no node yet")
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    for container in containers:
        state = container.get("state", {})
        if waiting := state.get("waiting"):
            last = container.get("lastState", {}).get("terminated", {})
            said = waiting.get("message") or last.get("message") or ""
            if waiting.get("reason") != "PodInitializing":
                return f"{container['name']}: {waiting.get('reason')}: {said.strip()}"
    return "not ready yet; kubectl describe pod tells more"


def look_at_pods() -> list[str]:
    """A line for each pod that waits: which, why, and what to do."""
    faults = []
    for pod in pods():
        if why := reason(pod):
            fix = next((fix for word, fix in FIXES.items() if word in why), "")
            faults.append(f"pod {pod['metadata']['name']} waits: {why} {fix}".strip())
    return faults


def wanted(backend: Backend, folder: Path) -> tuple[str, tuple[str, ...]]:
    """The labeling config and models to try: of the first project, else of the model."""
    found = config.read(folder) if folder.is_dir() else []
    if found:
        return found[0].label_config, found[0].models
    auth = (backend.user, backend.password) if backend.password else None
    rows = httpx.get(f"{backend.url}/readyz", auth=auth, timeout=10).json()["models"]
    row = next((row for row in rows if row.get("classes")), None)
    if row is None:
        raise ApplyError("no project in the values, and no model that tells its classes")
    labels = "".join(f'<Label value="{escape(name)}"/>' for name in row["classes"][:80])
    return (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        f"{labels}</RectangleLabels></View>",
        (row["name"],),
    )


def upload(studio: Studio, project: int) -> None:
    """Uploads an image that ultralytics has in its package."""
    spec = importlib.util.find_spec("ultralytics")
    assert spec is not None and spec.origin is not None
    photo = Path(spec.origin).with_name("assets") / "bus.jpg"
    httpx.post(
        f"{studio.url}/api/projects/{project}/import",
        files={"file": (photo.name, photo.read_bytes())},
        headers=studio.client._client_wrapper.get_headers(),
        timeout=60,
    ).raise_for_status()


def predict(values: dict[str, Any]) -> None:
    """Has one image predicted through Label Studio, and reads what is stored.

    Raises:
        ApplyError, StudioError, ToolError, httpx.HTTPError: there is no stored prediction.
    """
    backend = Backend(values["BACKEND_URL"], values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"])
    studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])
    api: Any = studio.client
    wait(f"{studio.url}/health", values["SETUP_TIMEOUT"], say)
    wait(f"{backend.url}/readyz", values["SETUP_TIMEOUT"], say)
    config, models = wanted(backend, Path(os.environ["PROJECTS"]))
    title = f"helm test {uuid.uuid4().hex[:8]}"
    made = api.projects.create(title=title, label_config=config)
    try:
        upload(studio, made.id)
        applier = Applier(studio, backend, Path(values["LOCAL_FILES_DOCUMENT_ROOT"]), say)
        bring(applier, studio, Project("helm test", title, "", config, models, None, True), values)
        stored = api.predictions.list(project=made.id)
        # An empty result without a score is how a task is stored that could not be predicted.
        good = [row for row in stored if row.result or row.score is not None]
        if len(good) != 1:
            raise ApplyError(f"found {len(good)} stored predictions of one image, expected 1")
        say(f"stored: {good[0].model_version}, {len(good[0].result)} boxes")
    finally:
        api.projects.delete(made.id)


def main() -> int:
    faults = []
    try:
        faults = look_at_pods()
    except (httpx.HTTPError, OSError) as error:
        faults.append(f"the API server does not tell of the pods: {error}")
    try:
        predict(settings.read("setup"))
    except (ApplyError, ConfigError, StudioError, ToolError, httpx.HTTPError) as error:
        faults.append(str(error))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr, flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
