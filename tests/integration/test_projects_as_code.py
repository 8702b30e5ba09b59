"""Projects as code: apply, diff, prune and export, against the services themselves."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml
from PIL import Image

from conftest import IMAGES, Stack, label_config

pytestmark = pytest.mark.docker

SECRETS = {
    "S3_ID": "AKIAEXAMPLEOFTESTS",
    "S3_SECRET": "not-to-be-shown-anywhere",
    "HOOK_TOKEN": "Bearer hush$hush$$hush${HOME}",
}
DIFFERENT = 3

# A stand-in for S3, with one object in one bucket, for whoever signs with the known key. It shares
# the backend's network, whose address alone Label Studio may call.
S3 = """
import http.server, sys
ONE = ("<Contents><Key>cams/a.jpg</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
       "<ETag>&quot;1&quot;</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = f"Credential={sys.argv[1]}/" in (self.headers["Authorization"] or "")
        body = ("<?xml version='1.0'?><ListBucketResult><Name>ship</Name><Prefix/><MaxKeys>1000"
                "</MaxKeys><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>" + ONE
                + "</ListBucketResult>").encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(body) if known else 0))
        self.end_headers()
        if known and self.command == "GET":
            self.wfile.write(body)
    do_HEAD = do_GET
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def s3(stack: Stack) -> Iterator[None]:
    """S3 at http://backend:9000."""
    backend = stack.container("backend")
    made = stack.docker.containers.run(
        IMAGES["backend"], ["python", "-c", S3, SECRETS["S3_ID"]],
        detach=True, network_mode=f"container:{backend.id}", name=f"{stack.name}-s3",
    )  # fmt: skip
    yield
    made.remove(force=True)


@pytest.fixture(scope="module")
def hook(stack: Stack) -> str:
    """An address that Label Studio takes for a webhook: with a name it wants a top-level domain."""
    networks = stack.container("backend").attrs["NetworkSettings"]["Networks"]
    return f"http://{networks[f'{stack.name}_default']['IPAddress']}:9090/livez"


