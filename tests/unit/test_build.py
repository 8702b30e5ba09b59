"""What a build is given, and what must never show in it."""

from __future__ import annotations

import os
import subprocess

import pytest

import build
from lib import commands, docker, net, settings
from lib.cli import UserError

VALUES = {
    "IMAGES": "build",
    "CA_BUNDLE": "",
    "APT_MIRROR": "http://mirror/debian",
    "PIP_INDEX_URL": "https://ann:it's $ecret@index/simple",
    "TORCH_INDEX": "https://private/whl/cpu",
}


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setattr(docker, "client", lambda: "/usr/bin/docker")

    def make(name="backend", **changes):
        values = {**VALUES, **changes}
        return build.build_command(name, "t:1", values, "default", "abc")

    return make


def test_no_address_is_on_the_command_line(command):
    words = " ".join(command())
    for name in ("APT_MIRROR", "PIP_INDEX_URL", "TORCH_INDEX"):
        assert VALUES[name] not in words


def test_another_torch_index_makes_the_layer_anew_without_showing_it(command):
    def source(**changes):
        return next(word for word in command(**changes) if word.startswith("TORCH_SOURCE="))

    assert source(TORCH_INDEX="") == "TORCH_SOURCE=lock"
    assert source() == source() != source(TORCH_INDEX="https://other/whl/cpu")
    assert not any(word.startswith("TORCH_SOURCE") for word in command("label-studio"))


def test_the_secret_of_mirrors_is_read_by_a_shell_as_it_was(tmp_path):
    file = tmp_path / "mirrors"
    file.write_text(build.mirrors_text({**VALUES, "TORCH_INDEX": ""}))
    shell = f'. {file}; printf "%s|%s|%s" "$APT_MIRROR" "$PIP_INDEX_URL" "${{TORCH_INDEX-unset}}"'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout == f"{VALUES['APT_MIRROR']}|{VALUES['PIP_INDEX_URL']}|unset"


def test_a_proxy_is_passed_by_name_alone(command, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:secret@proxy:3128")
    words = command()
    assert words[words.index("HTTPS_PROXY") - 1] == "--build-arg"
    assert "secret@" not in " ".join(words)


def test_certificates(command, tmp_path, monkeypatch):
    bundle = tmp_path / "ca.crt"
    bundle.write_text("x")
    assert f"id=ca,src={bundle}" in command(CA_BUNDLE=str(bundle))
    with pytest.raises(UserError, match="CA_BUNDLE"):
        command(CA_BUNDLE=str(tmp_path / "none.crt"))
    monkeypatch.setattr(net, "HOST_CA", tmp_path / "none.crt")
    assert not any("id=ca" in word for word in command())


def test_an_unknown_image_is_named():
    with pytest.raises(UserError, match="found web, expected label-studio, backend, postgres"):
        build.main(["web"])


@pytest.fixture
def postgres(monkeypatch):
    """What ``build.ensure_postgres`` does, with a registry that does as it is told."""

    def run(there, given):
        did = []
        monkeypatch.setattr(docker, "client", lambda: "docker")
        monkeypatch.setattr(build, "title", lambda _: there)
        monkeypatch.setattr(build, "pull", lambda image: did.append(f"pull {image}") or given)
        monkeypatch.setattr(commands, "run", lambda words: did.append(" ".join(words[1:])))
        monkeypatch.setattr(build, "ensure_base", lambda: None)
        monkeypatch.setattr(build, "build", lambda name, tag, _: did.append(f"build {name} {tag}"))
        build.ensure_postgres(VALUES)
        return did

    return run


def test_postgres_is_the_official_image_where_a_registry_gives_it(postgres):
    assert postgres(None, True) == [
        "pull postgres:17-trixie", "tag postgres:17-trixie ls-yolo/postgres:17",
    ]  # fmt: skip


def test_postgres_is_built_where_none_does_and_kept_up_to_date_without_asking_again(postgres):
    assert postgres(None, False) == [
        "pull postgres:17-trixie",
        "build postgres ls-yolo/postgres:17",
    ]
    assert postgres("ls-yolo postgres", False) == ["build postgres ls-yolo/postgres:17"]


def test_an_official_postgres_that_is_there_is_left_alone(postgres):
    assert postgres("", True) == []


@pytest.mark.parametrize(("on", "images"), [("", 2), ("1", 3)])
def test_postgres_is_brought_where_it_is_asked_for(monkeypatch, on, images):
    did = []
    values = {**VALUES, "POSTGRES": on}
    monkeypatch.setattr(settings, "values", lambda: values)
    monkeypatch.setattr(build, "ensure_base", lambda: None)
    monkeypatch.setattr(build, "build", lambda name, *_: did.append(name))
    monkeypatch.setattr(build, "ensure_postgres", lambda _: did.append("postgres"))
    build.main([])
    assert len(did) == images


@pytest.mark.parametrize(("on", "images"), [("", 2), ("1", 3)])
def test_nothing_is_built_where_images_were_brought(monkeypatch, on, images):
    values = {**VALUES, "POSTGRES": on, "IMAGES": "present"}
    monkeypatch.setattr(settings, "values", lambda: values)
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("built"))
    asked = []
    monkeypatch.setattr(build, "title", lambda tag: asked.append(tag) or "ls-yolo")
    build.main([])
    assert len(asked) == images
    monkeypatch.setattr(build, "title", lambda tag: None if "backend" in tag else "ls-yolo")
    with pytest.raises(UserError, match=r"found no image ls-yolo/backend:.* IMAGES=present"):
        build.main([])


