"""The order of `make up`, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import compose
import preflight
import up
from host.checks import INSTALLABLE, OK, STOP, Check
from lib import ROOT, docker, settings, versions
from lib.cli import UserError

VALUES = {
    "LABEL_STUDIO_HOST": "",
    "BIND_ADDRESS": "127.0.0.1",
    "LABEL_STUDIO_PORT": "8081",
    "LABEL_STUDIO_USERNAME": "ann@example.com",
    "LABEL_STUDIO_PASSWORD": "secret",
    "MACVLAN": "",
}


@pytest.fixture(autouse=True)
def lock(tmp_path, monkeypatch):
    """A lock of the test's own: a real `make up` may be at work."""
    monkeypatch.setattr(up, "LOCK", tmp_path / "new" / "up.lock")
    return up.LOCK


@pytest.fixture
def steps(monkeypatch):
    """Replaces every step; returns the list of those that ran. ``steps.looks`` are the looks."""

    class Steps(list):
        pass

    ran = Steps()
    ran.looks = [[Check("all", "", "", OK)]]

    def all_checks(ports=True, folders=True):
        ran.append("look")
        return ran.looks.pop(0) if len(ran.looks) > 1 else ran.looks[0]

    monkeypatch.setattr(preflight, "all_checks", all_checks)
    for module, name in (
        (up.install_engine, "main"), (up.env, "main"), (up.demo, "main"), (up.build, "main"),
        (up, "start_services"), (up, "check_gpu"), (up, "run_setup"), (up.build, "remove_replaced"),
    ):  # fmt: skip
        label = f"{module.__name__}.{name}"
        monkeypatch.setattr(module, name, lambda *_, label=label: ran.append(label))
    return ran


REST = [
    "env.main", "demo.main", "build.main", "up.start_services", "up.check_gpu", "up.run_setup",
    "build.remove_replaced",
]  # fmt: skip


def test_all_is_well(steps):
    assert up.main() == 0
    assert steps == ["look", *REST]


def test_a_person_comes_first_and_nothing_is_done(steps):
    steps.looks = [
        [Check("Docker Engine", "", "", INSTALLABLE), Check("port 8080", "taken", "", STOP, "Do")]
    ]
    with pytest.raises(UserError, match=r"nothing was changed.*\n.*port 8080: taken\. Do"):
        up.main()
    assert steps == ["look"]


def test_what_is_missing_is_installed_and_looked_at_again(steps):
    missing, there = (
        Check("Docker Engine", "", "", INSTALLABLE),
        Check("Docker Engine", "26", "", OK),
    )
    steps.looks = [[missing], [there]]
    up.main()
    assert steps == ["look", "install_engine.main", "look", *REST]


def test_an_installation_that_did_not_help_stops(steps):
    steps.looks = [[Check("Docker Engine", "", "", INSTALLABLE)]]
    with pytest.raises(UserError):
        up.main()
    assert steps == ["look", "install_engine.main", "look"]


def test_prepare_starts_nothing(steps):
    up.main(["prepare"])
    assert steps == ["look", *REST[:3]]


def test_setup_starts_what_does_not_run_and_makes_the_projects(steps, monkeypatch):
    monkeypatch.setattr(settings, "env_text", lambda *_: "A=1")
    monkeypatch.setattr(up.database, "checks", lambda *_, **__: [])
    up.main(["setup"])
    assert steps == ["up.start_services", "up.check_gpu", "up.run_setup"]


def test_setup_needs_an_installation(steps, monkeypatch):
    monkeypatch.setattr(settings, "env_text", lambda: "")
    with pytest.raises(UserError, match="Run: make up"):
        up.main(["setup"])
    assert steps == []


def test_setup_is_refused_where_the_database_would_be_another_one(steps, monkeypatch):
    monkeypatch.setattr(settings, "env_text", lambda *_: "A=1")
    fault = Check("database", "projects are kept in PostgreSQL", "", STOP, "POSTGRES=1 in .env")
    monkeypatch.setattr(up.database, "checks", lambda *_, **__: [fault])
    with pytest.raises(UserError, match="POSTGRES=1"):
        up.main(["setup"])
    assert steps == []


def test_setup_is_refused_where_the_gpu_cannot_be_had(steps, monkeypatch):
    """A playbook makes no pre-flight: the backend would go on with the CPU."""
    monkeypatch.setattr(settings, "env_text", lambda *_: "GPU=1")
    monkeypatch.setattr(up.database, "checks", lambda *_, **__: [])
    no_cuda = up.gpu.Host(gpus=("A GPU",), devices=("0",), cdi=False, runtime=False)
    monkeypatch.setattr(up.gpu, "look", lambda *_, **__: no_cuda)
    with pytest.raises(UserError, match="does not read CDI specifications"):
        up.main(["setup"])
    assert steps == []


