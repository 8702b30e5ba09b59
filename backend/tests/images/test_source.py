"""Where an image is: what may be read, and what is refused."""

from __future__ import annotations

import base64
import errno
import os
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.images import decode, source
from ls_yolo.images.limits import MediaError

STUDIO = "http://label-studio:8080"
PUBLIC = ["http://127.0.0.1:8080", "http://localhost:8080", "https://labels.example.com/labels"]


class Uploads:
    """Label Studio's files, in memory; remembers which paths and queries were asked for.

    ``elsewhere``: where it sends to for a storage's file.
    """

    def __init__(self, elsewhere=""):
        self.asked = []
        self.elsewhere = elsewhere

    def fetch(self, path, limit, query=""):
        self.asked.append(path + (f"?{query}" if query else ""))
        if query and self.elsewhere:
            raise source.Redirect(self.elsewhere)
        return b"upload"


class Web:
    """The web, in memory; remembers which addresses were asked for."""

    def __init__(self):
        self.asked = []

    def fetch(self, url, limit):
        self.asked.append(url)
        return b"web"


def read(url, root, studio=None, **more):
    return source.read(url, root, studio, [STUDIO, *PUBLIC], **more)


# Paths


@pytest.mark.parametrize(
    "name",
    [
        "demo/a.jpg",
        "demo/a b.jpg",
        "demo/a+b.jpg",
        "demo/100%.jpg",
        "demo/a&d=b.jpg",
        "demo/a#b?c.jpg",
        "demo/驾驶室 01.jpg",
        "demo/..hidden..jpg",
        "demo/%2e%2e.jpg",
    ],
)
def test_a_file_is_read_under_the_url_that_label_studio_writes_for_it(datasets, name):
    (datasets / name).write_bytes(name.encode())
    # As io_storages/localfiles/models.py of Label Studio makes it.
    assert read(f"/data/local-files/?d={quote(name)}", datasets) == name.encode()


@pytest.mark.parametrize(
    "url",
    [
        "/data/local-files?d=demo/a.jpg",
        "/data/local-files/?d=/demo/a.jpg",  # a leading slash means the root, as in Label Studio
        "/data/local-files/?d=demo//./x/../a.jpg",
        "/data/local-files/?d=demo%2Fa.jpg",
        "/data/local-files/?d=none.jpg&d=demo/a.jpg",  # the last counts, as in Label Studio
        f"{STUDIO}/data/local-files/?d=demo/a.jpg",
        "https://labels.example.com/data/local-files/?d=demo/a.jpg",  # LABEL_STUDIO_HOST
        "https://example.com/labels/data/local-files/?d=demo/a.jpg",
    ],
)
def test_other_spellings_of_a_local_file_are_the_same_file(datasets, url):
    (datasets / "demo/a.jpg").write_bytes(b"a")
    assert read(url, datasets) == b"a"


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "demo/../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "link",
        "out/secret",
        "demo/../../datasets-2/secret",
    ],
)
def test_nothing_outside_the_root_is_read(datasets, name):
    (datasets.parent / "secret").write_bytes(b"secret")
    (datasets.parent / "datasets-2").mkdir()
    (datasets.parent / "datasets-2" / "secret").write_bytes(b"secret")
    (datasets / "link").symlink_to("../secret")
    (datasets / "out").symlink_to("..")
    with pytest.raises(MediaError, match="lies outside"):
        read(f"/data/local-files/?d={name}", datasets)


def test_an_absolute_path_is_one_below_the_root(datasets):
    with pytest.raises(MediaError, match="'/etc/passwd': lies outside"):
        read("/data/local-files/?d=/etc/passwd", datasets)
    (datasets / "etc").mkdir()
    (datasets / "etc" / "passwd").write_bytes(b"a")
    assert read("/data/local-files/?d=/etc/passwd", datasets) == b"a"


