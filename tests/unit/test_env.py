"""The making of .env."""

from __future__ import annotations

import io
import os
import stat
import sys

import pytest

import compose
import env
from host import gpu
from lib import files, net, settings
from lib.cli import UserError

NO_INDEX = staticmethod(lambda: "").__func__


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".env"


def test_every_setting_is_there_with_its_meaning(path):
    env.make(path, {}, NO_INDEX)
    text = path.read_text()
    values = settings.parse_env(text)
    joined = " ".join(line.lstrip("# ") for line in text.splitlines())
    for setting in settings.declared():
        if setting.get("fixed"):
            assert setting["name"] not in values
            continue
        if setting["generate"]:
            assert values[setting["name"]]
        else:
            assert values[setting["name"]] == setting["default"]
        assert setting["meaning"] in joined


def test_only_its_owner_can_read_it(path):
    env.make(path, {}, NO_INDEX)
    assert mode(path) == 0o600


def test_the_mode_is_repaired(path):
    env.make(path, {}, NO_INDEX)
    path.chmod(0o644)
    env.make(path, {}, NO_INDEX)
    assert mode(path) == 0o600


def test_a_second_run_changes_nothing(path):
    env.make(path, {}, NO_INDEX)
    before, inode = path.read_text(), path.stat().st_ino
    assert env.make(path, {"BACKEND_PORT": "1234"}, NO_INDEX) == []
    assert path.read_text() == before
    assert path.stat().st_ino == inode


