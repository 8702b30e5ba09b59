"""Tasks of the roles that need no host, played here, with a stand-in for what they call."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lib import ROOT

DOCKER = """#!/bin/sh
echo "$*" >>"$0.log"
test "$1 $2" != "image inspect"
"""


def play(tmp_path, tasks, inventory="localhost,", **variables):
    """What Ansible prints while it plays one file of ls_yolo's tasks on this machine.

    ``inventory``: of names for it, which may have variables of their own.
    """
    book = tmp_path / "play.yml"
    role = {"name": "ls_yolo", "tasks_from": tasks}
    book.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "tasks": [{"ansible.builtin.include_role": role}],
                }
            ]
        )
    )
    given = tmp_path / "given.yml"
    given.write_text(yaml.safe_dump({"ansible_python_interpreter": sys.executable, **variables}))
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "-c", "local",
         "-e", f"@{given}", book],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        },
    )  # fmt: skip


@pytest.fixture
def kit(tmp_path):
    """A folder with a kit's version, as the tasks of images need it."""
    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / "VERSION").write_text("1.2.3\n")
    return folder


def test_images_of_a_registry_get_the_kit_s_names(tmp_path, kit):
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    done = play(
        tmp_path,
        "images.yml",
        ls_yolo_dir=str(kit),
        ls_yolo_user=getpass.getuser(),
        ls_yolo_images="registry",
        ls_yolo_images_registry="registry.example.com/team",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = docker.with_name("docker.log").read_text().splitlines()
    tags = ["ls-yolo/label-studio:1.2.3", "ls-yolo/backend:1.2.3"]
    assert calls[-4:] == [
        *(f"pull --quiet registry.example.com/team/{tag}" for tag in tags),
        *(f"tag registry.example.com/team/{tag} {tag}" for tag in tags),
    ]


def test_a_folder_without_a_kit_s_list_is_somebody_else_s(tmp_path, kit):
    done = play(tmp_path, "kit-look.yml", ls_yolo_dir=str(kit))
    assert done.returncode == 2
    assert f"ls_yolo_dir: found VERSION in {kit}, which no playbook put there" in done.stdout


def test_only_listed_files_are_removed(tmp_path):
    for name in ("a/old.py", "a/__pycache__/old.pyc", "b/old.py", "b/mine.pt", "mine.txt"):
        (tmp_path / "kit" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kit" / name).touch()
    done = play(
        tmp_path,
        "kit-remove.yml",
        ls_yolo_dir=str(tmp_path / "kit"),
        ls_yolo_gone=["a/old.py", "b/old.py", "c/went by itself.py"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    left = sorted(str(path.relative_to(tmp_path / "kit")) for path in (tmp_path / "kit").rglob("*"))
    assert left == ["b", "b/mine.pt", "mine.txt"]


# One machine under the names of several hosts. docker ps names a backend after its Compose project;
# docker exec writes down how it was called and what the file of variables has, and ends as asked.
PRELABEL_DOCKER = """#!/bin/sh
here=$(dirname "$0")
case $1 in
ps) test -e "$here/nothing runs" || echo "${4##*=}" ;;
exec)
    test "$2" = --env-file; host=$here/$4
    cp "$3" "$host/env.seen"; stat -Lc %a "$3" >"$host/env.mode"
    ls "$host/run" >"$host/names"
    shift 3; echo "$*" >"$host/called"
    echo '{"done": 3, "total": 4}' >&2
    echo "Yard: 3 of 4 tasks predicted"
    exit "$(cat "$host/ends" 2>/dev/null || echo 0)" ;;
esac
"""
TOKEN = "of-the-tests-8d1f6c"
OPEN = {"BIND_ADDRESS": "0.0.0.0"}


@pytest.fixture
def hosts(tmp_path):
    """Plays prelabel.yml on hosts: ``hosts({"one": {"BIND_ADDRESS": "0.0.0.0"}}, **variables)``.

    Each has an ``.env`` of its own, and a folder in place of /run. Those of ``away`` are not
    reached.
    """
    (tmp_path / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "docker").write_text(PRELABEL_DOCKER)
    (tmp_path / "docker").chmod(0o755)

    def run(found, ends=(), away=(), **variables):
        for number, (name, env) in enumerate(found.items()):
            (tmp_path / name / "run").mkdir(parents=True, exist_ok=True)
            lines = {
                "COMPOSE_PROJECT_NAME": name, "LABEL_STUDIO_PORT": "8081", "MACVLAN": "false",
                "LABEL_STUDIO_API_KEY": f"{name}-own" if number else TOKEN, **env,
            }  # fmt: skip
            text = "".join(f"{key}={value}\n" for key, value in lines.items())
            (tmp_path / name / ".env").write_text(text)
        for name, code in dict(ends).items():
            (tmp_path / name / "ends").write_text(str(code))
        inventory = tmp_path / "hosts.yml"
        rows = {name: {"ansible_host": f"{name}.example"} for name in found}
        for name in away:
            rows[name]["ansible_connection"] = "ssh"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": rows}}, sort_keys=False))
        here = f"{tmp_path}/{{{{ inventory_hostname }}}}"
        return play(
            tmp_path, "prelabel.yml", str(inventory),
            ls_yolo_dir=here, ls_yolo_prelabel_folder=f"{here}/run", ls_yolo_prelabel_every=1,
            **{"ls_yolo_prelabel_project": "Ships of $(x)", **variables},
        )  # fmt: skip

    return run


def told(tmp_path, name):
    """The variables that a host's container was given."""
    lines = (tmp_path / name / "env.seen").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_hosts_share_a_project_s_tasks_and_store_in_the_first_one_s_label_studio(tmp_path, hosts):
    done = hosts({"one": OPEN, "two": {}, "three": {}}, ls_yolo_prelabel_options=["--model", "a b"])
    assert done.returncode == 0, done.stdout + done.stderr
    for number, name in enumerate(("one", "two", "three")):
        assert (tmp_path / name / "called").read_text().strip() == (
            f"{name} ls-yolo prelabel --here --shard {number}/3 --model a b -- Ships of $(x)"
        )
        assert told(tmp_path, name)["LABEL_STUDIO_API_KEY"] == TOKEN
        assert (tmp_path / name / "env.mode").read_text().strip() == "600"
        assert (tmp_path / name / "names").read_text().split() == ["ls-yolo-prelabel.lock"], (
            "the token is forgotten while it is predicted, so that no end of this leaves it"
        )
    assert told(tmp_path, "one")["LABEL_STUDIO_URL"] == "http://label-studio:8080"
    assert told(tmp_path, "two")["LABEL_STUDIO_URL"] == "http://one.example:8081"
    assert told(tmp_path, "two")["NO_PROXY"].split(",")[-1] == "one.example"
    assert TOKEN not in done.stdout + done.stderr
    assert done.stdout.count("3 of 4 tasks predicted") == 3


@pytest.mark.parametrize(
    ("first", "variables", "url"),
    [
        ({"BIND_ADDRESS": "192.0.2.7"}, {}, "http://192.0.2.7:8081"),
        ({"MACVLAN": "true", "LABEL_STUDIO_ADDRESS": "192.0.2.9"}, {}, "http://192.0.2.9:8080"),
        ({}, {"ls_yolo_label_studio_url": "https://labels.example",
              "ls_yolo_label_studio_api_key": "of-the-vault"}, "https://labels.example"),
    ],
)  # fmt: skip
def test_label_studio_is_found_where_the_first_host_has_it_or_where_it_is_said_to_be(
    tmp_path, hosts, first, variables, url
):
    done = hosts({"one": first, "two": {}}, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    found = told(tmp_path, "two")
    assert found["LABEL_STUDIO_URL"] == url
    token = variables.get("ls_yolo_label_studio_api_key", TOKEN)
    assert found["LABEL_STUDIO_API_KEY"] == token
    assert token not in done.stdout + done.stderr


def test_a_label_studio_on_loopback_is_refused_with_the_ways_out_before_anything_runs(
    tmp_path, hosts
):
    done = hosts({"one": {}, "two": {}})
    assert done.returncode == 2
    assert "Label Studio of one listens on its loopback alone" in done.stdout
    assert "BIND_ADDRESS" in done.stdout and "ls_yolo_label_studio_url" in done.stdout
    assert not (tmp_path / "two" / "called").exists()


def test_where_the_first_host_is_not_reached_no_other_takes_its_place(tmp_path, hosts):
    """Its own Label Studio would be the wrong one, and get predictions of all shards."""
    three = {"one": OPEN, "two": OPEN, "three": OPEN}
    done = hosts(three, away=["one"])
    assert done.returncode != 0
    assert "one, in whose Label Studio all hosts store, was not reached" in done.stdout
    assert "ls_yolo_label_studio_url" in done.stdout
    assert [name for name in three if (tmp_path / name / "called").exists()] == []


def test_a_host_that_is_not_reached_leaves_its_share_to_the_others(tmp_path, hosts):
    named = {"ls_yolo_label_studio_url": "https://labels.example",
             "ls_yolo_label_studio_api_key": "of-the-vault"}  # fmt: skip
    for away, variables in (("one", named), ("two", {})):
        hosts({"one": OPEN, "two": {}, "three": {}}, away=[away], **variables)
        assert not (tmp_path / away / "called").exists()
        there = "two" if away == "one" else "one"
        assert "--shard 0/2 " in (tmp_path / there / "called").read_text()
        assert "--shard 1/2 " in (tmp_path / "three" / "called").read_text()
        (tmp_path / there / "called").unlink()
    assert told(tmp_path, "three")["LABEL_STUDIO_URL"] == "http://one.example:8081"


def test_a_host_that_fails_is_named_with_its_words_and_the_others_go_on(tmp_path, hosts):
    done = hosts({"one": OPEN, "two": {}, "three": {}}, ends={"two": 1})
    assert done.returncode == 2
    assert "shard 1/3 ended with exit code 1: Yard: 3 of 4 tasks predicted" in done.stdout
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    assert [line.split()[0] for line in recap.splitlines() if "failed=1" in line] == ["two"]
    assert not list((tmp_path / "two" / "run").glob("*.env")), "the token is forgotten all the same"


def test_without_a_backend_that_runs_the_way_to_one_is_named(tmp_path, hosts):
    (tmp_path / "nothing runs").touch()
    done = hosts({"one": {}})
    assert done.returncode == 2
    assert "found no backend that runs on one" in done.stdout


def test_without_a_project_nothing_is_predicted(hosts):
    done = hosts({"one": {}}, ls_yolo_prelabel_project="")
    assert done.returncode == 2
    assert "expected the title or number of a project" in done.stdout
