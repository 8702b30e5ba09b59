"""`make doctor` on the host: lines, exit codes, and what only the host sees."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

import compose
import doctor
import up
from doctor import FAILED, OK, WARNING, Line
from host import checks
from host.checks import Check
from lib import ROOT, settings, versions
from lib.cli import UserError
from ls_yolo.doctor.base import COMPLETE


def row(service, state="running", health="healthy", image="", code=0):
    image = image or f"ls-yolo/{service}:{versions.project_version()}"
    found = {"Service": service, "State": state, "Health": health, "ExitCode": code, "Image": image}
    return json.dumps(found)


@pytest.fixture
def listing(monkeypatch):
    """What Compose says runs."""
    told = []
    monkeypatch.setattr(compose, "need_env", lambda: None)
    monkeypatch.setattr(compose, "output", lambda *words: "\n".join(told))
    monkeypatch.setattr(up, "services", lambda: up.SERVICES)
    return told


@pytest.mark.parametrize(
    ("fault", "level", "says"),
    [
        (row("backend", health="unhealthy"), FAILED, "unhealthy"),
        (row("backend", "restarting", "", code=3), FAILED, "keeps stopping, exit code 3"),
        (row("backend", "exited", "", code=137), FAILED, "more memory than BACKEND_MEMORY"),
        ("", FAILED, "missing"),
        (row("backend", image="ls-yolo/backend:0.0.9"), WARNING, "runs ls-yolo/backend:0.0.9"),
    ],
)
def test_a_service_that_is_not_as_it_should_be_is_told(listing, fault, level, says):
    listing[:] = [row("label-studio"), fault]
    told = [line for line in doctor.containers() if line.level != OK]
    assert [(line.level, line.subject) for line in told] == [(level, "backend")]
    assert says in told[0].found and told[0].fix
    listing[:] = [row("label-studio"), row("backend")]
    assert [line.level for line in doctor.containers()] == [OK]


def test_checks_of_pre_flight_become_lines_with_their_fix():
    lines = list(doctor.told([
        Check("python", "3.13", "3.11"),
        Check("memory", "2 GB", "4 GB", checks.WARNING, "Add memory"),
        Check("disk", "1 GB", "9 GB", checks.STOP, "Free 8 GB"),
        Check("engine", "none", "26.1", checks.INSTALLABLE),
    ]))  # fmt: skip
    assert list(map(str, lines)) == [
        "ok   python: 3.13",
        "warn memory: 2 GB, expected 4 GB; Add memory",
        "FAIL disk: 1 GB, expected 9 GB; Free 8 GB",
        "FAIL engine: none, expected 26.1; or make up, which installs it",
    ]


def test_a_check_that_crashes_is_a_line_and_the_others_go_on(monkeypatch, capsys):
    def crash():
        yield Line("first", OK, "fine")
        raise ZeroDivisionError("by zero")

    def refuse():
        raise UserError("found no .env")
        yield

    looks = {"crash": crash, "refuse": refuse, "last": lambda: iter([Line("last", OK, "fine")])}
    monkeypatch.setattr(doctor, "HOST", looks)
    monkeypatch.setattr(
        doctor, "inside", lambda project, only: iter([Line("in", WARNING, "so so")])
    )
    monkeypatch.setattr(doctor.docker, "client", lambda: "docker")
    assert doctor.main([]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "ok   first: fine",
        "FAIL crash: the check itself failed: ZeroDivisionError: by zero",
        "FAIL refuse: found no .env",
        "ok   last: fine",
        "warn in: so so",
    ]
    del looks["crash"], looks["refuse"]
    assert doctor.main(["--json"]) == 1
    assert [json.loads(line)["level"] for line in capsys.readouterr().out.splitlines()] == [
        "ok", "warning",
    ]  # fmt: skip


# As an unbuffered Python prints: the end of a line comes by itself, after what another pipe has.
PRINTS = """
import sys
sys.stdout.write(sys.argv[2])
sys.stdout.flush()
print(sys.argv[3], file=sys.stderr, flush=True)
sys.stdout.write("\\n")
sys.exit(int(sys.argv[1]))
"""


def run_inside(monkeypatch, printed="", said="", code=0, there="a-container"):
    """Lines of the look from inside where a container prints and says that, and the words that ran
    it.
    """
    ran = []

    def command(*words):
        ran.append(words)
        return [sys.executable, "-c", PRINTS, str(code), printed, said]

    monkeypatch.setattr(compose, "command", command)
    monkeypatch.setattr(compose, "output", lambda *words: there)
    monkeypatch.setattr(compose, "environment", lambda **more: {"PATH": "/bin"})
    return list(doctor.inside("ship", ["labels"])), ran


FOUND = json.dumps({"check": "in", "level": "warning", "found": "so so", "fix": "", "subject": ""})


def test_a_look_from_inside_that_crashes_after_a_warning_is_red(monkeypatch):
    lines, _ = run_inside(monkeypatch, FOUND, "MemoryError", code=1)
    assert [line.level for line in lines] == [WARNING, FAILED]
    assert "did not come to its end: MemoryError" in lines[1].found
    lines, ran = run_inside(monkeypatch, FOUND, COMPLETE, code=1)
    assert [line.level for line in lines] == [WARNING]
    assert ran[0][-4:] == ("--project", "ship", "--only", "labels")


def test_where_no_container_is_there_none_is_run_which_would_make_networks(monkeypatch):
    lines, ran = run_inside(monkeypatch, there="")
    assert [line.level for line in lines] == [doctor.SKIPPED]
    assert ran == []


def test_checks_of_the_host_and_those_from_inside_can_be_asked_for_alone(monkeypatch, capsys):
    asked = []
    looks = {"LAN": lambda: iter([Line("LAN", OK, "fine")]),
             "disk": lambda: iter([Line("disk", OK, "fine")])}  # fmt: skip
    monkeypatch.setattr(doctor, "HOST", looks)
    monkeypatch.setattr(doctor.docker, "client", lambda: "docker")
    monkeypatch.setattr(doctor, "inside", lambda project, only: asked.append(only) or iter([]))
    for name in ("LAN", "disk", "labels"):
        assert doctor.main(["--only", name]) == 0
    assert capsys.readouterr().out.splitlines() == ["ok   LAN: fine", "ok   disk: fine"]
    assert asked == [["disk"], ["labels"]]


@pytest.mark.parametrize(("says", "level"), [("yes", OK), ("no", WARNING), (None, "skipped")])
def test_a_clock_that_nobody_sets_is_warned_of(monkeypatch, tmp_path, says, level):
    if says:
        program = tmp_path / "timedatectl"
        program.write_text(f"#!/bin/sh\necho {says}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if says else str(tmp_path))
    (line,) = doctor.clock_line()
    assert line.level == level


def test_lan_addresses_that_this_host_does_not_reach_are_warned_of_with_the_shim(monkeypatch):
    usual = settings.values({})
    there = {**usual, "MACVLAN": "1", "LABEL_STUDIO_ADDRESS": "127.0.9.1",
             "BACKEND_ADDRESS": "127.0.9.2"}  # fmt: skip
    monkeypatch.setattr(doctor.macvlan, "checks", lambda values, answers: [])
    monkeypatch.setattr(settings, "values", lambda: there)
    assert [line.level for line in doctor.lan_lines()] == [WARNING, WARNING]
    assert "shim" in next(doctor.lan_lines()).fix
    with (
        socket.create_server(("127.0.9.1", 8080)),
        socket.create_server(("127.0.9.2", 9090)),
    ):
        assert [line.level for line in doctor.lan_lines()] == [OK, OK]


def test_a_port_where_another_program_listens_is_red_and_one_of_ours_is_green(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        values = {**settings.values({}), "LABEL_STUDIO_PORT": str(port), "BACKEND_PORT": "0"}
        monkeypatch.setattr(settings, "values", lambda: values)
        engine = doctor.docker_engine.Engine("stopped")
        monkeypatch.setattr(doctor.docker_engine, "find_engine", lambda: engine)
        (line,) = doctor.port_lines()
        assert (line.level, line.found[:5]) == (FAILED, "taken")
    (line,) = doctor.port_lines()
    assert (line.level, line.found) == (WARNING, "nobody listens there")


def test_a_gpu_that_is_there_and_not_asked_for_is_warned_of(monkeypatch):
    values = {**settings.values({}), "GPU": "0"}
    monkeypatch.setattr(settings, "values", lambda: values)
    monkeypatch.setattr(doctor.gpu, "gpus", lambda: ["NVIDIA L4"])
    monkeypatch.setattr(doctor.cuda, "gpus", list)
    assert [str(line) for line in doctor.gpu_lines()] == [
        "warn GPU: NVIDIA L4 is there and not used; make up GPU=1"
    ]
    monkeypatch.setattr(doctor.gpu, "gpus", list)
    assert [line.level for line in doctor.gpu_lines()] == [OK]


def test_where_nothing_is_set_up_every_line_says_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "scripts/doctor.py", "--json"], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": str(tmp_path), "LS_YOLO_ENV_FILE": str(tmp_path / ".env"),
             "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2, done.stderr
    assert {"containers", "address"} <= {line["check"] for line in lines}
    assert not [line for line in lines if "itself failed" in line["found"]], done.stdout
    assert not done.stderr