def test_another_word_is_refused(steps):
    with pytest.raises(UserError, match="found 'now'"):
        up.main(["now"])
    assert steps == []


def test_a_second_run_says_that_it_waits_and_waits(steps, lock, capsys):
    second = threading.Thread(target=up.main)
    with up.alone(lock):
        second.start()
        deadline = time.monotonic() + 10
        while "waiting for it" not in capsys.readouterr().out and time.monotonic() < deadline:
            time.sleep(0.01)
        assert steps == []
    second.join(10)
    assert steps == ["look", *REST]


def test_a_run_that_was_killed_locks_nobody_out(lock, capsys):
    """Nor does what it started and left behind."""
    hold = (
        "import subprocess, sys, up; from pathlib import Path\n"
        "with up.alone(Path(sys.argv[1])):\n"
        "    print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", hold, lock],
        cwd=ROOT / "scripts", text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    left_behind = int(first.stdout.readline())
    try:
        first.kill()
        first.wait()
        with up.alone(lock):
            assert capsys.readouterr().out == ""
    finally:
        os.kill(left_behind, 9)
        first.communicate()


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({}, "http://127.0.0.1:8081"),
        ({"BIND_ADDRESS": "0.0.0.0"}, "http://127.0.0.1:8081"),
        ({"BIND_ADDRESS": "192.168.1.5"}, "http://192.168.1.5:8081"),
        ({"BIND_ADDRESS": "::1"}, "http://[::1]:8081"),
        ({"LABEL_STUDIO_HOST": "https://labels.example.com"}, "https://labels.example.com"),
    ],
)
def test_where_label_studio_is(changes, address):
    assert up.address({**VALUES, **changes}) == address