def test_links_inside_the_root_are_followed_and_the_root_may_be_one(datasets):
    (datasets / "demo/a.jpg").write_bytes(b"a")
    (datasets / "link.jpg").symlink_to("demo/a.jpg")
    (datasets.parent / "root").symlink_to("datasets")
    assert read("/data/local-files/?d=link.jpg", datasets.parent / "root") == b"a"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/data/local-files/", "names no file"),
        ("/data/local-files/?d=", "names no file"),
        ("/data/local-files/?d=demo/none.jpg", "'demo/none.jpg': not found in .*; mount the same"),
        ("/data/local-files/?d=demo", "'demo': not a file"),
        ("/data/local-files/?d=pipe", "'pipe': not a file"),
        (
            "/data/local-files/?d=circle",
            "'circle': (not the name of a file|cannot be read: Too many levels)",
        ),
        ("/data/local-files/?d=a%00.jpg", "not the name of a file"),
        ("/data/local-files/?d=\ud800.jpg", "not the name of a file"),
        ("/data/local-files/?d=" + "a" * 300, "cannot be read: File name too long"),
        ("/data/local-files/?d=demo/a.jpg/b", "cannot be read: Not a directory"),
    ],
)
def test_what_is_no_file_is_said_to_be_so(datasets, url, message):
    (datasets / "demo/a.jpg").write_bytes(b"a")
    os.mkfifo(datasets / "pipe")
    (datasets / "circle").symlink_to("circle")
    with pytest.raises(MediaError, match=message):
        read(url, datasets)


def test_a_file_beyond_the_limit_is_not_read(datasets, monkeypatch):
    monkeypatch.setattr(source, "MAX_BYTES", 3)
    (datasets / "a").write_bytes(b"123")
    (datasets / "b").write_bytes(b"1234")
    assert read("/data/local-files/?d=a", datasets) == b"123"
    with pytest.raises(MediaError, match="larger than"):
        read("/data/local-files/?d=b", datasets)


@given(st.text())
def test_no_url_is_worse_than_refused(tmp_path_factory, url):
    root = tmp_path_factory.getbasetemp() / "empty"
    root.mkdir(exist_ok=True)
    for each in (url, f"/data/local-files/?d={url}"):
        with pytest.raises(MediaError):
            read(each, root)


