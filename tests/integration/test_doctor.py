"""`ls-yolo doctor` and `make doctor` on a live stack: exactly that fault goes in, it is red; the
fault goes out, it is green."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from conftest import ROOT, Stack, label_config
from ls_yolo.doctor import address, run
from ls_yolo.doctor.base import Level

pytestmark = pytest.mark.docker
DATABASE = "/data/label_studio.sqlite3"
Row = dict[str, Any]

# Changes a row behind Label Studio's back, as a killed process, an older kit or a person would.
SQL = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=20) as database:
    print(database.execute(sys.argv[2]).fetchone()[0])
"""
AGAIN = """
import json, os, sys
from ls_yolo.cli import main
usual = dict(os.environ)
for line in sys.stdin:
    words, more = json.loads(line)
    os.environ.clear()
    os.environ.update(usual, **more)
    print("code", main.main(words), flush=True)
"""
HOLD = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], timeout=20)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(600)
"""


class Doctor:
    """The command in the backend's container, where one process runs it again and again."""

    def __init__(self, stack: Stack) -> None:
        name = stack.container("backend").name
        self._process = subprocess.Popen(
            ["docker", "exec", "-i", name, "python", "-u", "-c", AGAIN],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(
        self, project: int, *checks: str, environment: dict[str, str] | None = None
    ) -> tuple[int, list[Row]]:
        """Exit code and lines of the command about one project."""
        words = ["doctor", "--json", "--project", str(project)]
        words += [word for check in checks for word in ("--only", check)]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, environment or {}]) + "\n")
        self._process.stdin.flush()
        rows: list[Row] = []
        for line in self._process.stdout:
            if line.startswith("code "):
                return int(line.split()[1]), rows
            rows.append(json.loads(line))
        raise AssertionError("the process has ended")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)


@pytest.fixture(scope="module")
def doctor(stack: Stack, demo: Any) -> Iterator[Doctor]:
    made = Doctor(stack)
    yield made
    made.close()


def faults(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["level"] not in ("ok", "skipped")]


def text(rows: list[Row]) -> str:
    return "\n".join(
        f"{r['level']} {r['check']}, {r['subject']}: {r['found']}; {r['fix']}" for r in rows
    )