def test_the_password_is_never_shown():
    text = up.summary(VALUES)
    assert "secret" not in text
    assert "ann@example.com" in text
    assert "LABEL_STUDIO_PASSWORD in .env" in text


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A docker client that does as it is told; returns the command lines that it was given."""
    program, seen = tmp_path / "docker", tmp_path / "seen"

    def says(script):
        program.write_text(f'#!/bin/sh\necho "$*" >>{seen}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setattr(docker, "client", lambda: str(program))
        return lambda: seen.read_text().splitlines() if seen.exists() else []

    return says


def test_models_that_cannot_be_used_leave_the_running_backend_alone(client):
    ran = client("echo 'yolo: found no weights best.pt' >&2; exit 78")
    with pytest.raises(
        UserError, match=r"found no weights best\.pt\nnothing was changed: the running backend"
    ):
        up.start_services()
    (line,) = ran()
    assert line.endswith("run --rm --no-deps -T backend ls-yolo check")


def test_a_look_at_the_models_that_fails_is_no_pass(client):
    ran = client("echo 'no such image' >&2; exit 1")
    with pytest.raises(UserError, match=r"exit code 1.*\nno such image"):
        up.start_services()
    assert len(ran()) == 1


def test_services_start_once_the_models_are_fine(client):
    ran = client("exit 0")
    up.start_services()
    look, *_, up_ = ran()
    assert look.endswith("backend ls-yolo check")
    assert " up -d --wait" in up_


@pytest.fixture
def gpu_values(monkeypatch):
    values = {**settings.values({}, Path(os.devnull)), "GPU": "1"}
    monkeypatch.setattr(settings, "values", lambda *_: values)
    monkeypatch.setattr(up.cuda, "gpus", lambda: [("A GPU", "470.161.03", "7.5")])
    return values


def test_a_gpu_that_torch_cannot_use_is_no_silent_cpu(client, gpu_values):
    ran = client("case $* in *exec*) echo 'RuntimeError: no driver' >&2; exit 1;; esac")
    with pytest.raises(UserError) as caught:
        up.check_gpu()
    assert "exec -T backend python3 -c import torch" in ran()[-1]
    for said in ("RuntimeError: no driver", "found 470.161.03, expected 525", "GPU=0 in .env"):
        assert said in str(caught.value)


def test_a_gpu_that_torch_uses_is_fine(client, gpu_values):
    client("exit 0")
    up.check_gpu()


@pytest.mark.parametrize("chosen", [{"GPU": "0"}, {"DEVICE": "cpu"}])
def test_torch_is_not_asked_where_the_cpu_is_wanted(client, gpu_values, chosen):
    gpu_values |= chosen
    ran = client("exit 1")
    up.check_gpu()
    assert ran() == []


def test_a_setup_that_was_left_behind_ends_before_the_new_one(client):
    ran = client('case $* in "ps "*) echo abc; echo def;; esac')
    up.run_setup()
    look, remove, setup = ran()
    project = settings.values()["COMPOSE_PROJECT_NAME"]
    for label in (f"project={project}", "service=setup", "oneoff=True"):
        assert f"--filter label=com.docker.compose.{label}" in look
    assert remove == "rm --force abc def"
    assert setup.endswith("run --rm --no-deps -T setup")


def test_nothing_is_removed_where_nothing_was_left(client):
    ran = client("exit 0")
    up.run_setup()
    assert not any(line.startswith("rm ") for line in ran())


def test_a_token_that_is_not_taken_restarts_label_studio_once(client, tmp_path):
    ran = client(
        f"case $* in *' setup') [ -e {tmp_path}/t ] || {{ touch {tmp_path}/t; exit 77; }};; esac"
    )
    up.run_setup()
    steps = [line.split("compose.yaml ")[-1] for line in ran() if "compose.yaml " in line]
    assert [s.removeprefix("--ansi never ") for s in steps if " setup" in s or "restart" in s] == [
        "run --rm --no-deps -T setup", "restart label-studio", "run --rm --no-deps -T setup",
    ]  # fmt: skip


def test_the_lan_address_is_shown_where_there_is_one():
    values = {**VALUES, "LABEL_STUDIO_ADDRESS": "10.1.2.3", "BACKEND_ADDRESS": "10.1.2.4"}
    assert "10.1.2" not in up.summary(values)
    text = up.summary({**values, "MACVLAN": "1"})
    assert "http://10.1.2.3:8080" in text
    assert "http://10.1.2.4:9090" in text


def lan_network(parent):
    return {
        "Name": "ls-yolo_lan",
        "Options": {"parent": parent},
        "IPAM": {"Config": [{"Subnet": "192.168.103.0/24", "Gateway": "192.168.103.1"}]},
    }


@pytest.mark.parametrize(
    ("chosen", "removed"),
    [
        ({"MACVLAN": "1", "MACVLAN_PARENT": "eth0"}, False),
        ({"MACVLAN": "1", "MACVLAN_PARENT": "eth1"}, True),
        ({"MACVLAN": "1", "MACVLAN_PARENT": "eth0", "MACVLAN_GATEWAY": "192.168.103.254"}, True),
        ({"MACVLAN": "0"}, True),
    ],
)
def test_a_network_of_other_settings_makes_way(monkeypatch, client, chosen, removed):
    """Compose would go on with the old one, and say nothing."""
    values = {**settings.values({}, Path(os.devnull)), **chosen}
    monkeypatch.setattr(settings, "values", lambda *_: values)
    monkeypatch.setattr(up.macvlan, "networks", lambda: [lan_network("eth0")])
    ran = client("exit 0")
    up.remove_outdated_network()
    assert [line.split(" never ")[-1] for line in ran()] == (
        ["rm --stop --force label-studio backend", "network rm ls-yolo_lan"] if removed else []
    )


def test_postgres_is_waited_for_where_it_is_used(monkeypatch):
    values = settings.values({}, Path(os.devnull))
    monkeypatch.setattr(settings, "values", lambda *_: values)
    assert up.services() == ("label-studio", "backend")
    values["POSTGRES"] = "1"
    assert up.services() == ("postgres", "label-studio", "backend")
    listing = json.dumps({"Service": "label-studio", "State": "running", "Health": "healthy"})
    assert up.services_in_trouble(listing, up.services())["postgres"] == "missing"


def test_which_services_are_in_trouble():
    def line(service, state, health):
        return json.dumps({"Service": service, "State": state, "Health": health})

    good = line("label-studio", "running", "healthy")
    fine, starting = (line("backend", "running", health) for health in ("healthy", "starting"))
    assert up.services_in_trouble(f"{good}\n{fine}\n") == {}
    assert up.services_in_trouble(f"{good}\n{starting}") == {"backend": "starting"}
    assert up.services_in_trouble("") == {"label-studio": "missing", "backend": "missing"}
    killed = json.dumps({"Service": "backend", "State": "exited", "Health": "", "ExitCode": 137})
    assert "BACKEND_MEMORY" in up.services_in_trouble(f"{good}\n{killed}\n")["backend"]
    loop = json.dumps(
        {"Service": "backend", "State": "restarting", "Health": "starting", "ExitCode": 78}
    )
    assert up.services_in_trouble(loop)["backend"] == "keeps stopping, exit code 78"


def test_compose_is_called_the_same_from_anywhere(monkeypatch):
    monkeypatch.setattr(docker, "client", lambda: "/usr/bin/docker")
    words = compose.command("ps")
    assert words[:2] == ["/usr/bin/docker", "compose"]
    assert words[-1] == "ps"
    found = compose.environment({"A": "1"})
    assert found["A"] == "1"
    assert found["LS_YOLO_VERSION"] == versions.project_version()


def test_an_empty_setting_of_the_shell_does_not_hide_that_of_env():
    # To Compose, set but empty in the shell counts more than a value in .env.
    found = compose.environment({"DATASETS_DIR": "", "BASIC_AUTH_PASS": "", "OTHER": ""})
    assert "DATASETS_DIR" not in found
    assert found["BASIC_AUTH_PASS"] == found["OTHER"] == ""


def test_the_models_fingerprint_follows_weights_and_list_and_nothing_else(tmp_path):
    seen = [compose.models_fingerprint(tmp_path)]
    for name in ("models.yaml", "best.pt", "folder/other.pt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        seen.append(compose.models_fingerprint(tmp_path))
    os.utime(tmp_path / "best.pt", ns=(1, 1))
    seen.append(compose.models_fingerprint(tmp_path))
    assert len(set(seen)) == 5
    (tmp_path / "README.md").write_text("notes")
    assert compose.models_fingerprint(tmp_path) == seen[-1]


def test_only_a_class_of_ones_own_makes_the_backend_anew_when_models_change(tmp_path, monkeypatch):
    folder = str(tmp_path)
    values = {"MODELS_DIR": folder, "PROJECTS_DIR": folder, "MODEL_CLASS": "",
              "COMPOSE_PROJECT_NAME": "mine"}  # fmt: skip
    monkeypatch.setattr(settings, "values", lambda environ: values)
    assert compose.environment({})["MODELS_FINGERPRINT"] == ""
    values["MODEL_CLASS"] = "model:Model"
    assert compose.environment({})["MODELS_FINGERPRINT"] == compose.models_fingerprint(tmp_path)


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """The file with the secrets of projects, which is not there yet."""
    folder = str(tmp_path)
    values = {"MODELS_DIR": folder, "PROJECTS_DIR": folder, "MODEL_CLASS": "",
              "COMPOSE_PROJECT_NAME": "mine"}  # fmt: skip
    monkeypatch.setattr(settings, "values", lambda environ=None: values)
    return tmp_path / "secrets.env"


def test_secrets_of_projects_are_handed_over_as_they_are(secrets):
    assert compose.environment({}, secrets=True)["PROJECT_SECRETS"] == ""
    secrets.write_text("A=pa$$word${HOME}\nB='x'\n")
    assert compose.environment({}, secrets=True)["PROJECT_SECRETS"] == "A=pa$$word${HOME}\nB='x'\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"A=\xff", "it is not UTF-8"),
        (b"A=b\0c\n", "found a NUL byte"),
        (b"A=" + b"x" * 140_000, "found 140002 bytes, expected 102400 at most"),
    ],
    ids=["not UTF-8", "NUL", "too large"],
)
def test_secrets_that_cannot_be_handed_over_keep_only_what_starts_setup_from_its_work(
    secrets, content, words, monkeypatch
):
    secrets.write_bytes(content)
    monkeypatch.setattr(compose, "need_env", lambda: None)
    monkeypatch.setattr(compose, "down", lambda *words: ["/bin/true"])
    monkeypatch.setattr(compose, "command", lambda *words: ["/bin/true", *words])
    called = []
    monkeypatch.setattr(compose.os, "execve", lambda *words: called.append(words))
    for arguments in (["down"], ["ps", "--all"], ["logs", "backend"]):
        compose.main(arguments)
        subprocess.run(["/bin/true"], env=called[-1][2], check=True)  # Linux takes it
    assert len(called) == 3
    for arguments in (["run", "--rm", "setup"], ["--progress", "quiet", "up", "-d"], ["config"]):
        with pytest.raises(UserError, match=rf"secrets\.env: {words}"):
            compose.main(arguments)
    assert len(called) == 3


def test_a_service_that_stops_again_and_again_is_started_anew(monkeypatch):
    listing = "\n".join(
        json.dumps({"Service": service, "State": state})
        for service, state in (("label-studio", "running"), ("backend", "restarting"))
    )
    monkeypatch.setattr(compose, "output", lambda *words: listing)
    monkeypatch.setattr(up, "check_models", lambda: None)
    monkeypatch.setattr(up, "remove_outdated_network", lambda: None)
    ran = []
    monkeypatch.setattr(up, "compose_run", lambda *words: ran.append(words) or 0)
    up.start_services()
    assert ran[0] == ("rm", "--stop", "--force", "backend")
    assert ran[1][:2] == ("up", "-d")