def test_a_base_image_that_is_there_is_left_alone(monkeypatch):
    monkeypatch.setattr(docker, "client", lambda: "/usr/bin/docker")
    monkeypatch.setattr(commands, "output", lambda *_, **__: "sha256:1")
    monkeypatch.setattr(build, "pull", lambda _: pytest.fail("pulled"))
    build.ensure_base()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A docker client that does as it is told on ``pull``."""
    program = tmp_path / "docker"

    def says(script):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(docker, "client", lambda: str(program))

    return says


def test_a_registry_that_answers(registry):
    registry("echo 'trixie-slim: Pulling from library/debian'")
    assert build.pull("debian:trixie-slim")


def test_a_registry_that_does_not_exist(registry, capsys):
    registry("echo 'no such host' >&2; exit 1")
    assert not build.pull("debian:trixie-slim")
    assert "no such host" in capsys.readouterr().out


def test_a_registry_that_says_more_than_a_pipe_holds(registry, monkeypatch, capsys):
    monkeypatch.setattr(build, "WHOLE_PULL", 10)
    registry("echo Pulling; head -c 1000000 /dev/zero | tr '\\0' '\\n' >&2; echo full >&2; exit 1")
    assert not build.pull("debian:trixie-slim")
    assert "no registry gives it: full" in capsys.readouterr().out


def test_a_registry_that_never_answers(registry, monkeypatch):
    monkeypatch.setattr(build, "FIRST_ANSWER", 0.2)
    registry("exec sleep 60")
    assert not build.pull("debian:trixie-slim")


def test_what_a_killed_run_left_is_found(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = tmp_path / f"{build.FOLDER_PREFIX}{ended.pid}-abc"
    for folder in (left, tmp_path / f"{build.FOLDER_PREFIX}{os.getpid()}-abc", tmp_path / "other"):
        folder.mkdir()
    assert build.left_behind(tmp_path) == [left]


def test_the_base_image_names_no_mirror():
    text = build.sources("bookworm")
    assert "http://deb.debian.org/debian\nSuites: bookworm bookworm-updates\n" in text
    assert text.count("URIs:") == text.count("deb.debian.org")


def test_the_login_of_a_mirror_is_on_no_command_line(tmp_path):
    """debootstrap's place is taken by a program that says what it was given."""
    url, user, password = net.split_login("https://ann:p%40ss@mirror/debian")
    (tmp_path / "login").write_text(build.wget_login(user, password))
    program = tmp_path / "debootstrap"
    program.write_text(
        f'#!/bin/sh\necho "$*" >{tmp_path}/words\ncat "$WGETRC" >{tmp_path}/login-seen\nexit 1\n'
    )
    program.chmod(0o755)
    words = [tmp_path / "root", url, "keyring", "script", tmp_path / "login", "trixie"]
    subprocess.run(
        ["sh", "-c", build.DEBOOTSTRAP, "sh", *map(str, words)],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
    )
    assert "https://mirror/debian" in (tmp_path / "words").read_text()
    assert "p@ss" not in (tmp_path / "words").read_text()
    assert "http_user = ann\nhttp_password = p@ss\n" in (tmp_path / "login-seen").read_text()
    assert build.wget_login("", "") == ""


def test_a_commit_of_tests_leaves_an_image_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)

    def git(*words):
        login = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", "-C", tmp_path, *login, *words], check=True, capture_output=True)

    def commit(path):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        git("add", "-A")
        git("commit", "-m", path)
        return build.revision("backend")

    assert build.revision("backend") == "unknown"
    git("init")
    first = commit("backend/ls_yolo/server/app.py")
    assert commit("backend/tests/test_app.py") == commit("docs/page.md") == first
    second = commit("scripts/image/uv-install")
    assert second != first
    (tmp_path / "backend" / "tests" / "test_app.py").write_text("y")
    assert build.revision("backend") == second
    assert build.revision("label-studio") == second
    assert commit("scripts/lib/volume.py") == second
    assert build.revision("label-studio") != second
    (tmp_path / "backend" / "Dockerfile").write_text("y")
    assert build.revision("backend") == f"{second}-changed"
