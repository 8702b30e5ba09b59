"""What is judged of facts: each fault alone, red with it and green without."""

from __future__ import annotations

import base64
import copy
import json
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from ls_yolo.doctor import services, storage
from ls_yolo.doctor.base import exit_code
from ls_yolo.doctor.facts import Facts, ProjectFacts, Timed

VALUES = {
    "LABEL_STUDIO_URL": "http://127.0.0.1:1", "LABEL_STUDIO_API_KEY": "k" * 40,
    "BACKEND_URL": "http://backend:9090", "BASIC_AUTH_USER": "u", "BASIC_AUTH_PASS": "p",
    "LOCAL_FILES_DOCUMENT_ROOT": "/datasets",
}  # fmt: skip
ROOT = {"path": "/datasets", "error": "", "entries": 3, "digest": "aa"}
STUDIO = {
    "time": 0.0, "serving": True, "document_root": ROOT, "migrations": [],
    "limits": {"connect": 1.0, "health": 1.0, "setup": 3.0, "predict": 100.0},
    "web": {"address": "", "guard": True, "spared": ["backend"]},
    "database": {"kind": "sqlite", "version": "3.46.1", "size": 10**6, "locked": False,
                 "waiting": 0, "oldest": 0.0, "journal": "wal"},
    "disks": [{"path": "/data", "free": 5e10, "total": 1e11}],
    "storages": [],
}  # fmt: skip
BACKEND = {
    "time": 0.0, "document_root": ROOT, "files": {}, "gpu": {"devices": [], "torch": "2.10.0"},
    "label_studio": {"url": "http://label-studio:8080", "token": "legacy", "user": "a@b.c",
                     "error": "", "seconds": 0.1},
    "disks": [{"path": "/data", "free": 5e10, "total": 1e11}],
}  # fmt: skip
REACHED = {"url": "http://backend:9090", "kind": "", "error": "", "seconds": 0.1}
CUDA = [{"name": "coco", "engine": "torch 2.10.0 on cuda:0, half precision"}]
CPU = [{"name": "coco", "engine": "openvino 2025.3, bf16, 4 cores"}]


def look(check, studio=(), backend=(), models=CPU, reached=None, key="k" * 40):
    """Lines of a check where the two services say what is usual but for ``studio`` and
    ``backend``: paths into what they say, with a value."""
    says = [copy.deepcopy(STUDIO), copy.deepcopy(BACKEND)]
    now = time.time()
    for said, changes in zip(says, (studio, backend), strict=True):
        said["time"] = now
        for path, value in dict(changes).items():
            *folders, name = path.split("/")
            place = said
            for folder in folders:
                place = place[int(folder)] if isinstance(place, list) else place[folder]
            place[name] = now + value if name == "time" else value
    known = {
        "diagnosis": Timed(says[0], 0.1, now, now), "own": Timed(says[1], 0.1, now, now),
        "readyz": Timed({"models": models}, 0.1, now, now),
        "backend http://backend:9090": Timed({"backend": reached or REACHED}, 0.1, now, now),
        "projects": [ProjectFacts({"id": 1, "title": "ship"}, [])],
    }  # fmt: skip
    (found,) = [c for c in [*services.CHECKS, *storage.CHECKS] if c.name == check]
    return list(found.run(Facts({**VALUES, "LABEL_STUDIO_API_KEY": key}, known=known)))


def reached(**more):
    return REACHED | more


@pytest.fixture(autouse=True)
def on_a_host(monkeypatch):
    monkeypatch.setattr(Facts, "in_container", False)


