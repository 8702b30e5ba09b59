"""The backup that a pod of the chart makes: in a folder, in a bucket, or not at all."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from lib import archive, backups, settings, staging
from lib.cli import UserError
from ls_kit import backup, bucket

HERE = Path(__file__).resolve().parents[1]
SECRETS = {
    "LABEL_STUDIO_USERNAME": "admin@example.com",
    "LABEL_STUDIO_PASSWORD": "it's a $secret",
    "LABEL_STUDIO_API_KEY": "0123456789abcdef",
    "BASIC_AUTH_USER": "",
    "SECRET_KEY": "signs \"all\" of 'it'",
}

needs_gpg = pytest.mark.skipif(
    not shutil.which("gpg"), reason="gpg is not here: sudo apt install gnupg"
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"label-studio": "1.23.2"}.__getitem__)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def mounted(tmp_path):
    """Volumes as they are mounted, and the command line that names them."""
    data, models, config = (tmp_path / name for name in ("data", "models", "config"))
    for folder in (data, models, config):
        folder.mkdir()
    with closing(sqlite3.connect(data / "label_studio.sqlite3")) as database:
        database.execute("CREATE TABLE project (id INTEGER)")
    (data / ".env").write_text("SECRET_KEY=of-an-earlier-life\n")
    (data / "media").mkdir()
    (data / "media" / "a.jpg").write_bytes(os.urandom(300_000))
    (models / "a.pt").write_bytes(b"weights")
    (models / "models.yaml").write_text("of another day")
    # As the kubelet writes a ConfigMap.
    (config / "..2026_01_01").mkdir()
    (config / "..2026_01_01" / "models.yaml").write_text("coco: {weights: a.pt}")
    (config / "..data").symlink_to("..2026_01_01")
    (config / "models.yaml").symlink_to("..data/models.yaml")
    return [
        "--project", "mine", "--kit", "0.1.0", f"--volume=label-studio={data}",
        f"--volume=models={models}", f"--folder=models={config}",
    ]  # fmt: skip


def content(path, *key):
    """What an archive says of itself, and its files by name."""
    with archive.reading(path, *key) as reader:
        found = {f"{part}/{name}": data.read() for part, name, _, data in reader.members() if data}
        return reader.about, found


def made(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_has_all_volumes_each_file_once_and_what_signs_tokens(mounted, tmp_path):
    assert backup.main([*mounted, "--to", str(tmp_path / "to")]) == 0
    (name,) = made(tmp_path / "to")
    about, files = content(tmp_path / "to" / name)
    assert about["parts"] == ["label-studio", "models"]
    assert (about["project"], about["kit"], about["label_studio"], about["database"]) == (
        "mine", "0.1.0", "1.23.2", backups.LITE,
    )  # fmt: skip
    assert set(files) == {
        backups.SETTINGS, backups.KEYS, backups.SQLITE, "label-studio/media/a.jpg",
        "models/a.pt", "models/models.yaml",
    }  # fmt: skip
    assert files["models/models.yaml"] == b"coco: {weights: a.pt}"
    assert files["label-studio/media/a.jpg"] == (tmp_path / "data/media/a.jpg").read_bytes()
    assert (tmp_path / "to" / name).stat().st_mode & 0o777 == 0o600


def test_settings_and_key_read_back_as_they_were(mounted, tmp_path):
    backup.main([*mounted, "--to", str(tmp_path / "to")])
    (path,) = (tmp_path / "to").iterdir()
    _, text = staging.first_look(path, (None, None))
    key = SECRETS["SECRET_KEY"]
    assert settings.parse_env(text) == {n: v for n, v in SECRETS.items() if v != key}
    assert settings.parse_env(content(path)[1][backups.KEYS].decode()) == {"SECRET_KEY": key}


def test_a_dump_makes_it_one_of_postgresql(mounted, tmp_path):
    (tmp_path / "dump").write_bytes(b"PGDMP")
    backup.main([*mounted, "--dump", str(tmp_path / "dump"), "--to", str(tmp_path / "to")])
    (path,) = (tmp_path / "to").iterdir()
    about, files = content(path)
    assert about["database"] == backups.POSTGRES
    assert files[backups.DUMP] == b"PGDMP"
    assert settings.parse_env(files[backups.SETTINGS].decode())["POSTGRES"] == "1"


@needs_gpg
def test_without_a_passphrase_it_says_that_it_is_open_and_with_one_it_is_not(
    mounted, tmp_path, capsys
):
    backup.main([*mounted, "--to", str(tmp_path / "open")])
    assert "not encrypted: whoever reads the backup has every password" in capsys.readouterr().out
    (tmp_path / "passphrase").write_text("of the test\n")
    locked = ["--passphrase-file", str(tmp_path / "passphrase")]
    backup.main([*mounted, *locked, "--to", str(tmp_path / "locked")])
    assert "not encrypted" not in capsys.readouterr().out
    (path,) = (tmp_path / "locked").iterdir()
    assert path.name.endswith(".tar.gz.gpg")
    assert SECRETS["LABEL_STUDIO_API_KEY"].encode() not in path.read_bytes()
    assert backups.SQLITE in content(path, tmp_path / "passphrase")[1]


def test_the_newest_stay(mounted, tmp_path):
    to = tmp_path / "to"
    to.mkdir()
    old = [f"mine-2026010{day}T000000Z.tar.gz" for day in range(1, 4)]
    for name in [*old, "theirs-20260101T000000Z.tar.gz"]:
        (to / name).touch()
    backup.main([*mounted, "--to", str(to), "--keep", "2"])
    new, *rest = reversed(made(to)[:-1])
    assert new not in old
    assert rest == [old[-1]]


def test_a_folder_that_cannot_be_read_leaves_nothing_new(mounted, tmp_path):
    (tmp_path / "to").mkdir()
    gone = f"--volume=backend={tmp_path / 'gone'}"
    with pytest.raises(UserError, match=r"backend: .*gone: No such file"):
        backup.main([*mounted, gone, "--to", str(tmp_path / "to")])
    assert not made(tmp_path / "to")


@pytest.mark.parametrize("words", [["--volume", "data"], ["--folder", "=/x"], []])
def test_a_command_line_that_cannot_be_is_refused(words):
    with pytest.raises(SystemExit) as ended:
        backup.main(["--project", "mine", "--kit", "1", *words])
    assert ended.value.code == 2


# In a bucket


@pytest.fixture(scope="module")
def s3():
    """A server on loopback that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def there(s3, monkeypatch, request):
    """A bucket with nothing in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-test")
    name = re.sub(r"[^a-z0-9-]", "-", request.node.name.lower())[:60].strip("-")
    found = bucket.Bucket(name, "of/mine", "us-east-1", s3)
    found.client.create_bucket(Bucket=name)
    return found


@pytest.fixture
def into(mounted, there, s3):
    return [*mounted, "--bucket", there.name, "--prefix", "of/mine", "--region", "us-east-1",
            "--endpoint", s3]  # fmt: skip


def test_what_comes_out_of_a_bucket_is_a_whole_archive(into, there, tmp_path, capsys):
    # More than one upload takes at a time.
    (tmp_path / "data" / "media" / "big").write_bytes(os.urandom(20 << 20))
    assert backup.main(into) == 0
    (name,) = there.names()
    assert f"s3://{there.name}/of/mine/{name}: whole" in capsys.readouterr().out
    there.client.download_file(there.name, f"of/mine/{name}", str(tmp_path / name))
    files = content(tmp_path / name)[1]
    assert files["label-studio/media/big"] == (tmp_path / "data/media/big").read_bytes()


@needs_gpg
def test_a_passphrase_holds_in_a_bucket_too(into, there, tmp_path):
    (tmp_path / "passphrase").write_text("of the test\n")
    backup.main([*into, "--passphrase-file", str(tmp_path / "passphrase")])
    (name,) = there.names()
    there.client.download_file(there.name, f"of/mine/{name}", str(tmp_path / name))
    assert backups.SQLITE in content(tmp_path / name, tmp_path / "passphrase")[1]


def test_the_newest_stay_in_a_bucket(into, there):
    old = [f"mine-2026010{day}T000000Z.tar.gz" for day in range(1, 4)]
    others = ["of/mine/theirs-20260101T000000Z.tar.gz", "mine-20260101T000000Z.tar.gz"]
    for key in [*(f"of/mine/{name}" for name in old), *others]:
        there.client.put_object(Bucket=there.name, Key=key, Body=b"")
    backup.main([*into, "--keep", "2"])
    left = there.names()
    assert set(left) > {old[-1], "theirs-20260101T000000Z.tar.gz"}
    assert len(left) == 3
    there.client.head_object(Bucket=there.name, Key=others[1])


def test_one_that_fails_leaves_no_object_and_no_half_upload(into, there, tmp_path):
    (tmp_path / "data" / "media" / "big").write_bytes(os.urandom(20 << 20))
    with pytest.raises(UserError, match="backend: "):
        backup.main([*into, f"--volume=backend={tmp_path / 'gone'}"])
    place = tmp_path / "projects"
    place.mkdir()
    (place / "a.yaml").symlink_to("nowhere")
    with pytest.raises(UserError, match="a link that leads nowhere"):
        # After the big file: half of it is sent by then.
        backup.main([*into, f"--folder=projects={place}"])
    assert not there.names()
    assert "Uploads" not in there.client.list_multipart_uploads(Bucket=there.name)


def test_what_a_killed_run_left_of_an_upload_goes_with_the_next(into, there):
    left = there.client.create_multipart_upload(Bucket=there.name, Key="of/mine/mine-1.tar.gz")
    other = there.client.create_multipart_upload(Bucket=there.name, Key="of/mine/theirs-1.tar.gz")

    def found():
        return there.client.list_multipart_uploads(Bucket=there.name).get("Uploads", [])

    # That of a run that is under way stays.
    there.forget_uploads("mine", found()[0]["Initiated"])
    assert len(found()) == 2
    backup.main(into)
    assert [one["UploadId"] for one in found()] == [other["UploadId"]] != [left["UploadId"]]


def test_a_bucket_that_is_not_there_is_named(into, there):
    there.client.delete_bucket(Bucket=there.name)
    with pytest.raises(UserError, match=rf"bucket {there.name}: .*NoSuchBucket"):
        backup.main(into)


def test_killed_at_any_point_nothing_has_the_name_of_a_backup(mounted, tmp_path):
    (tmp_path / "data" / "media" / "big").write_bytes(os.urandom(60 << 20))
    to = tmp_path / "to"
    line = (
        "import importlib.metadata, sys; importlib.metadata.version = lambda _: '1.23.2';"
        "from ls_kit import backup; backup.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", line, *mounted, "--to", str(to)], stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent / 'scripts'}"},
    )  # fmt: skip
    until = time.monotonic() + 20
    while not list(to.glob(".*.part")):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [name for name in made(to) if not name.startswith(".")] == []
    backup.main([*mounted, "--to", str(to)])
    (name,) = made(to)
    assert not name.startswith(".")


def test_the_image_has_all_of_the_kits_modules_that_it_imports(tmp_path):
    copied = re.search(r"for name in ([a-z_ ]+);", (HERE / "Dockerfile").read_text())
    (tmp_path / "lib").mkdir()
    for name in copied[1].split():
        shutil.copy(HERE.parent / "scripts" / "lib" / f"{name}.py", tmp_path / "lib")
    shutil.copytree(HERE / "ls_kit", tmp_path / "ls_kit")
    # -P: nothing of the folder that it is started in.
    line = [sys.executable, "-P", "-m", "ls_kit.backup", "--help"]
    done = subprocess.run(line, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
