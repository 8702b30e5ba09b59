"""The parts of a bundle, without Docker and without a network."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bundle
import bundle_use
import env
import install_engine
from host import suites
from lib import ROOT, settings, tars, versions
from lib.cli import UserError

NAMES = st.text("abcdefghijklmnop.-_", min_size=1, max_size=90).filter(lambda n: n.strip("."))


# The file


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5))
def test_what_is_packed_comes_out_as_it_went_in(content):
    out = io.BytesIO()
    writer = tars.Writer(out, "kit")
    for name, data in content.items():
        writer.add(name, io.BytesIO(data))
    writer.close()
    out.seek(0)
    with tarfile.open(fileobj=out, mode="r:") as tar:
        found = {m.name: file.read() for m in tar if (file := tar.extractfile(m))}
    assert found == {f"kit/{name}": data for name, data in content.items()}
    assert {name: file["size"] for name, file in writer.files.items()} == {
        name: len(data) for name, data in content.items()
    }


def test_sha256sum_reads_the_list_of_hashes_and_finds_what_was_altered(tmp_path):
    out = tmp_path / "bundle.tar"
    with out.open("wb") as file:
        writer = tars.Writer(file, "kit")
        writer.add_text("a", "one")
        writer.add_text("folder/b", "two")
        writer.add_text("SHA256SUMS", bundle.hashes(writer.files))
        writer.close()
    subprocess.run(["tar", "-C", tmp_path, "-xf", out], check=True)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=tmp_path / "kit", capture_output=True, text=True)
    assert done.stdout == "a: OK\nfolder/b: OK\n"
    (tmp_path / "kit" / "folder" / "b").write_text("TWO")
    done = subprocess.run(check, cwd=tmp_path / "kit", capture_output=True, text=True)
    assert done.returncode and "folder/b: FAILED" in done.stdout


@pytest.mark.parametrize("size", [0, 1, 8 * 2**30 - 1, 8 * 2**30, 2**40])
def test_a_size_of_any_length_has_a_header_of_one_length(size):
    """Which is written again once the size is known."""
    header = tars.header("kit/images.tar.gz", size, 0o644, 1)
    assert len(header) == tarfile.BLOCKSIZE
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 99}'])
def test_a_folder_that_is_no_bundle_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / bundle_use.MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"found (no manifest\.json|format)"):
        bundle_use.read_manifest(tmp_path)


def test_a_command_that_fails_half_way_leaves_no_whole_archive():
    with (
        pytest.raises(UserError, match="docker save: disk full"),
        bundle.output_of(
            "docker save", ["sh", "-c", "echo half; echo disk full >&2; exit 1"], ["cat"]
        ) as out,
    ):
        assert out.read() == b"half\n"


# What goes in, and what is said of it


def test_weights_and_the_demo_s_images_go_in_and_a_person_s_own_images_do_not(
    tmp_path, monkeypatch
):
    for path in (
        "models/mine.pt", "models/models.yaml", "models/two/own.onnx",
        "models/.before-restore/a.pt",
        "datasets/demo/bus.jpg", "datasets/demo/own.jpg", "datasets/mine/1.jpg",
    ):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    folders = {f"{n.upper()}_DIR": str(tmp_path / n) for n in ("models", "datasets")}
    monkeypatch.setattr(settings, "values", lambda: folders)
    more = {name: tmp_path / "more" / name for name in folders}
    for path in ("MODELS_DIR/yolov8n.pt", "DATASETS_DIR/demo/bus.jpg"):
        (tmp_path / "more" / path).parent.mkdir(parents=True)
        (tmp_path / "more" / path).touch()
    found = bundle.data_files(more)
    assert set(found) == {
        "models/mine.pt", "models/two/own.onnx", "models/yolov8n.pt", "datasets/demo/bus.jpg",
    }  # fmt: skip
    assert found["datasets/demo/bus.jpg"] == tmp_path / "datasets/demo/bus.jpg"


def test_the_installation_of_before_gives_its_settings_and_keeps_its_folders(tmp_path, monkeypatch):
    old, env_file = tmp_path / "old", tmp_path / ".env"
    monkeypatch.setattr(settings, "ENV_FILE", env_file)
    with pytest.raises(UserError, match="Name the folder of an installation"):
        bundle_use.take_over(old)
    old.mkdir()
    (old / ".env").write_text("SECRET_KEY=s\nMODELS_DIR=./models\nDATASETS_DIR=/mnt/images\n")
    bundle_use.take_over(old)
    assert settings.parse_env(env_file.read_text()) == {
        "SECRET_KEY": "s", "IMAGES": "present", "MODELS_DIR": str(old / "models"),
        "DATASETS_DIR": "/mnt/images", "PROJECTS_DIR": str(old / "projects"),
    }  # fmt: skip
    assert env_file.stat().st_mode & 0o777 == 0o600
    (old / ".env").write_text("SECRET_KEY=other\n")
    bundle_use.take_over(old)
    assert "SECRET_KEY=s\n" in env_file.read_text(), "what is there counts"


def test_the_chart_is_told_of_a_registry_and_of_a_postgres_that_was_pushed():
    tags = list(versions.images().values())
    assert bundle_use.chart_values("r.example.com/team", tags) == (
        "global:\n  imageRegistry: r.example.com/team"
    )
    assert bundle_use.chart_values("r", [*tags, versions.POSTGRES_IMAGE]).endswith(
        'postgres:\n  image: {repository: ls-yolo/postgres, tag: "17"}'
    )


@pytest.mark.parametrize("registry", ["", "/", "https://r.example.com"])
def test_a_registry_is_named_as_docker_names_it(registry):
    with pytest.raises(UserError, match="expected a host as docker names it"):
        bundle_use.push(registry, None)


def test_an_unknown_suite_is_named(capsys):
    with pytest.raises(SystemExit):
        bundle.main(["make", "--suites", "trixie,sid"])
    assert "found sid, expected some of bookworm, trixie, noble" in capsys.readouterr().err


@pytest.mark.parametrize("suite", suites.SUITES, ids=lambda suite: suite.codename)
def test_every_source_of_packages_names_the_keys_that_sign_it(suite):
    stanzas = suite.sources("http://mirror.example.com/x").strip().split("\n\n")
    for stanza in stanzas:
        assert f"Signed-By: {suites.KEYRINGS[suite.family]}" in stanza
        assert "mirror.example.com" in stanza
    assert f"{suite.codename}-security" in "".join(stanzas)


# Packages of a folder


@pytest.fixture
def folder(tmp_path):
    """A function that puts a package into a folder whose name apt's sources could not have."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("no dpkg-deb here: this is no Debian")
    packages = tmp_path / "a folder [x]"
    packages.mkdir()

    def add(name, version):
        source = tmp_path / name
        (source / "DEBIAN").mkdir(parents=True)
        (source / "DEBIAN" / "control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: test <test@example.com>\nDescription: for a test\n"
        )
        subprocess.run(["dpkg-deb", "--build", source, packages], check=True, capture_output=True)
        return packages

    return add