@pytest.mark.parametrize(
    ("check", "fault", "code", "says"),
    [
        ("gpu", {"backend": {"gpu/devices": ["/dev/nvidia0"]}}, 2, "not used: openvino"),
        ("gpu", {"backend": {"gpu": {"devices": ["/dev/nvidia0"], "torch": "2.10.0+cpu"}}}, 2,
         "has no CUDA: make TORCH_INDEX empty"),
        ("clock", {"studio": {"time": -90}}, 2, "Label Studio's clock is 90 s off"),
        ("clock", {"backend": {"time": 10}}, 1, "the backend's clock is 10 s off"),
        ("disk", {"studio": {"disks/0/free": 1e9}}, 1, "1.0 GB of 100.0 GB free at /data"),
        ("disk", {"backend": {"disks/0/free": 1e8}}, 2, "100.0 MB of 100.0 GB free at /data"),
        ("database", {"studio": {"database/locked": True}}, 2, "a writer holds SQLite's lock"),
        ("database", {"studio": {"database/journal": "delete"}}, 2, "journal is 'delete'"),
        ("database", {"studio": {"database/size": 3e9}}, 1, "move to PostgreSQL"),
        ("database", {"studio": {"database/waiting": 4}}, 1, "4 statements wait for locks"),
        ("database", {"studio": {"database/oldest": 900.0}}, 1, "open for 900 s"),
        ("database", {"studio": {"database/kind": "postgresql", "database/version": "13.2"}}, 2,
         "too old"),
        ("migrations", {"studio": {"migrations": ["tasks.0057"]}}, 2, "1 are pending: tasks.0057"),
        ("document root", {"backend": {"document_root/digest": "bb"}}, 2, "another folder in each"),
        ("document root", {"backend": {"document_root/path": "/images"}}, 2,
         "the backend's /images"),
        ("document root", {"studio": {"document_root/error": "Permission denied"}}, 2,
         "Label Studio cannot read /datasets: Permission denied"),
        ("document root", {"studio": {"serving": False}}, 2, "serves no local files"),
        ("storage path", {"studio": {"storages": [
            {"id": 1, "project": 1, "path": "/elsewhere", "file": "", "error": ""}]}}, 2,
         "/elsewhere lies outside /datasets"),
        ("storage file", {"studio": {"storages": [
            {"id": 1, "project": 1, "path": "/datasets/a", "file": "", "error": ""}]}}, 1,
         "no file is in /datasets/a"),
        ("backend reaches label-studio", {"backend": {"label_studio/error": "refused"}}, 2,
         "http://label-studio:8080: refused"),
        ("backend reaches label-studio", {"backend": {"label_studio/token": "none"}}, 1,
         "no token of Label Studio"),
        ("label-studio reaches the backend", {"studio": {"web/guard": False}}, 1, "guard"),
        ("label-studio reaches the backend", {"reached": reached(seconds=0.8)}, 1, "takes 0.8 s"),
        ("label-studio reaches the backend", {"reached": reached(kind="dns")}, 2, "not resolve"),
        ("label-studio reaches the backend", {"reached": reached(kind="url")}, 2, "not an address"),
        ("certificates", {"studio": {"web/address": "https://127.0.0.1:1"}}, 2, "no TLS"),
        ("address", {"studio": {"web/address": "http://127.0.0.1:1"}}, 2, "not reached"),
    ],
)  # fmt: skip
def test_a_fault_is_red_and_what_is_usual_is_green(check, fault, code, says):
    red = look(check, **fault)
    assert exit_code(red) == code, red
    assert says in " ".join(map(str, red))
    green = look(check)
    assert exit_code(green) == 0, green


@pytest.mark.parametrize("check", ["address", "certificates"])
def test_the_address_that_people_open_may_be_out_of_reach_of_a_container(monkeypatch, check):
    monkeypatch.setattr(Facts, "in_container", True)
    (line,) = look(check, studio={"web/address": "https://labels.invalid"})
    assert exit_code([line]) == 1
    assert "seen from inside a container: no" in str(line)
    assert "make doctor on the host" in str(line)
    (line,) = look(check, studio={"web/address": "https://localhost:8081"})
    assert exit_code([line]) == 0
    monkeypatch.setattr(Facts, "in_container", False)
    assert exit_code(look(check, studio={"web/address": "https://localhost:1"})) == 2


def test_a_gpu_that_is_used_is_green():
    (line,) = look("gpu", backend={"gpu/devices": ["/dev/nvidia0"]}, models=CUDA)
    assert str(line) == "ok   gpu: /dev/nvidia0, used by coco"