def execute(stack: Stack, statement: str) -> str:
    """The first value that an SQL statement returns, in Label Studio's container."""
    done = subprocess.run(
        ["docker", "exec", stack.container("label-studio").name,
         "python", "-c", SQL, DATABASE, statement],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.rstrip("\n")


@contextlib.contextmanager
def changed(stack: Stack, table: str, column: str, value: str, where: str) -> Iterator[None]:
    """A column of a row is another meanwhile."""
    row, _, before = execute(
        stack, f"SELECT rowid || ' ' || {column} FROM {table} WHERE {where}"
    ).partition(" ")
    assert before
    change = f"UPDATE {table} SET {column} = '%s' WHERE rowid = {row} RETURNING rowid"
    assert execute(stack, change % value) == row
    try:
        yield
    finally:
        assert execute(stack, change % before) == row


def connected_to(url: str) -> Callable[[Stack, Any], AbstractContextManager[None]]:
    return lambda stack, demo: changed(stack, "ml_mlbackend", "url", url, f"project_id = {demo.id}")


@contextlib.contextmanager
def gateway(stack: Stack, demo: Any) -> Iterator[None]:
    """The connection is to a private address that is not the backend's: the host's, on the
    bridge."""
    network = stack.docker.networks.get(f"{stack.name}_default")
    where = network.attrs["IPAM"]["Config"][0]["Gateway"]
    with connected_to(f"http://{where}:9090")(stack, demo):
        yield


def storage_at(path: str) -> Callable[[Stack, Any], AbstractContextManager[None]]:
    return lambda stack, demo: changed(
        stack, "io_storages_localfilesmixin", "path", path,
        "id IN (SELECT localfilesmixin_ptr_id FROM io_storages_localfilesimportstorage "
        f"WHERE project_id = {demo.id})",
    )  # fmt: skip


def first_image(stack: Stack, demo: Any) -> Any:
    """The file of the project's first task."""
    task = min(stack.tasks(demo.id), key=lambda one: one.id)
    return stack.datasets / "demo" / stack.file_name(task)


@contextlib.contextmanager
def image_away(stack: Stack, demo: Any) -> Iterator[None]:
    file = first_image(stack, demo)
    away = file.with_suffix(".away")
    file.rename(away)
    try:
        yield
    finally:
        away.rename(file)


@contextlib.contextmanager
def image_is(stack: Stack, demo: Any, data: bytes | None) -> Iterator[None]:
    """The first image has other bytes; None: those of one of another size."""
    file = first_image(stack, demo)
    before = file.read_bytes()
    if data is None:
        Image.new("RGB", (64, 48)).save(file)
    else:
        file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(before)


@contextlib.contextmanager
def folder_closed(stack: Stack, demo: Any) -> Iterator[None]:
    folder = stack.datasets / "demo"
    folder.chmod(0o700)
    try:
        yield
    finally:
        folder.chmod(0o755)


@contextlib.contextmanager
def label_without_class(stack: Stack, demo: Any) -> Iterator[None]:
    before = stack.api.projects.get(demo.id).label_config
    found = before.replace("</RectangleLabels>", '<Label value="zebu"/></RectangleLabels>', 1)
    assert found != before
    stack.api.projects.update(demo.id, label_config=found)
    try:
        yield
    finally:
        stack.api.projects.update(demo.id, label_config=before)


@contextlib.contextmanager
def second_connection(stack: Stack, demo: Any) -> Iterator[None]:
    made = stack.api.ml.create(
        project=demo.id, url="http://backend:9090/m/wheelhouse-person", title="second",
        auth_method="BASIC_AUTH", basic_auth_user=stack.auth[0], basic_auth_pass=stack.auth[1],
    )  # fmt: skip
    shown = stack.api.projects.get(demo.id).model_version
    try:
        yield
    finally:
        stack.api.ml.delete(made.id)
        first = stack.api.ml.list(project=demo.id)[0]
        if shown != first.title:
            stack.api.projects.update(demo.id, model_version=first.title)


@contextlib.contextmanager
def locked_database(stack: Stack, demo: Any) -> Iterator[None]:
    """A writer takes its turn and does not give it back, until it is killed."""
    container = stack.container("label-studio")
    api = stack.docker.api
    made = api.exec_create(container.id, ["python", "-c", HOLD, DATABASE])
    said = api.exec_start(made["Id"], stream=True)
    assert b"held" in next(said)
    try:
        yield
    finally:
        # By its id in the container: the one given is the host's.
        kill = (
            "import os, pathlib, signal\n"
            "for p in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
            "    if b'BEGIN IMMEDIATE' in p.read_bytes() and int(p.parent.name) != os.getpid():\n"
            "        os.kill(int(p.parent.name), signal.SIGKILL)\n"
        )
        container.exec_run(["python", "-c", kill])
        while api.exec_inspect(made["Id"])["Running"]:
            time.sleep(0.1)


@contextlib.contextmanager
def migration_pending(stack: Stack, demo: Any) -> Iterator[None]:
    with changed(stack, "django_migrations", "app", "gone",
                 "id = (SELECT max(id) FROM django_migrations WHERE app = 'tasks' "
                 "AND name NOT LIKE '%squashed%')"):  # fmt: skip
        yield


def stored_as(version: str) -> Callable[[Stack, Any], AbstractContextManager[None]]:
    return lambda stack, demo: changed(
        stack, "prediction", "model_version", version,
        f"id = (SELECT min(id) FROM prediction WHERE project_id = {demo.id})",
    )  # fmt: skip


CASES: list[tuple[str, Callable[[Stack, Any], AbstractContextManager[None]], list[tuple[str, str]]]]
CASES = [
    ("connected to localhost", connected_to("http://localhost:9090/m/coco"), [
        ("label-studio reaches the backend", "localhost is that container"),
        ("connection", "is half made"),
    ]),
    ("connected to a private address", gateway, [
        ("label-studio reaches the backend", "guard refuses this private address"),
    ]),
    ("connected to a name that nobody has", connected_to("http://nowhere:9090/m/coco"), [
        ("label-studio reaches the backend", "does not resolve in Label Studio's container"),
    ]),
    ("connected to a port where nobody listens", connected_to("http://backend:9/m/coco"), [
        ("label-studio reaches the backend", "not reached from Label Studio's container"),
        ("connection", "is half made"),
    ]),
    ("a second connection", second_connection, [
        ("connection", "2 connections, and Label Studio asks the first only"),
    ]),
    ("the document root as a storage", storage_at("/datasets"), [
        ("storage path", "the storage is the document root /datasets itself"),
    ]),
    ("a storage elsewhere", storage_at("/datasets/other"), [
        ("image by token", "no storage of the project covers it"),
        ("storage file", "Label Studio cannot read it"),
    ]),
    ("a folder that is closed to the services", folder_closed, [
        ("storage file", "Label Studio cannot read it"),
    ]),
    ("an image that is gone", image_away, [
        ("images on disk", "1 of 5 images: task"),
        ("prediction", "cannot be predicted"),
    ]),
    ("an empty image", lambda stack, demo: image_is(stack, demo, b""), [
        ("images on disk", "is empty"),
    ]),
    ("an image of another size", lambda stack, demo: image_is(stack, demo, None), [
        ("sizes", "the image is 64 x 48 upright"),
    ]),
    ("a label without a class", label_without_class, [
        ("labels", "zebu"),
    ]),
    ("a prediction of an older version", stored_as("coco@000000000000"), [
        ("versions", "4 of 5 tasks have a prediction of coco@"),
    ]),
    ("a migration that is pending", migration_pending, [
        ("migrations", "1 are pending"),
    ]),
    ("a database that is locked", locked_database, [
        ("database", "nothing that needs its database"),
    ]),
]  # fmt: skip


def test_all_is_well_with_the_demo(stack: Stack, demo: Any, doctor: Doctor) -> None:
    code, rows = doctor(demo.id)
    assert (code, text(faults(rows))) == (0, "")
    checks = {row["check"] for row in rows}
    assert checks == set(run.NAMES)
    assert not [row for row in rows if row["level"] == "skipped"]
    left = [one for one in stack.api.predictions.list(project=demo.id)
            if one.model_version == "ls-yolo doctor"]  # fmt: skip
    assert left == []


@pytest.mark.parametrize(("put_in", "says"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_a_fault_is_red_and_without_it_all_is_green(
    stack: Stack, demo: Any, doctor: Doctor, put_in: Any, says: list[tuple[str, str]]
) -> None:
    checks = list(dict.fromkeys(check for check, _ in says))
    with put_in(stack, demo):
        code, rows = doctor(demo.id, *checks)
    assert code > 0, text(rows)
    for check, words in says:
        found = [row for row in faults(rows) if row["check"] == check]
        assert any(words in row["found"] for row in found), text(rows)
        assert all(row["fix"] for row in found)
    code, rows = doctor(demo.id, *checks)
    assert (code, text(faults(rows))) == (0, "")


@pytest.mark.parametrize(
    ("name", "value", "check", "says"),
    [
        ("LABEL_STUDIO_API_KEY", "0" * 40, "token", "a legacy token, which Label Studio refuses"),
        ("LABEL_STUDIO_API_KEY", " ", "token", "LABEL_STUDIO_API_KEY is empty"),
        ("LABEL_STUDIO_URL", "http://localhost:8080", "label-studio", "is the container itself"),
        ("LABEL_STUDIO_URL", "http://nowhere:8080", "label-studio", "nowhere does not resolve"),
        ("LABEL_STUDIO_URL", "http://label-studio:9", "label-studio", "Connection refused"),
        ("BACKEND_URL", "http://127.0.0.1:9090", "backend", "is the container itself"),
        ("BASIC_AUTH_PASS", "wrong", "backend", "does not take the password"),
    ],
)
def test_a_wrong_setting_is_red(
    demo: Any, doctor: Doctor, name: str, value: str, check: str, says: str
) -> None:
    code, rows = doctor(demo.id, check, environment={name: value})
    assert code == 2
    assert says in text(faults(rows))
    assert value.strip() == "" or name != "LABEL_STUDIO_API_KEY" or value not in text(rows)


def test_a_personal_access_token_is_told_and_what_it_is_exchanged_for_is_refused(
    stack: Stack, demo: Any, doctor: Doctor
) -> None:
    organization = stack.api._client_wrapper.httpx_client
    settings = organization.request(
        "api/jwt/settings", method="POST",
        json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": True},
    )  # fmt: skip
    assert settings.status_code in (200, 201), settings.text
    token = organization.request("api/token/", method="POST").json()["token"]
    try:
        code, rows = doctor(demo.id, "token", "image by token",
                            environment={"LABEL_STUDIO_API_KEY": token})  # fmt: skip
        assert (code, text(faults(rows))) == (0, "")
        assert rows[0]["found"] == "a Personal Access Token of tester@example.com"
        access = organization.request(
            "api/token/refresh/", method="POST", json={"refresh": token}
        ).json()["access"]
        code, rows = doctor(demo.id, "token", environment={"LABEL_STUDIO_API_KEY": access})
    finally:
        # There is one a user.
        organization.request("api/token/blacklist/", method="POST", json={"refresh": token})
    assert code == 2
    assert "an access token, which lasts 5 minutes" in rows[0]["found"]


@contextlib.contextmanager
def proxy(stack: Stack, host: str = "") -> Iterator[str]:
    """A reverse proxy before Label Studio, which passes Host on or says ``host`` instead."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            headers["Host"] = host or self.headers["Host"]
            upstream = HTTPConnection("127.0.0.1", int(stack.env["LABEL_STUDIO_PORT"]), timeout=20)
            upstream.request(self.command, self.path, self.rfile.read(length), headers)
            answer = upstream.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_proxy_that_hides_the_host_is_red_since_forms_are_refused(stack: Stack) -> None:
    with proxy(stack, host="label-studio:8080") as url:
        (found,) = address.look(url)
    assert found.level == Level.FAILED
    assert "forms are refused (CSRF)" in found.found
    with proxy(stack) as url:
        (found,) = address.look(url)
    assert (found.level, found.found) == (Level.OK, "leads to Label Studio, and forms are taken")


def make_doctor(stack: Stack) -> tuple[int, list[Row]]:
    """`make doctor` on this host, about the stack."""
    done = subprocess.run(
        [sys.executable, "scripts/doctor.py", "--json"], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "LS_YOLO_ENV_FILE": str(stack.env_file)},
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    return done.returncode, rows


def test_without_project_all_are_looked_at_and_a_line_is_for_people(
    stack: Stack, demo: Any
) -> None:
    broken = stack.api.projects.create(title="doctor: broken", label_config=label_config("bus"))
    try:
        code, output = stack.container("backend").exec_run(
            ["ls-yolo", "doctor", "--only", "connection", "--only", "projects"]
        )
    finally:
        stack.api.projects.delete(broken.id)
    lines = output.decode().splitlines()
    assert code > 0
    assert (
        "warn connection, doctor: broken: no ML backend is connected; make setup" in output.decode()
    )
    assert any(line.startswith("ok   connection, ls-yolo demo: http://backend") for line in lines)


# The last: it stops the backend.
def test_a_service_that_is_down_is_told_by_the_host_and_from_inside(
    stack: Stack, demo: Any
) -> None:
    stack.run("stop", "backend")
    try:
        code, rows = make_doctor(stack)
    finally:
        stack.up()
    assert code == 2
    red = {(row["check"], row["subject"]) for row in rows if row["level"] == "failed"}
    assert {("containers", "backend"), ("backend", "")} <= red
    code, rows = make_doctor(stack)
    ours = [row for row in rows if row["check"] in ("containers", "backend", "engine", "ports")]
    assert text(faults(ours)) == ""