@pytest.fixture(scope="module")
def images(stack: Stack) -> None:
    stack.images("cams", a=Image.new("RGB", (64, 48)), b=Image.new("RGB", (64, 48), "red"))
    (stack.datasets / "annotations").mkdir()
    (stack.datasets / "annotations").chmod(0o777)
    tasks = [{"image": f"/data/local-files/?d=cams/{name}.jpg", "camera": name} for name in "ab"]
    (stack.datasets / "tasks.json").write_text(json.dumps(tasks))
    with (stack.datasets / "tasks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "deck"], ["/data/local-files/?d=cams/a.jpg", "3"]])


def wanted(hook: str, title: str = "as code", **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "description": "All that a file can say",
        "models": ["coco"],
        "label_config": {"from": "model", "classes": ["person", "bus"]},
        "sampling": "uncertainty",
        "instruction": "<b>Boxes</b> around people",
        "maximum_annotations": 2,
        "storage": {"path": "cams"},
        "source_storages": [
            {
                "type": "s3", "bucket": "ship", "endpoint": "http://backend:9000",
                "region": "eu-west-1", "presign": False, "recursive": True,
                "access_key_id": "${S3_ID}", "secret_access_key": "${S3_SECRET}",
            }
        ],
        "target_storages": [{"type": "local", "path": "annotations"}],
        "task_files": ["tasks.json", "tasks.csv"],
        "webhooks": [
            {
                "url": hook, "actions": ["ANNOTATION_CREATED"],
                "headers": {"Authorization": "${HOOK_TOKEN}"},
            }
        ],
        "views": [
            {
                "title": "Least sure first", "ordering": ["tasks:predictions_score"],
                "filters": {"conjunction": "and", "items": [
                    {"filter": "filter:tasks:total_annotations", "operator": "equal",
                     "type": "Number", "value": 0}]},
            }
        ],
        "members": ["somebody@example.com"],
        "predict": False,
        **more,
    }  # fmt: skip


def ls_yolo(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    file = stack.folder / "projects" / "secrets.env"
    done = stack.run(
        "run", "--rm", "--no-deps", "-T", "setup", "ls-yolo", *words, check=False,
        PROJECT_SECRETS=file.read_text() if file.is_file() else "",
    )  # fmt: skip
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
    return done


def apply(
    stack: Stack, project: dict[str, Any] | str, *options: str, **secrets: str
) -> subprocess.CompletedProcess[str]:
    """What apply says of one project and no other."""
    folder = stack.folder / "projects"
    for old in folder.iterdir():
        old.unlink()
    text = project if isinstance(project, str) else yaml.safe_dump(project, sort_keys=False)
    (folder / "ship.yaml").write_text(text)
    lines = [f"{name}={value}\n" for name, value in {**SECRETS, **secrets}.items() if value]
    (folder / "secrets.env").write_text("".join(lines))
    return ls_yolo(stack, "apply", "/projects", *options)


def ask(stack: Stack, path: str) -> Any:
    answer = requests.get(
        f"{stack.url}/api/{path}", timeout=30,
        headers={"Authorization": f"Token {stack.env['LABEL_STUDIO_API_KEY']}"},
    )  # fmt: skip
    answer.raise_for_status()
    return answer.json()


PASSING = {
    "id", "project", "created_at", "updated_at", "last_sync", "last_sync_count", "status", "meta",
    "order", "traceback", "last_sync_job", "user", "organization",
}  # fmt: skip
"""What differs between two projects that are the same."""


def state(stack: Stack, title: str) -> dict[str, Any]:
    """All of a project that a file decides, as the API has it."""
    number = stack.project(title).id
    kinds = {
        name: sorted(
            ({key: row[key] for key in row if key not in PASSING} for row in ask(stack, path)),
            key=str,
        )
        for name, path in {
            "local": f"storages/localfiles?project={number}",
            "s3": f"storages/s3?project={number}",
            "target": f"storages/export/localfiles?project={number}",
            "webhooks": f"webhooks/?project={number}",
            "views": f"dm/views/?project={number}",
            "ml": f"ml?project={number}",
        }.items()
    }
    project = ask(stack, f"projects/{number}")
    fields = ("description", "label_config", "sampling", "expert_instruction", "model_version",
              "maximum_annotations", "show_collab_predictions")  # fmt: skip
    # An object of a bucket is shown by an address with the number of its task.
    tasks = sorted(re.sub(r"/tasks/\d+/", "/tasks/N/", str(t.data)) for t in stack.tasks(number))
    return {**kinds, **{name: project[name] for name in fields}, "tasks": tasks}


def delete(stack: Stack, title: str) -> None:
    stack.api.projects.delete(stack.project(title).id)


@contextlib.contextmanager
def made(stack: Stack, project: dict[str, Any]) -> Iterator[int]:
    """The id of a project that is as its file says, and gone again afterwards."""
    done = apply(stack, project)
    assert done.returncode == 0, done.stdout + done.stderr
    yield stack.project(project["title"]).id
    delete(stack, project["title"])


def test_an_empty_a_half_made_and_a_finished_label_studio_end_alike(
    stack: Stack, s3: None, images: None, hook: str
) -> None:
    project = wanted(hook)
    with made(stack, project):
        first = state(stack, "as code")
        again = apply(stack, project)
        assert again.returncode == 0, again.stderr
        assert " made" not in again.stdout and " changed" not in again.stdout, again.stdout
        assert " new " not in again.stdout
        assert state(stack, "as code") == first
        diff = apply(stack, project, "--diff")
        assert (diff.returncode, diff.stdout) == (0, "as code: nothing would change\n")
    half = stack.api.projects.create(
        title="as code", label_config=label_config("tug"), sampling="Uniform sampling"
    )
    stack.api.import_storage.local.create(
        project=half.id, path="/datasets/cams", title="cams",
        regex_filter=".*a.jpg", use_blob_urls=True,
    )  # fmt: skip
    stack.api.webhooks.create(
        project=half.id, url=hook, send_for_all_actions=True,
        headers={"Authorization": "old"}, is_active=True, send_payload=True,
    )  # fmt: skip
    stack.api.views.create(project=half.id, data={"title": "Least sure first"})
    regex = {"path": "cams", "regex": r"(?!\._).*(?i:\.jpe?g)$"}
    done = apply(stack, {**project, "storage": regex})
    assert done.returncode == 0, done.stderr
    with made(stack, wanted(hook, "empty", storage=regex)):
        assert state(stack, "as code") == state(stack, "empty")
    assert len(first["tasks"]) == 2 + 1 + 2 + 1  # a folder, a bucket, JSON, CSV
    assert first["tasks"] == state(stack, "as code")["tasks"]
    delete(stack, "as code")


def test_what_is_exported_is_no_change_when_it_is_applied(
    stack: Stack, s3: None, images: None, hook: str
) -> None:
    with made(stack, wanted(hook, "round trip")) as number:
        before = state(stack, "round trip")
        done = ls_yolo(stack, "export", str(number))
        assert done.returncode == 0, done.stderr
        assert "${S3_SHIP_SECRET_ACCESS_KEY}" in done.stdout
        assert "${WEBHOOK_1_AUTHORIZATION}" in done.stdout
        # Without the secrets at hand, those that Label Studio has stay.
        url = {"WEBHOOK_1_URL": hook}  # by which it is found again
        diff = apply(stack, done.stdout, "--diff", **url)
        assert "S3_SHIP_SECRET_ACCESS_KEY" in diff.stdout.splitlines()[0]
        assert diff.returncode == 0, diff.stdout
        again = apply(stack, done.stdout, **url)
        assert again.returncode == 0, again.stderr
        assert state(stack, "round trip") == before
        same = ls_yolo(stack, "export", "round trip")
        assert same.stdout == done.stdout, same.stderr
        # The text is complete: it makes the same project where there is none.
        data = yaml.safe_load(done.stdout) | {
            "title": "copy",
            "task_files": ["tasks.json", "tasks.csv"],
        }
        secrets = {
            "S3_SHIP_ACCESS_KEY_ID": SECRETS["S3_ID"],
            "S3_SHIP_SECRET_ACCESS_KEY": SECRETS["S3_SECRET"],
            "WEBHOOK_1_AUTHORIZATION": SECRETS["HOOK_TOKEN"],
            **url,
        }
        copy = apply(stack, data | {"predict": False}, **secrets)
        assert copy.returncode == 0, copy.stderr
        assert state(stack, "copy") == before
        delete(stack, "copy")


def test_a_diff_shows_what_would_change_and_changes_nothing(
    stack: Stack, s3: None, images: None, hook: str
) -> None:
    fresh = apply(stack, wanted(hook, "diff"), "--diff")
    assert fresh.returncode == DIFFERENT, fresh.stderr
    assert "+title: diff\n" in fresh.stdout
    assert "+    secret_access_key: ${S3_SECRET}\n" in fresh.stdout
    with pytest.raises(ValueError):
        stack.project("diff")
    with made(stack, wanted(hook, "diff")) as number:
        before = state(stack, "diff")
        changed = wanted(
            hook, "diff", sampling="sequential", storage={"path": "cams", "recursive": True}
        )
        diff = apply(stack, changed, "--diff")
        assert diff.returncode == DIFFERENT
        lines = [line for line in diff.stdout.splitlines() if line[:1] in "+-"]
        assert lines == [
            "--- diff in Label Studio", "+++ diff with /projects/ship.yaml",
            "-sampling: uncertainty", "+sampling: sequential",
            "-    recursive: false", "+    recursive: true",
        ]  # fmt: skip
        assert state(stack, "diff") == before
        # What a person changes in the page stays where the file does not name it, and is shown.
        stack.api.projects.update(number, show_skip_button=False, sampling="Uniform sampling")
        shown = apply(stack, wanted(hook, "diff"))
        assert "show_skip_button False" in shown.stdout
        found = ask(stack, f"projects/{number}")
        assert (found["show_skip_button"], found["sampling"]) == (False, "Uncertainty sampling")


def test_what_no_file_has_is_pruned_when_a_person_says_so(
    stack: Stack, images: None, hook: str
) -> None:
    project = {
        "title": "prune", "models": ["coco"], "label_config": label_config("person"),
        "storage": {"path": "cams"}, "predict": False,
    }  # fmt: skip
    with made(stack, project) as number:
        before = state(stack, "prune")
        stack.api.import_storage.local.create(
            project=number, path="/datasets/demo", use_blob_urls=True, title="demo"
        )
        stack.api.webhooks.create(project=number, url=f"{hook}?token=x")
        stack.api.views.create(project=number, data={"title": "Mine"})
        user, password = stack.auth
        stack.api.ml.create(
            project=number, url=hook.replace("livez", "m/wheelhouse-person"), title="other",
            auth_method="BASIC_AUTH", basic_auth_user=user, basic_auth_pass=password,
        )  # fmt: skip
        # Label Studio makes one with the connection, and would leave it there.
        assert "wheelhouse-person/webhook" in str(state(stack, "prune")["webhooks"])
        kept = apply(stack, project)
        assert kept.returncode == 0, kept.stderr
        for name in (
            "storages 'demo'",
            f"webhooks '{hook.removesuffix('livez')}(hidden)#",
            "views 'Mine'",
        ):
            assert name in kept.stdout
        assert state(stack, "prune") != before
        asked = apply(stack, project, "--prune")
        assert asked.returncode == 2
        assert "  prune: view Mine\n" in asked.stdout
        assert asked.stdout.count("  prune: webhook ") == 1  # a person's
        assert "token=x" not in asked.stdout
        done = apply(stack, project, "--prune", "--yes")
        assert done.returncode == 0, done.stderr
        assert "prune: storage demo deleted" in done.stdout
        assert state(stack, "prune") == before
        again = apply(stack, project, "--prune", "--yes")
        assert again.returncode == 0, again.stderr
        assert state(stack, "prune") == before
        # What was made to sort by numbers of objects.
        stack.api.views.create(project=number, data={"title": "Most objects"})
        kept = apply(stack, project, "--prune", "--yes")
        assert kept.returncode == 0, kept.stderr
        assert "deleted" not in kept.stdout
        assert len(state(stack, "prune")["views"]) == len(before["views"]) + 1


@pytest.mark.parametrize("connected", [False, True])
def test_a_project_that_was_made_by_hand_is_as_it_was_after_export_and_apply(
    stack: Stack, images: None, connected: bool
) -> None:
    title = f"by hand {connected}"
    project = stack.api.projects.create(title=title, label_config=label_config("person"))
    if connected:
        user, password = stack.auth
        stack.api.ml.create(
            project=project.id, url="http://backend:9090", title="mine", auth_method="BASIC_AUTH",
            basic_auth_user=user, basic_auth_pass=password, extra_params={"0": "coco"},
        )  # fmt: skip
        stack.api.projects.update(project.id, model_version="mine", show_collab_predictions=True)

    def seen() -> dict[str, Any]:
        found = state(stack, title)
        if connected:  # what people are shown is that of the version, not of the file
            del found["model_version"], found["ml"][0]["title"]
        return found

    before = seen()
    text = ls_yolo(stack, "export", str(project.id)).stdout
    assert ("connect: false" in text) is not connected
    diff = apply(stack, text, "--diff")
    assert (diff.returncode, diff.stdout) == (0, f"{title}: nothing would change\n"), diff.stderr
    done = apply(stack, text if not connected else f"{text}predict: false\n")
    assert done.returncode == 0, done.stderr
    assert seen() == before
    delete(stack, title)


# What a Label Studio that was killed during a sync has: it is told so by the age of a sign of life.
# It counts as dead at 25 s; the rest is what a slow machine needs to look, and then waits for.
CUT_OFF = """
import datetime, json, sqlite3, sys
then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=13)
with sqlite3.connect("/data/label_studio.sqlite3", timeout=30) as database:
    database.execute(
        "UPDATE io_storages_localfilesimportstorage SET status = 'in_progress', meta = ? "
        "WHERE project_id = ?",
        (json.dumps({"attempts": 1, "time_last_ping": str(then), "time_in_progress": str(then)}),
         int(sys.argv[1])))
"""


def test_a_sync_that_was_cut_off_is_seen_and_waited_for(stack: Stack, images: None) -> None:
    project = {
        "title": "cut off", "models": ["coco"], "label_config": label_config("person"),
        "storage": {"path": "cams"}, "predict": False,
    }  # fmt: skip
    with made(stack, project) as number:
        code, output = stack.container("label-studio").exec_run(
            ["python3", "-c", CUT_OFF, str(number)]
        )
        assert code == 0, output.decode()
        stack.images("cams", c=Image.new("RGB", (64, 48), "blue"))
        done = apply(stack, project)
        assert done.returncode == 0, done.stderr
        assert "storage cams: a sync is under way, or was cut off" in done.stdout
        assert "1 new images from /datasets/cams" in done.stdout
        assert len(stack.tasks(number)) == 3


def test_a_storage_whose_key_is_refused_is_told_without_the_key(
    stack: Stack, s3: None, images: None, hook: str
) -> None:
    with made(stack, wanted(hook, "secrets")):
        wrong = apply(
            stack, wanted(hook, "secrets"), S3_ID="AKIAANOTHERONE", S3_SECRET="guess-me-not"
        )
        assert wrong.returncode == 1
        assert "AKIAANOTHERONE" not in wrong.stderr and "guess-me-not" not in wrong.stderr
        assert "storage s3://ship: 500: " in wrong.stderr
        assert "are its keys, its place and its address right?" in wrong.stderr
    none = apply(stack, wanted(hook, "no secrets"), S3_SECRET="")
    assert none.returncode == 1
    assert "found no S3_SECRET in the environment" in none.stderr
    with pytest.raises(ValueError):  # nothing was made
        stack.project("no secrets")