def jwt(**content):
    text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{text}.c2ln"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "LABEL_STUDIO_API_KEY is empty"),
        (jwt(token_type="access", exp=4e9), "an access token, which lasts 5 minutes"),
        (jwt(token_type="refresh", exp=1e9), "the Personal Access Token has expired"),
        ("k" * 40, "a legacy token, Label Studio: ConnectError"),
    ],
)
def test_a_token_of_the_wrong_kind_is_told_and_never_shown(key, says):
    (line,) = look("token", key=key)
    assert exit_code([line]) == 2
    assert says in str(line)
    assert not key or key not in str(line)


@pytest.mark.parametrize(
    ("check", "part"),
    [("migrations", "migrations"), ("database", "database"), ("disk", "disks"),
     ("storage path", "storages"), ("document root", "document_root")],
)  # fmt: skip
def test_what_label_studio_could_not_find_out_is_a_fault(check, part):
    lines = look(check, studio={part: {"error": "OperationalError: gone"}})
    assert exit_code(lines) == 2
    assert f"Label Studio's {part}: OperationalError: gone" in " ".join(map(str, lines))


def test_backends_are_asked_for_one_by_one_and_one_that_takes_too_long_hides_no_other(
    loopback, monkeypatch
):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            (url,) = parse_qs(urlsplit(self.path).query)["url"]
            if "slow" in url:
                time.sleep(4)
            body = json.dumps({"backend": REACHED | {"url": url}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ls_yolo.doctor.facts.TIMEOUT", 2)
    url = f"http://127.0.0.1:{loopback(Handler).server_port}"
    urls = ["http://slow:1", *(f"http://backend-{number}:9090" for number in range(30))]
    rows = [{"id": number, "url": one} for number, one in enumerate(urls)]
    known = {"diagnosis": Timed(STUDIO, 0, 0, 0),
             "projects": [ProjectFacts({"id": 1, "title": "ship"}, rows)]}  # fmt: skip
    facts = Facts({**VALUES, "LABEL_STUDIO_URL": url}, known=known)
    (check,) = [c for c in services.CHECKS if c.name == "label-studio reaches the backend"]
    found = list(check.run(facts))
    assert [line.finding.subject for line in found if line.finding.level > 0] == ["http://slow:1"]
    assert "cannot say whether it gets there" in str(found[1])
    assert len(found) == 32


def test_of_many_storages_each_file_is_asked_for_in_requests_that_a_server_reads(
    loopback, monkeypatch
):
    lines = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            lines.append(len(self.requestline))
            names = parse_qs(parts.query).get("file", [])
            body = json.dumps({"files": dict.fromkeys(names, "")}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://127.0.0.1:{loopback(Handler).server_port}"
    names = [f"{number}/{'café' * 40}.jpg" for number in range(12)]
    rows = [{"id": number, "project": 1, "path": "/datasets/a", "file": name, "error": ""}
            for number, name in enumerate(names)]  # fmt: skip
    known = {"diagnosis": Timed({"storages": rows}, 0, 0, 0),
             "projects": [ProjectFacts({"id": 1, "title": "ship"}, [])]}  # fmt: skip
    facts = Facts({**VALUES, "LABEL_STUDIO_URL": url, "BACKEND_URL": url}, known=known)
    (check,) = [one for one in storage.CHECKS if one.name == "storage file"]
    found = list(check.run(facts))
    assert (exit_code(found), len(found)) == (0, 12), found[0]
    assert max(lines) < 4094


@pytest.mark.parametrize(("status", "code"), [(500, 2), (400, 2), (403, 0), (502, 0)])
def test_a_service_that_breaks_is_a_fault_and_one_that_is_not_reached_is_told_elsewhere(
    loopback, monkeypatch, status, code
):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://127.0.0.1:{loopback(Handler).server_port}"
    facts = Facts({**VALUES, "LABEL_STUDIO_URL": url, "BACKEND_URL": url})
    for name in ("gpu", "migrations", "disk"):
        (check,) = [one for one in services.CHECKS if one.name == name]
        lines = list(check.run(facts))
        assert exit_code(lines) == code, lines