# Uploads


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/data/upload/1/ab-c.jpg", "/data/upload/1/ab-c.jpg"),
        (f"{STUDIO}/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
        ("/labels/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),  # LABEL_STUDIO_HOST with a path
        ("/data/upload/1/a%20b.jpg", "/data/upload/1/a b.jpg"),
        ("/data/upload/1/x/../a.jpg", "/data/upload/1/a.jpg"),
        *((f"{address}/data/upload/1/a.jpg", "/data/upload/1/a.jpg") for address in PUBLIC),
        ("HTTPS://LABELS.example.com:443/labels/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
        ("http://user:password@localhost:8080/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
    ],
)
def test_an_upload_is_fetched_from_label_studio(tmp_path, url, path):
    studio = Uploads()
    assert read(url, tmp_path, studio) == b"upload"
    assert studio.asked == [path]


@pytest.mark.parametrize(
    "url",
    [
        "/data/upload/../../api/users",
        "/data/upload/%2e%2e/%2e%2e/api/users",
        "/data/upload/..",
        "/data/upload",
        "/api/users",
        "http://169.254.169.254/data/upload/1/a.jpg",
        "//example.com/data/upload/1/a.jpg",
        f"{STUDIO}.example.com/data/upload/1/a.jpg",
        "http://localhost:8081/data/upload/1/a.jpg",
        "https://localhost:8080/data/upload/1/a.jpg",
        "http://localhost:8080@example.com/data/upload/1/a.jpg",
        "https://labels.example.com/data/upload/1/a.jpg",
        "http://localhost:8080/data/upload/../../api/users",
        "https://example.com/a.jpg",
        "file:///etc/passwd",
        "ftp://example.com/a.jpg",
        "/tasks/1/resolve/",
        "/tasks/1/resolve/x?fileuri=a",
        "/tasks/1/resolve/../../../api/users?fileuri=a",
        "",
        "http://[",
    ],
)
def test_nothing_else_is_fetched(tmp_path, url):
    studio = Uploads()
    with pytest.raises(MediaError, match="not a URL"):
        read(url, tmp_path, studio)
    assert studio.asked == []


def test_an_upload_needs_a_token(tmp_path):
    with pytest.raises(MediaError, match="backend has no token; set LABEL_STUDIO_URL and"):
        read("/data/upload/1/a.jpg", tmp_path)


def test_no_message_holds_a_token_or_a_password(tmp_path):
    url = "https://user:hunter2@bucket.example.com/a.jpg?X-Amz-Signature=hunter2&token=hunter2"
    with pytest.raises(MediaError) as caught:
        read(url, tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "bucket.example.com/a.jpg" in str(caught.value)


# Storages, the web, data URLs


def coded(url):
    return quote(base64.urlsafe_b64encode(url.encode()).decode(), safe="")


@pytest.mark.parametrize(
    "url",
    [
        "/tasks/7/resolve/?fileuri={}",
        "/tasks/7/presign/?fileuri={}",
        "/projects/7/resolve/?fileuri={}",
        "/projects/7/presign/?fileuri={}",
    ],
)
@pytest.mark.parametrize("before", ["", STUDIO, "/labels", "https://labels.example.com/labels"])
def test_a_file_of_a_storage_is_fetched_under_label_studios_address_for_it(tmp_path, url, before):
    studio, web = Uploads(), Web()
    url = url.format(coded("s3://bucket/a.jpg"))
    assert read(before + url, tmp_path, studio, task_id=7, web=web, project_id=7) == b"upload"
    assert studio.asked == [url]
    assert web.asked == []


@pytest.mark.parametrize("before", ["", STUDIO, *PUBLIC, "https://elsewhere.example.com"])
@pytest.mark.parametrize("kind", ["tasks", "projects"])
@pytest.mark.parametrize(
    "more", [{}, {"task_id": 8, "project_id": 8}, {"task_id": "7/../8"}, {"task_id": None}]
)
def test_a_file_of_another_task_or_project_is_not_fetched(tmp_path, before, kind, more):
    studio, web = Uploads(), Web()
    url = f"{before}/{kind}/7/resolve/?fileuri={coded('s3://bucket/a.jpg')}"
    with pytest.raises(MediaError, match=f"names a file of {kind[:-1]} 7; expected one of the"):
        read(url, tmp_path, studio, web=web, **more)
    assert (studio.asked, web.asked) == ([], [])


@pytest.mark.parametrize(
    "url", ["s3://bucket/a b.jpg", "gs://bucket/驾.jpg", "azure-blob://box/a?b&c.jpg", "S3://b/a"]
)
def test_a_file_of_a_storage_is_asked_for_with_its_task(tmp_path, url):
    studio = Uploads()
    assert read(url, tmp_path, studio, task_id=12) == b"upload"
    # As io_storages/base_models.py of Label Studio makes it.
    assert studio.asked == [f"/tasks/12/resolve/?fileuri={coded(url)}"]


@pytest.mark.parametrize("task_id", [None, "1", "1/../../api/users", True])
def test_without_the_tasks_id_a_storage_cannot_be_asked(tmp_path, task_id):
    studio = Uploads()
    with pytest.raises(MediaError, match="for a stored task only"):
        read("s3://bucket/a.jpg", tmp_path, studio, task_id=task_id)
    assert studio.asked == []


def test_where_a_storage_signs_urls_the_file_is_fetched_there_without_a_token(tmp_path):
    studio, web = Uploads("https://bucket.example.com/a.jpg?X-Amz-Signature=hunter2"), Web()
    assert read("s3://bucket/a.jpg", tmp_path, studio, task_id=1, web=web) == b"web"
    assert web.asked == ["https://bucket.example.com/a.jpg?X-Amz-Signature=hunter2"]
    with pytest.raises(MediaError, match="switch pre-signed URLs off") as caught:
        read("s3://bucket/a.jpg", tmp_path, studio, task_id=1)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://example.com/a.jpg?x=1", "HTTP://example.com/data/upload/1/a.jpg"]
)
def test_an_address_of_the_web_is_fetched_there(tmp_path, url):
    studio, web = Uploads(), Web()
    assert read(url, tmp_path, studio, web=web) == b"web"
    assert web.asked == [url]
    assert studio.asked == []


def test_what_else_a_proxy_has_beside_label_studio_is_fetched_without_a_token(tmp_path):
    studio, web = Uploads(), Web()
    url = f"{PUBLIC[2]}/photos/a.jpg"
    assert read(url, tmp_path, studio, web=web) == b"web"
    assert (studio.asked, web.asked) == ([], [url])
    assert source.origin(url, [STUDIO, *PUBLIC]) == "web"
    assert source.origin(f"{PUBLIC[2]}/data/upload/1/a.jpg", [STUDIO, *PUBLIC]) == "studio"


def test_label_studios_own_api_is_not_read_as_an_image(tmp_path):
    studio, web = Uploads(), Web()
    for path in ("/api/users", "/data/upload/../../api/users", "/tasks/1/resolve/../../../api"):
        with pytest.raises(MediaError, match="not a URL that the backend reads"):
            read(STUDIO + path, tmp_path, studio, web=web)
    assert (studio.asked, web.asked) == ([], [])


@given(st.binary(), st.sampled_from(["image/png", "", "image/jpeg;charset=x"]), st.booleans())
def test_a_data_url_holds_the_file(tmp_path_factory, data, kind, plain):
    body = quote(data) if plain else base64.b64encode(data).decode()
    url = f"data:{kind},{body}" if plain else f"data:{kind};base64,{body}"
    assert read(url, tmp_path_factory.getbasetemp()) == data


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:;base64,A", "data:;base64,%zz驾"])
def test_a_damaged_data_url_is_refused_and_not_shown_whole(tmp_path, url):
    with pytest.raises(MediaError):
        decode.decode(read(url, tmp_path))


def test_a_data_url_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_BYTES", 300)
    assert len(read("data:;base64," + base64.b64encode(b"0" * 300).decode(), tmp_path)) == 300
    with pytest.raises(MediaError, match="larger than") as caught:
        read("data:;base64," + base64.b64encode(b"0" * 600).decode(), tmp_path)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/data/local-files/?d=none.jpg", "media_missing"),
        ("/data/local-files/?d=../x", "media_forbidden"),
        ("ftp://a/b", "media_url"),
        ("data:,", "media_damaged"),
    ],
)
def test_an_error_has_a_kind_for_metrics(datasets, url, kind):
    with pytest.raises(MediaError) as caught:
        decode.decode(read(url, datasets))
    assert caught.value.kind == kind