def apt_only(*words):
    return subprocess.run(
        [ROOT / "scripts" / "apt-only", *words], capture_output=True, text=True
    )  # fmt: skip


def test_apt_takes_what_lies_in_a_folder_and_knows_nothing_else(folder):
    there = folder("ls-yolo-one", "1.2")
    done = apt_only(there, "apt-cache", "policy", "ls-yolo-one", "adduser", "bash")
    assert done.returncode == 0, done.stderr
    assert "Candidate: 1.2" in done.stdout
    assert "http" not in done.stdout
    assert list(there.glob("*")) == [there / "ls-yolo-one_1.2_all.deb"]  # nothing is left behind


def test_an_index_that_lies_there_counts(folder):
    there = folder("ls-yolo-one", "1.2")
    index = apt_only(there, "index").stdout
    assert "Filename: ./ls-yolo-one_1.2_all.deb\n" in index
    (there / "Packages").write_text(index.replace("Version: 1.2", "Version: 7"))
    assert "Candidate: 7" in apt_only(there, "apt-cache", "policy", "ls-yolo-one").stdout


def test_a_folder_without_packages_is_refused(tmp_path):
    done = apt_only(tmp_path, "apt-get", "install", "make")
    assert done.returncode
    assert f"found no .deb file in {tmp_path}" in done.stderr


DEBIAN = {"docker.io": "26.1.5", "docker-cli": "26.1.5", "docker-compose": "2.26.1",
          "docker-buildx": "0.13.1", "containerd": "1.7.24", "iptables": "1.8.9"}  # fmt: skip
DOCKER = {"docker-ce": "5:29.0.1", "docker-ce-cli": "5:29.0.1", "containerd.io": "2.1",
          "docker-compose-plugin": "5.0.0", "docker-buildx-plugin": "0.30.0"}  # fmt: skip
ALL = tuple(install_engine.PACKAGES["debian"])


@pytest.mark.parametrize(
    ("lacks", "there", "names"),
    [
        (ALL, DEBIAN, "docker.io iptables docker-cli docker-compose docker-buildx containerd"),
        (ALL, {**DEBIAN, **DOCKER}, "docker-ce containerd.io docker-ce-cli docker-compose-plugin "
                                    "docker-buildx-plugin"),
        (["buildx"], {"docker-buildx": "0.13.1"}, "docker-buildx"),
    ],
)  # fmt: skip
def test_a_folder_gives_what_is_missing(lacks, there, names):
    found = install_engine.choose_of_folder("debian", lacks, there, versions.minimums())
    assert found == tuple(names.split())


def test_a_folder_that_lacks_a_part_or_has_an_old_one_is_refused_with_the_reason():
    old = {**DEBIAN, "docker-compose": "1.29"}
    with pytest.raises(UserError, match=r"docker-ce is not there and docker-compose is 1\.29"):
        install_engine.choose_of_folder("debian", ALL, old, versions.minimums())


# Where images were brought


def test_no_index_of_torch_is_asked_where_nothing_is_built(monkeypatch):
    monkeypatch.setattr(env, "cpu_index_answers", lambda: pytest.fail("asked"))
    monkeypatch.setenv("IMAGES", "present")
    assert env.torch_index_for_host() == ""