def test_secrets_differ_between_installations_and_have_their_length(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    env.make(one, {}, NO_INDEX)
    env.make(two, {}, NO_INDEX)
    first, second = settings.parse_env(one.read_text()), settings.parse_env(two.read_text())
    secrets = [setting for setting in settings.declared() if setting["generate"]]
    assert secrets
    for setting in secrets:
        name = setting["name"]
        assert first[name] != second[name]
        assert len(first[name]) == int(setting["generate"].removeprefix("hex:"))


def test_what_a_person_wrote_stays_and_what_lacks_is_added(path):
    mine = "# mine\nLABEL_STUDIO_PASSWORD='my $own'\nUNKNOWN=1\n#BACKEND_PORT=9090\nTHREADS=3"
    path.write_text(mine)
    added = env.make(path, {}, NO_INDEX)
    text = path.read_text()
    assert text.startswith(mine + "\n")
    values = settings.parse_env(text)
    assert values["LABEL_STUDIO_PASSWORD"] == "my $own"
    assert "BACKEND_PORT" not in added  # commented out on purpose
    assert "LABEL_STUDIO_API_KEY" in added
    assert text.count("LABEL_STUDIO_PASSWORD=") == 1
    assert mode(path) == 0o600


def test_a_secret_that_is_commented_out_is_made(path):
    path.write_text("#LABEL_STUDIO_API_KEY=x\n")
    env.make(path, {}, NO_INDEX)
    assert len(settings.parse_env(path.read_text())["LABEL_STUDIO_API_KEY"]) == 40


@pytest.mark.parametrize("line", ["LABEL_STUDIO_API_KEY=", "LABEL_STUDIO_API_KEY=''"])
def test_an_empty_secret_is_made_and_counts(path, line):
    path.write_text(f"{line}\n")
    env.make(path, {}, NO_INDEX)
    assert path.read_text().startswith(f"{line}\n")
    assert len(settings.values({}, path)["LABEL_STUDIO_API_KEY"]) == 40


def test_authentication_that_is_switched_off_stays_off(path):
    path.write_text("BASIC_AUTH_PASS=\n")
    env.make(path, {}, NO_INDEX)
    assert settings.values({}, path)["BASIC_AUTH_PASS"] == ""
    path.unlink()
    env.make(path, {"BASIC_AUTH_PASS": ""}, NO_INDEX)
    assert settings.values({}, path)["BASIC_AUTH_PASS"] == ""


def test_a_mode_that_cannot_be_repaired_has_a_cure(path, monkeypatch):
    env.make(path, {}, NO_INDEX)
    path.chmod(0o644)
    monkeypatch.setattr(
        type(path), "chmod", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no"))
    )
    with pytest.raises(UserError, match="sudo chown"):
        env.make(path, {}, NO_INDEX)


def test_the_environment_is_written_in_the_first_time(path):
    chosen = {"LABEL_STUDIO_PORT": "8081", "LABEL_STUDIO_PASSWORD": "it's", "BACKEND_PORT": ""}
    env.make(path, chosen, NO_INDEX)
    values = settings.parse_env(path.read_text())
    assert values["LABEL_STUDIO_PORT"] == "8081"
    assert values["LABEL_STUDIO_PASSWORD"] == "it's"
    assert values["BACKEND_PORT"] == "9090"


def test_an_override_of_one_run_is_named(path):
    env.make(path, {}, NO_INDEX)
    written = settings.parse_env(path.read_text())
    again = {"LABEL_STUDIO_PORT": "8081", "BACKEND_PORT": "9090", "HOME": "/"}
    assert env.overridden(written, settings.declared(), again) == ["LABEL_STUDIO_PORT"]


@pytest.mark.parametrize(
    ("environ", "index"),
    [
        ({}, "https://cpu"),
        ({"TORCH_INDEX": ""}, ""),  # said to be empty: the lock file
        ({"TORCH_INDEX": "https://mine"}, "https://mine"),
    ],
)
def test_where_torch_comes_from(path, environ, index):
    env.make(path, environ, lambda: "https://cpu")
    assert settings.parse_env(path.read_text())["TORCH_INDEX"] == index


@pytest.mark.parametrize(
    ("gpus", "answers", "index"),
    [
        (["A100"], True, ""),
        ([], True, net.CPU_TORCH_INDEX),
        ([], False, ""),
    ],
)
def test_torch_for_the_cpu_only_without_gpu_and_where_it_is_reached(
    monkeypatch, gpus, answers, index
):
    monkeypatch.setattr(gpu, "gpus", lambda: gpus)
    env.cpu_index_answers.cache_clear()
    monkeypatch.setattr(net, "answers", lambda *_, **__: answers)
    assert env.torch_index_for_host() == index


def test_a_gpu_gets_torch_with_cuda_and_a_word_about_the_setting(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "gpus", lambda: ["A100"])
    env.torch_index_for_host()
    assert "Without GPU=1 the backend uses the CPU" in " ".join(capsys.readouterr().out.split())


def test_nothing_is_left_of_a_write_that_fails(path, monkeypatch):
    path.write_text("A=1\n")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write_private(path, "B=2\n")
    assert path.read_text() == "A=1\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_kind_of_secret_that_is_not_known_is_refused():
    for how in ("hex:3", "hex:0", "words:4"):
        with pytest.raises(UserError, match="hex:N"):
            env.new_secret(how)


def test_settings_may_come_by_stdin(path, monkeypatch, capsys):
    """As Ansible gives them: what stands in the environment of sudo is logged."""
    monkeypatch.setattr(settings, "ENV_FILE", path)
    monkeypatch.setattr(env, "torch_index_for_host", NO_INDEX)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("LABEL_STUDIO_PASSWORD='it is $ecret'\nGPU=true\n")
    )
    assert env.main(["-"]) == 0
    values = settings.parse_env(path.read_text())
    assert (values["LABEL_STUDIO_PASSWORD"], values["GPU"]) == ("it is $ecret", "true")
    assert "$ecret" not in capsys.readouterr().out


def test_another_argument_is_refused():
    with pytest.raises(UserError, match="found --help, expected nothing or -"):
        env.main(["--help"])


def test_a_setting_by_its_older_name_holds_and_is_named(tmp_path, monkeypatch, capsys):
    path = tmp_path / ".env"
    path.write_text("PARENT=eth7\n")
    assert settings.values({}, path)["MACVLAN_PARENT"] == "eth7"
    assert settings.values({"PARENT": "eth8"}, path)["MACVLAN_PARENT"] == "eth8"
    assert (
        settings.values({"PARENT": "", "MACVLAN_PARENT": "eth9"}, path)["MACVLAN_PARENT"] == "eth9"
    )
    monkeypatch.setattr(settings, "ENV_FILE", path)
    monkeypatch.setattr(env, "torch_index_for_host", lambda: "")
    monkeypatch.delenv("PARENT", raising=False)
    assert env.main() == 0
    assert "\nMACVLAN_PARENT=eth7\n" in path.read_text()
    assert path.read_text().startswith("PARENT=eth7\n"), "no line is ever overwritten"
    assert "warning: PARENT is called MACVLAN_PARENT now" in capsys.readouterr().out
    assert compose.environment({"PARENT": "eth8"})["MACVLAN_PARENT"] == "eth8"