# Files by their paths


def opened(url, root, studio=None):
    return source.opened(url, root, studio, [STUDIO, *PUBLIC])


def test_a_local_file_is_opened_where_it_lies_however_large(datasets, monkeypatch):
    monkeypatch.setattr(source, "MAX_BYTES", 1)
    (datasets / "demo/a.mp4").write_bytes(b"long")
    with opened("/data/local-files/?d=demo/a.mp4", datasets) as path:
        assert path == (datasets / "demo/a.mp4").resolve()
    assert path.exists()


def test_a_local_file_outside_is_not_opened(datasets):
    (datasets.parent / "secret.mp4").write_bytes(b"secret")
    (datasets / "link.mp4").symlink_to(datasets.parent / "secret.mp4")
    for name in ("../secret.mp4", "link.mp4"):
        with (
            pytest.raises(MediaError, match="lies outside"),
            opened(f"/data/local-files/?d={name}", datasets),
        ):
            pass


def test_what_comes_from_elsewhere_is_in_a_file_meanwhile(datasets):
    with opened("/data/upload/1/a.mp4", datasets, Uploads()) as path:
        assert path.read_bytes() == b"upload"
    assert not path.exists()


def test_where_a_file_has_no_room_it_says_so(datasets, monkeypatch):
    class Full:
        name = "/nowhere"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(source.tempfile, "NamedTemporaryFile", lambda **_: Full())
    with (
        pytest.raises(MediaError, match=r"no room for its 0 MiB in .*: No space left"),
        opened("/data/upload/1/a.mp4", datasets, Uploads()),
    ):
        pass
