"""The chart's own backups, and releases that become what one holds, also one of Docker Compose.

One release of Postgres; in this order, each going on from where the one before it has stopped.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
import yaml

from cluster import kubernetes
from lib import ROOT, archive, backups, versions
from release import CHART, until
from team import MAKE_TOKEN, SECOND, Team

pytestmark = pytest.mark.kubernetes
PASSPHRASE = "of the tests, and long enough"
KEPT = "/data/state.json"
# What Docker Compose makes, by the same image and without a dump: SQLite, and settings of its own.
OF_COMPOSE = """
set -e
python -m ls_kit.entrypoint prepare
python -c "
import pathlib
from ls_kit import entrypoint
entrypoint.set_up_django()
from organizations.models import Organization
from projects.models import Project
Project.objects.create(title='of Compose', organization=Organization.objects.get())
pathlib.Path('/elsewhere/data/media/mine.txt').write_text('a file')
"
python -m ls_kit.backup --project compose --kit 0.1.0 --to /elsewhere/backups \
    --volume label-studio=/elsewhere/data
"""
LOGIN = {
    "LABEL_STUDIO_USERNAME": "admin@example.com",
    "LABEL_STUDIO_PASSWORD": "of-compose-91cf",
    "LABEL_STUDIO_API_KEY": "89abcdef0123456789abcdef0123456789abcdef",
    "SECRET_KEY": "of-compose-and-long-enough-for-django-5a0e",
}


@pytest.fixture(scope="class")
def passphrase(tmp_path_factory):
    file = tmp_path_factory.mktemp("passphrase") / "file"
    file.write_text(f"{PASSPHRASE}\n")
    return file


@pytest.fixture(scope="class")
def release(make):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "backup"},
              "stringData": {"passphrase": PASSPHRASE}}  # fmt: skip
    made = make(["backup"], claims={"elsewhere": {}}, objects=[secret])
    made.install()
    return made


@pytest.fixture(scope="class")
def before():
    """What there was at the beginning, for the later tests to find again."""
    return {}


def team(release, token=""):
    return Team(release.url, token or release.secret()["LABEL_STUDIO_API_KEY"])


def titles(release):
    return {one["title"] for one in team(release).get("/api/projects/")["results"]}


def inside(release, component, code):
    (pod, *_) = release.ready(component)
    program = "python" if component == "label-studio" else "python3"
    return release.kubectl("exec", pod["metadata"]["name"], "-c", component, "--", program, "-c",
                           code)  # fmt: skip


def backed_up(release, name):
    """Runs the CronJob now; the name of the archive that it has made."""
    release.kubectl("create", "job", name, "--from=cronjob/ls-yolo-backup")
    release.kubectl("wait", f"job/{name}", "--for=condition=Complete", "--timeout=120s")
    said = release.kubectl("logs", f"job/{name}", "-c", "backup")
    return re.search(r"/backups/(\S+): whole", said)[1]


def command(release, script, *words):
    program = str(ROOT / "scripts" / f"{script}.py")
    return [sys.executable, program, "--namespace", release.namespace, *map(str, words)]


def run(release, script, *words):
    return subprocess.run(
        command(release, script, *words), cwd=ROOT, capture_output=True, text=True, timeout=600
    )


def done(release, script, *words):
    result = run(release, script, *words)
    assert result.returncode == 0, result.stdout + result.stderr + release.story()
    return result.stdout


def is_half_done(release):
    return "ls-yolo-restore" in release.kubectl("get", "secrets", "-o", "name")


def verified(file, *words):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "backup.py"), "verify", str(file), *words],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def content(file):
    """What an archive says of itself, and the names in it."""
    with archive.reading(file) as reader:
        names = [f"{part}/{name}" for part, name, _, _ in reader.members()]
        return reader.about, names


class TestBackup:
    def test_the_cronjob_makes_an_archive_while_people_work(self, release, before, demo_files):
        _, before["upload"] = team(release).begin(demo_files["bus.jpg"].read_bytes())
        before["second"] = inside(release, "label-studio", MAKE_TOKEN).split()[-1]
        inside(release, "backend", f"open('{KEPT}', 'w').write('what a model.py keeps')")
        before["secret"] = release.secret()
        before["archive"] = backed_up(release, "first")
        assert before["archive"].endswith(".tar.gz.gpg")

    def test_one_is_made_before_each_upgrade_and_as_many_stay_as_are_wanted(self, release, before):
        release.install()
        # Setup has predicted what was uploaded.
        before["work"] = team(release).work(before["upload"])
        assert (len(before["work"].tasks), len(before["work"].predictions)) == (3, 3)
        first, before["archive"] = before["archive"], backed_up(release, "second")
        gone = run(release, "helm_restore", first)
        assert gone.returncode == 1
        assert "found no file" in gone.stderr
        assert gone.stderr.count(".tar.gz.gpg") == 3, "the one asked for, and two that are there"

    def test_what_has_projects_is_replaced_only_by_force(
        self, release, before, passphrase, tmp_path
    ):
        refused = run(release, "helm_restore", before["archive"], "--to", tmp_path,
                      "--passphrase-file", passphrase)  # fmt: skip
        assert refused.returncode == 1
        assert "1 projects already" in refused.stderr and "FORCE=1" in refused.stderr
        before["file"] = tmp_path / before["archive"]
        assert "whole" in verified(before["file"], "--passphrase-file", str(passphrase))

    def test_one_that_is_cut_off_changes_nothing(self, release, before, passphrase, tmp_path):
        whole = before["file"].read_bytes()
        cut = tmp_path / before["archive"]
        cut.write_bytes(whole[: len(whole) * 9 // 10])
        refused = run(release, "helm_restore", cut, "--force", "--to", tmp_path / "of-before",
                      "--passphrase-file", passphrase)  # fmt: skip
        assert refused.returncode == 1, refused.stdout
        assert not is_half_done(release)
        assert team(release).work(before["upload"]) == before["work"]

    def test_it_comes_back_on_a_release_that_never_saw_it(
        self, release, before, passphrase, tmp_path
    ):
        release.uninstall()
        release.kubectl("delete", "pvc", "ls-yolo-label-studio", "ls-yolo-postgres",
                        "ls-yolo-backend", "--timeout=120s")  # fmt: skip
        release.kubectl("delete", "secret", "ls-yolo", "ls-yolo-postgres")
        release.install()
        assert release.secret() != before["secret"]
        words = command(release, "helm_restore", before["file"], "--force", "--to", tmp_path,
                        "--passphrase-file", passphrase)  # fmt: skip
        # Killed with half of it in its place, the same again goes on.
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
        until(lambda: is_half_done(release) or process.poll() is not None, 240, "staged", 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert is_half_done(release)
        said = done(release, "helm_restore", before["file"], "--passphrase-file", passphrase)
        assert "was half done; going on with it" in said
        assert not is_half_done(release)
        assert release.secret() == before["secret"]
        people = team(release)
        assert people.work(before["upload"]) == before["work"]
        assert people.log_in() == SECOND["email"]
        assert team(release, before["second"]).get("/api/current-user/whoami")
        kept = inside(release, "backend", f"print(open('{KEPT}').read())")
        assert kept.strip() == "what a model.py keeps"
        assert len(list(tmp_path.iterdir())) == 1, "what was there was saved first"

    def test_it_predicts_and_its_own_backups_go_on(self, release):
        release.test()
        backed_up(release, "third")

    def test_an_upgrade_that_fails_is_taken_back_with_what_it_has_written(
        self, release, passphrase, tmp_path
    ):
        projects = yaml.safe_load((CHART / "ci" / "existing-claims-values.yaml").read_text())
        project = projects["projects"]["yard.yaml"].replace("storage: {path: yard}", "")
        more = tmp_path / "more.yaml"
        # Without its test nobody can tell that it predicts; by then setup has made a project.
        more.write_text(
            yaml.safe_dump({"tests": {"enabled": False}, "projects": {"new.yaml": project}})
        )
        failed = run(release, "helm_upgrade", "--to", tmp_path, "--passphrase-file", passphrase,
                     "--", "-f", more)  # fmt: skip
        assert failed.returncode == 1, failed.stdout
        assert "runs as before, since the upgrade failed: tests.enabled=false" in failed.stderr
        assert titles(release) == {"ls-yolo demo"}
        release.test()

    def test_an_upgrade_keeps_the_values_that_the_release_was_given(self, release, tmp_path):
        said = done(release, "helm_upgrade", "--to", tmp_path, "--",
                    "--set", "labelStudio.env.LABEL_STUDIO_THREADS=9")  # fmt: skip
        (saved,) = tmp_path.iterdir()
        assert str(saved) in said
        values = json.loads(release.helm("get", "values", "ls-yolo", "-o", "json").stdout)
        assert values["labelStudio"]["env"]["LABEL_STUDIO_THREADS"] == 9
        assert values["backup"]["keep"] == 2
        assert titles(release) == {"ls-yolo demo"}

    def test_what_docker_compose_has_made_comes_into_it_from_sqlite(
        self, release, images, tmp_path
    ):
        file = of_compose(release, images, tmp_path)
        assert content(file)[0]["database"] == backups.LITE
        done(release, "helm_restore", file, "--force", "--to", tmp_path / "of-before")
        # Tokens, keys and the password with it.
        assert release.secret().items() >= {
            name: value for name, value in LOGIN.items() if name != "LABEL_STUDIO_USERNAME"
        }.items()  # fmt: skip
        # Setup makes what is a value of the chart.
        assert titles(release) == {"of Compose", "ls-yolo demo"}
        assert inside(release, "label-studio", "print(open('/data/media/mine.txt').read())")
        (saved,) = (tmp_path / "of-before").iterdir()
        assert backups.DUMP in content(saved)[1]


def of_compose(release, images, folder):
    """An archive of SQLite, as `make backup` on a host makes one."""
    image = images[versions.images()["label-studio"]]
    pod = kubernetes.filler(release.namespace, "compose", image, ["elsewhere"])
    (container,) = pod["spec"]["containers"]
    places = {"BASE_DATA_DIR": "/elsewhere/data", "TMPDIR": "/elsewhere", "HOME": "/elsewhere"}
    container["env"] = [
        {"name": name, "value": value} for name, value in {**LOGIN, **places}.items()
    ]
    kubernetes.apply(pod)
    release.kubectl("wait", "pod/compose", "--for=condition=Ready", "--timeout=60s")
    release.kubectl("exec", "compose", "--", "sh", "-c", OF_COMPOSE)
    (name,) = release.kubectl("exec", "compose", "--", "ls", "/elsewhere/backups").split()
    file = folder / name
    with file.open("wb") as out:
        subprocess.run(
            [kubernetes.KUBECTL, "exec", "-n", release.namespace, "compose", "--", "cat",
             f"/elsewhere/backups/{name}"], stdout=out, check=True,
        )  # fmt: skip
    release.kubectl("delete", "pod", "compose", "--wait=false")
    return file
