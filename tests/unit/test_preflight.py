"""The checks that come before anything is changed."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

import preflight
from host import configuration, docker_engine, ports, system
from host.checks import INSTALLABLE, OK, STOP, WARNING, Check
from host.docker_engine import Engine
from host.ports import PortUse, check_ports
from lib import ROOT, net, settings, versions
from lib.cli import UserError

FINE = Engine("answers", "26.1.5+dfsg1", "/usr/bin/docker", "2.26.1", "0.13.1", "/var/lib/docker")
NONE = Engine("missing")


def engine_states(engine, installable=True):
    checks = docker_engine.check_engine(engine, versions.minimums(), installable, "ann")
    return {check.name: check for check in checks}


def test_an_engine_that_is_fine():
    assert {check.state for check in engine_states(FINE).values()} == {OK}


def test_what_is_missing_can_be_installed_on_debian_and_is_a_persons_matter_elsewhere():
    assert {check.state for check in engine_states(NONE).values()} == {INSTALLABLE}
    by_hand = engine_states(NONE, installable=False)
    assert {check.state for check in by_hand.values()} == {STOP}
    assert docker_engine.DOCS in by_hand["engine"].cure


def test_an_engine_that_may_not_be_used_has_its_own_cure():
    denied = engine_states(Engine("denied", "26.1.5", "/usr/bin/docker", "2.26.1", "0.13.1"))
    assert denied["engine"].state == STOP
    assert "usermod -aG docker ann" in denied["engine"].cure


def test_an_engine_that_does_not_run_is_started():
    stopped = engine_states(Engine("stopped", "", "/usr/bin/docker", "2.26.1", "0.13.1"))
    assert stopped["engine"].state == INSTALLABLE
    assert "started" in stopped["engine"].cure


def test_an_old_engine_is_left_alone():
    old = Engine("answers", "20.10.24+dfsg1", "/usr/bin/docker", "2.26.1", "0.13.1")
    check = engine_states(old)["engine"]
    assert (check.state, check.found, check.needed) == (STOP, "20.10.24+dfsg1", "26.1")
    assert old.too_old(versions.minimums()) == ("engine",)


def test_an_engine_elsewhere_is_not_replaced_by_one_here():
    there = Engine("unreachable", detail="tcp://gpu:2375", client="/usr/bin/docker")
    assert "DOCKER_HOST=tcp://gpu:2375" in engine_states(there)["engine"].found
    assert engine_states(there)["engine"].state == STOP


def test_only_the_plugins_are_missing():
    states = engine_states(Engine("answers", "26.1.5", "/usr/bin/docker"))
    assert states["engine"].state == OK
    assert states["compose"].state == states["buildx"].state == INSTALLABLE


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker Compose version v2.40.3", "2.40.3"),
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", "0.13.1"),
        (None, ""),
        ("no number", ""),
    ],
)
def test_plain_version(text, version):
    assert docker_engine.plain_version(text) == version


def test_the_folder_of_an_engine_that_does_not_run(tmp_path):
    config = tmp_path / "daemon.json"
    assert docker_engine.data_root_of(config) == "/var/lib/docker"
    config.write_text('{"data-root": "/big"}')
    assert docker_engine.data_root_of(config) == "/big"
    config.write_text("{broken")
    assert docker_engine.data_root_of(config) == "/var/lib/docker"


def test_a_socket_that_nobody_serves(tmp_path):
    assert docker_engine.ask_socket(str(tmp_path / "none.sock")) == ("stopped", "")


# System


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('ID=debian\nVERSION_CODENAME="bookworm"', "debian"),
        ("ID=ubuntu\nID_LIKE=debian", "ubuntu"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"', "ubuntu"),
        ("ID=raspbian\nID_LIKE=debian", "debian"),
        ('ID="fedora"', ""),
        ("", ""),
    ],
)
def test_family(text, family):
    assert system.family(system.parse_os_release(text)) == family


def test_system():
    debian = {"ID": "debian", "PRETTY_NAME": "Debian 13"}
    assert system.check_os(debian, "x86_64").state == OK
    assert system.check_os({"ID": "fedora"}, "x86_64").state == WARNING
    assert system.check_os(debian, "aarch64").state == STOP
    assert "lock files" in system.check_os(debian, "aarch64").cure


def test_python():
    assert system.check_python((3, 11, 2), "3.11").state == OK
    assert system.check_python((3, 9, 2), "3.11").state == STOP


# Disk and memory

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    """Sets how many GB are free everywhere."""

    def set_free(gb):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(gb * 10**9)))

    return set_free


def needs(built=(), cpu=False, install=False):
    return system.disk_needs(
        versions.minimums(), Path("/var/lib/docker"), built, cpu, install, Path("/")
    )


def test_less_disk_is_needed_once_the_images_are_there():
    total = {
        "first": sum(need.gb for need in needs()),
        "cpu": sum(need.gb for need in needs(cpu=True)),
        "one": sum(need.gb for need in needs(["label-studio"])),
        "both": sum(need.gb for need in needs(["label-studio", "backend"])),
    }
    assert total["both"] < 2 < total["cpu"] < total["one"] < total["first"]


@pytest.mark.parametrize(
    ("index", "written", "gpus", "answers", "expected"),
    [
        ("", {}, [], True, True),  # the first run: as .env is going to say
        ("", {}, [], False, False),
        ("", {}, ["A100"], True, False),
        ("", {"TORCH_INDEX": ""}, [], True, False),  # chosen so
        (net.CPU_TORCH_INDEX + "/", {}, ["A100"], False, True),
    ],
)
def test_disk_is_counted_for_the_torch_that_will_be_used(
    monkeypatch, index, written, gpus, answers, expected
):
    preflight.env.cpu_index_answers.cache_clear()
    monkeypatch.setattr(net, "answers", lambda *_, **__: answers)
    assert preflight.without_cuda({"TORCH_INDEX": index}, written, gpus) is expected


def test_an_engine_to_be_installed_needs_disk_too():
    assert sum(need.gb for need in needs(install=True)) > sum(need.gb for need in needs())


def test_two_gb_left_are_one_clear_message(free, tmp_path):
    free(2)
    (check,) = system.check_disk([system.Need(tmp_path, 5, "a"), system.Need(tmp_path, 1, "b")])
    assert check.state == STOP
    assert check.found == f"2.0 GB free at {tmp_path}"
    assert check.needed == "6 GB: 5 a, 1 b"
    assert "Free 4.0 GB" in check.cure


def test_what_is_not_there_yet_counts_where_it_will_be(free, tmp_path):
    free(10)
    (check,) = system.check_disk([system.Need(tmp_path / "not" / "yet", 5, "a")])
    assert check.state == OK


def test_without_a_gpu_the_smaller_torch_is_proposed(free, tmp_path):
    free(2)
    need = system.Need(tmp_path, 15, "the backend's image")
    assert net.CPU_TORCH_INDEX in system.check_disk([need], 9)[0].cure
    assert net.CPU_TORCH_INDEX not in system.check_disk([need])[0].cure


def test_memory():
    assert system.memory_gb("MemTotal:  4000000 kB\nMemFree: 1 kB\n") == pytest.approx(4.096)
    assert system.check_memory(3.9, 4).state == OK  # sold as 4 GB
    assert system.check_memory(2.0, 4).state == WARNING


# Ports

LISTING = (
    "ls-yolo-label-studio-1\t127.0.0.1:8080->8080/tcp\n"
    "range\t0.0.0.0:9000-9010->9000-9010/tcp, [::]:9000-9010->9000-9010/tcp\n"
    "inside\t5432/tcp\nnothing\t\n"
)


@pytest.mark.parametrize(
    ("port", "name"),
    [(8080, "ls-yolo-label-studio-1"), (9005, "range"), (9011, ""), (5432, ""), (808, "")],
)
def test_which_container_publishes_a_port(port, name):
    assert ports.published(LISTING, port) == name


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_is_taken_says_by_whom(taken):
    use = ports.look_at_port("127.0.0.1", taken, "", "")
    assert use.state == "taken"
    assert f"(process {os.getpid()})" in use.who
    assert ports.look_at_port("0.0.0.0", taken, "", "").state == "taken"


def test_a_port_that_is_free(taken):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    assert ports.look_at_port("127.0.0.1", port, "", "") == PortUse("free")


def test_our_own_containers_may_hold_their_ports(taken):
    ours = f"ls-yolo-backend-1\t127.0.0.1:{taken}->9090/tcp\n"
    assert ports.look_at_port("127.0.0.1", taken, ours, ours) == PortUse("ours")
    other = f"web\t127.0.0.1:{taken}->80/tcp\n"
    assert ports.look_at_port("127.0.0.1", taken, "", other) == PortUse("taken", "container web")


def test_a_low_port_is_the_engines_matter(monkeypatch):
    denied = OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(ports, "try_bind", lambda _, port: denied if port else None)
    assert ports.look_at_port("127.0.0.1", 80, "", "") == PortUse("free")


def test_an_address_that_this_host_has_not():
    use = ports.look_at_port("192.0.2.1", 8080, "", "")
    assert use.state == "bad"
    check = ports.check_port("LABEL_STUDIO_PORT", "192.0.2.1", 8080, use, 8081)
    assert check.state == STOP
    assert "BIND_ADDRESS" in check.cure


def test_our_own_container_elsewhere_is_no_pass_for_such_an_address():
    ours = "ls-yolo-label-studio-1\t127.0.0.1:8080->8080/tcp\n"
    assert ports.look_at_port("192.0.2.1", 8080, ours, ours).state == "bad"


def test_a_kind_of_address_that_this_host_lacks(monkeypatch):
    def no_such_kind(*_):
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", no_such_kind)
    use = ports.look_at_port("::1", 8080, "", "")
    assert use == PortUse("bad", "Address family not supported by protocol")


def test_the_cure_names_a_port_that_works():
    check = ports.check_port("BACKEND_PORT", "127.0.0.1", 9090, PortUse("taken", "nginx"), 9091)
    assert check.found == "taken by nginx"
    assert "make up BACKEND_PORT=9091" in check.cure


@pytest.mark.parametrize("text", ["0", "65536", "abc", "-1", "8080x", "\uff18"])
def test_a_port_is_a_number(text):
    assert ports.parse_port(text) == 0
    assert ports.parse_port(" 8080 ") == 8080


def test_one_port_cannot_serve_both(taken):
    values = {
        "BIND_ADDRESS": "127.0.0.1",
        "COMPOSE_PROJECT_NAME": "ls-yolo",
        "LABEL_STUDIO_PORT": "8080",
        "BACKEND_PORT": "8080",
    }
    assert check_ports(values, NONE)[1].state == STOP


# Settings and folders

AUTH = {"BASIC_AUTH_USER": "ann", "BASIC_AUTH_PASS": "secret"}


def answer(code, out="", err=""):
    return lambda _: (code, out, err)


def test_settings_that_can_be_used_are_one_line():
    (check,) = configuration.check_settings(AUTH, answer(0))
    assert check.state == OK


def test_each_setting_that_cannot_be_used_stops_with_its_own_line():
    lines = "BACKEND_MEMORY: found 'lots', expected a size such as 6g\nDEVICE: is odd\n"
    checks = configuration.check_settings(AUTH, answer(78, lines))
    assert [(c.name, c.found, c.needed, c.state) for c in checks] == [
        ("BACKEND_MEMORY", "'lots'", "a size such as 6g", STOP),
        ("DEVICE", "is odd", "", STOP),
    ]
    assert checks[0].cure.startswith("Expected a size such as 6g. Correct it in .env")


def test_a_look_at_the_settings_that_fails_is_no_pass():
    with pytest.raises(UserError, match="no such module"):
        configuration.check_settings(AUTH, answer(1, err="no such module"))


@pytest.mark.parametrize(
    ("user", "password", "state"),
    [("ann", "secret", OK), ("", "", OK), ("ann", "", OK), ("", "secret", STOP)],
)
def test_a_password_of_the_backend_needs_a_user(user, password, state):
    values = {"BASIC_AUTH_USER": user, "BASIC_AUTH_PASS": password}
    assert configuration.check_settings(values, answer(0))[0].state == state


def test_what_env_will_have_is_looked_at():
    values = settings.values({}, Path("/none"))
    seen = configuration.to_look_at({**values, "WORKERS": "4"}, settings.declared(), given=())
    assert len(seen["LABEL_STUDIO_API_KEY"]) == 40  # is generated
    assert seen["WORKERS"] == "1"  # fixed by Compose, whatever the shell says
    given = configuration.to_look_at(values, settings.declared(), given=("BASIC_AUTH_PASS",))
    assert given["BASIC_AUTH_PASS"] == ""


def test_the_backend_itself_looks_at_the_settings():
    values = configuration.to_look_at(settings.values({}, Path("/none")), settings.declared(), ())
    assert [check.state for check in configuration.check_settings(values)] == [OK]
    checks = configuration.check_settings({**values, "LABEL_STUDIO_PORT": "99999"})
    assert [(check.name, check.state) for check in checks] == [("LABEL_STUDIO_PORT", STOP)]


@pytest.mark.parametrize(
    ("name", "found", "cure"),
    [
        ("LABELSTUDIO_PORT", "is no setting", "Did you mean LABEL_STUDIO_PORT?"),
        ("label_studio_port", "is no setting", "Did you mean LABEL_STUDIO_PORT?"),
        ("SECRET_KEY_X", "is no setting", "docs/settings.md"),
        ("WORKERS", "has no effect", "Compose sets it"),
    ],
)
def test_a_name_in_env_that_changes_nothing_is_a_warning(name, found, cure):
    (check,) = configuration.check_names([name], settings.declared())
    assert (check.name, check.state) == (name, WARNING)
    assert check.found.startswith(found)
    assert cure in check.cure


def test_names_in_env_that_mean_something():
    names = [s["name"] for s in settings.declared() if not s["fixed"]]
    others = [
        "COMPOSE_PARALLEL_LIMIT",
        "DOCKER_HOST",
        "http_proxy",
        "NO_PROXY",
        "BUILDKIT_PROGRESS",
    ]
    assert configuration.check_names([*names, *others], settings.declared()) == []


def test_folders_of_a_persons_own_lack_what_makes_them_work(tmp_path):
    values = {
        "MODELS_DIR": str(tmp_path), "PROJECTS_DIR": str(tmp_path / "none"), "MODEL_CLASS": "",
    }  # fmt: skip
    models, projects = configuration.check_folders(values)
    assert (models.state, projects.state) == (STOP, STOP)
    assert models.found == f"no models.yaml in {tmp_path}"
    assert f"Write {tmp_path}/models.yaml" in models.cure
    assert "my-model:\n        weights: best.pt" in models.cure
    assert projects.found == f"no folder {tmp_path / 'none'}"
    gone = configuration.check_folders({**values, "MODELS_DIR": str(tmp_path / "none")})
    assert gone[0].found == f"no folder {tmp_path / 'none'}"


def test_folders_that_are_fine(tmp_path):
    (tmp_path / "models.yaml").touch()
    values = {"MODELS_DIR": str(tmp_path), "PROJECTS_DIR": str(tmp_path), "MODEL_CLASS": ""}
    assert [check.state for check in configuration.check_folders(values)] == [OK, OK]


def test_a_class_of_ones_own_needs_no_models_yaml(tmp_path):
    values = {"MODELS_DIR": str(tmp_path), "PROJECTS_DIR": str(tmp_path), "MODEL_CLASS": "m:Own"}
    assert [check.state for check in configuration.check_folders(values)] == [OK, OK]
    gone, _ = configuration.check_folders({**values, "MODELS_DIR": str(tmp_path / "none")})
    assert gone.state == STOP


def test_a_value_that_compose_would_fill_in_is_refused_with_the_way_out():
    (check,) = configuration.check_references(["DATASETS_DIR"])
    assert (check.name, check.state) == ("DATASETS_DIR", STOP)
    assert "'...'" in check.cure


# The whole


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([OK, WARNING], 0),
        ([OK, INSTALLABLE], 3),
        ([INSTALLABLE, STOP], 1),  # a person comes first: nothing is installed
    ],
)
def test_exit_codes(states, code):
    assert preflight.exit_code([Check("x", "y", "z", state) for state in states]) == code


def test_the_table_and_the_verdict_say_what_to_do():
    checks = [
        Check("compose", "none", "2.26.1", INSTALLABLE, "It is installed"),
        Check("disk", "2 GB", "20 GB", STOP, "Free 18 GB"),
    ]
    assert "-> It is installed" in preflight.table(checks)
    assert "disk: 2 GB. Free 18 GB" in preflight.verdict(checks)
    assert "compose" not in preflight.verdict(checks)


def test_a_taken_port_stops_the_script_and_nothing_is_written(taken, tmp_path):
    before = sorted(ROOT.iterdir())
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "preflight.py"],
        env={**os.environ, "LABEL_STUDIO_PORT": str(taken)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"port {taken}: taken by" in done.stderr
    assert sorted(ROOT.iterdir()) == before


def test_an_engine_whose_client_is_missing_is_a_matter_of_the_installation(monkeypatch):
    """It answers at its socket; what else is to be asked of it waits for the client."""
    engine = Engine("answers", version="28.5.2", root="/")
    monkeypatch.setattr(docker_engine, "find_engine", lambda: engine)
    found = {check.name: check for check in preflight.all_checks(ports=False)}
    assert found["docker client"].found == "none"
    assert found["engine"].state == OK


def test_another_system_than_linux_is_told_so_and_no_more(monkeypatch, capsys):
    def no_proc(path, *_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(system, "os_release", dict)
    monkeypatch.setattr(Path, "read_text", no_proc)
    assert preflight.main() == 1
    assert "system: Darwin, " in (said := capsys.readouterr().err)
    assert "use such a machine" in said
