"""A release as the cluster tells it: its claims, and the pod that reaches them."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict

import pytest
import yaml

import helm_restore
from cluster import kubernetes, release
from dev import render_chart
from lib import postgres
from lib.cli import UserError
from policies import Pod, passes
from rendering import joined

ON = [("backup.enabled", True), ("postgres.enabled", True), ("backend.cache.enabled", True)]
WEIGHTS = [("models.type", "claim"), ("models.claim.existingClaim", "weights"),
           ("models.claim.subPath", "yolo")]  # fmt: skip
IMAGES = [("datasets.type", "claim"), ("datasets.claim.accessModes", ["ReadWriteMany"])]
KINDS = {"deployments": "Deployment", "cronjobs": "CronJob", "configmaps": "ConfigMap",
         "secrets": "Secret", "pods": "Pod", "pvc": "PersistentVolumeClaim"}  # fmt: skip


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster that has what the chart makes of values."""

    def make(*pairs):
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(joined(*pairs)))
        objects = [found for found in yaml.safe_load_all(render_chart.render([file])) if found]
        weights = {"metadata": {"name": "weights"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
        objects.append({"kind": "PersistentVolumeClaim", **weights})
        for one in objects:
            if one["kind"] == "PersistentVolumeClaim":
                one["status"] = {"phase": "Bound"}

        def get(kind, *words):
            found = [one for one in objects if one["kind"] == KINDS[kind] and one["kind"] != "Pod"]
            if words[0] != "-n":
                return next(one for one in found if one["metadata"]["name"] == words[0])
            if "-l" in words:
                wanted = dict(one.split("=") for one in words[words.index("-l") + 1].split(","))
                found = [
                    one for one in found if wanted.items() <= one["metadata"]["labels"].items()
                ]
            return {"items": found}

        monkeypatch.setattr(kubernetes, "get", get)
        return objects

    return make


def test_its_claims_are_found_as_the_release_mounts_them(cluster):
    cluster(*ON, *WEIGHTS, *IMAGES)
    found = release.find("ls-yolo")
    assert {part: (one.claim, one.sub_path) for part, one in found.mounts.items()} == {
        "label-studio": ("ls-yolo-label-studio", ""), "backend": ("ls-yolo-backend", ""),
        "models": ("weights", "yolo"), "datasets": ("ls-yolo-datasets", ""),
    }  # fmt: skip
    assert not any(one.read_only for one in found.mounts.values())
    assert found.backups == "ls-yolo-backup"
    assert set(found.texts()) == {"models", "projects"}


def test_what_its_own_backups_leave_out_since_one_pod_alone_may_have_it_is_left_out_here_too(
    cluster,
):
    cluster(*ON, *WEIGHTS, ("backup.models", False))
    assert set(release.find("ls-yolo").mounts) == {"label-studio", "backend"}
    cluster(*ON, *WEIGHTS, ("backup.cache", False))
    assert set(release.find("ls-yolo").mounts) == {"label-studio", "models"}


def test_what_is_known_of_it_outlives_the_process(cluster):
    cluster(*ON)
    found = release.find("ls-yolo")
    assert release.Release(**json.loads(json.dumps(asdict(found)))) == found


def test_a_claim_that_waits_for_its_first_pod_is_none_to_look_into(cluster):
    for one in cluster(*ON):
        if one["metadata"]["name"] == "ls-yolo-backup" and one["kind"] == "PersistentVolumeClaim":
            one["status"] = {"phase": "Pending"}
    found = release.find("ls-yolo")
    assert found.backups == ""
    assert "backups" not in [one["name"] for one in release.waiting(found)["spec"]["volumes"]]


def test_what_is_in_the_pod_or_read_only_is_not_restored(cluster):
    cluster(("datasets.type", "nfs"), ("datasets.readOnly", True), ("setup.demo", False),
            ("datasets.nfs", {"server": "nas", "path": "/a"}))  # fmt: skip
    found = release.find("ls-yolo")
    assert set(found.mounts) == {"label-studio", "datasets"}
    assert found.mounts["datasets"].read_only
    assert found.backups == ""


def test_a_release_that_is_not_there_is_told_with_what_to_name(cluster):
    cluster()
    assert release.find("ls-yolo", "ls-yolo").name == "ls-yolo"
    with pytest.raises(UserError, match=r"found no release other .*NAMESPACE=, RELEASE="):
        release.find("ls-yolo", "other")


def test_of_several_releases_one_must_be_named(cluster):
    objects = cluster()
    ours, other = (f'"app.kubernetes.io/instance": "{name}"' for name in ("ls-yolo", "b"))
    objects += json.loads(json.dumps(objects).replace(ours, other))
    with pytest.raises(UserError, match=r"found the releases b, ls-yolo\. Name one: RELEASE="):
        release.find("ls-yolo")
    assert release.find("ls-yolo", "b").name == "b"


def test_the_pod_is_let_to_the_database_and_nowhere_else(cluster):
    objects = cluster(*ON)
    pod = release.waiting(release.find("ls-yolo"))
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    (database,) = [one for one in objects if one["kind"] == "StatefulSet"]
    ours = Pod(pod["metadata"]["labels"], "ls-yolo")
    labels = database["spec"]["template"]["metadata"]["labels"]
    assert passes(policies, ours, Pod(labels, "ls-yolo"), 5432)
    assert not passes(policies, ours, Pod({}, "other"), 443)
    assert not passes(policies, Pod(labels, "ls-yolo"), ours, 80)


def test_the_pod_may_do_no_more_than_label_studios(cluster):
    cluster(*ON)
    spec = release.waiting(release.find("ls-yolo"))["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip


def test_no_password_is_in_the_pods_text(cluster):
    objects = cluster(*ON)
    text = json.dumps(release.waiting(release.find("ls-yolo")))
    secrets = [
        base64.b64decode(value).decode() for one in objects if one["kind"] == "Secret"
        for value in one["data"].values()
    ]  # fmt: skip
    assert len(secrets) >= 5
    assert not [secret for secret in secrets if secret in text]


def test_sqlite_has_no_container_of_postgresql(cluster):
    cluster(("backup.enabled", True))
    found = release.find("ls-yolo")
    assert [one["name"] for one in release.waiting(found)["spec"]["containers"]] == ["label-studio"]
    assert release.Hand(found, "pod").server is None


def test_postgresqls_programs_are_told_the_database_that_label_studio_has(cluster):
    external = {"host": "db.example.com", "port": 6432, "database": "labels", "user": "me",
                "existingSecret": "db", "sslMode": "require"}  # fmt: skip
    cluster(("postgres.external", external))
    found = release.find("ls-yolo")
    (_, container) = release.waiting(found)["spec"]["containers"]
    told = {one["name"]: one.get("value") for one in container["env"]}
    assert told == {"PGHOST": "db.example.com", "PGPORT": "6432", "PGDATABASE": "labels",
                    "PGUSER": "me", "PGPASSWORD": None, "PGSSLMODE": "require"}  # fmt: skip
    assert container["image"] == "postgres:17.6"
    server = release.Hand(found, "pod").server
    assert isinstance(server, postgres.Server)
    assert (server.database, server.user) == ("labels", "me")


def test_an_older_charts_release_is_to_be_upgraded_first(cluster):
    objects = cluster(*ON)
    for one in objects:
        one["metadata"].get("annotations", {}).pop("ls-yolo/postgres-image", None)
    with pytest.raises(UserError, match="an older chart has installed ls-yolo"):
        release.waiting(release.find("ls-yolo"))


def test_what_a_person_has_filled_is_kept_when_it_gives_way(cluster):
    cluster(*ON, *WEIGHTS)
    named = {one.name: one for one in release.Hand(release.find("ls-yolo"), "pod").parts}
    assert named["models"].command("commit")[-1] == "--keep"
    assert named["label-studio"].command("commit")[-1] == "/data"
    assert named["label-studio"].command("save")[-2:] == ["--leave-out", ".env"]


def test_a_restore_that_is_half_done_is_no_time_for_anything_else(cluster):
    objects = cluster(*ON)
    found = release.find("ls-yolo")
    release.need_no_restore(found)
    note = base64.b64encode(json.dumps({"archive": "a.tar.gz"}).encode()).decode()
    objects.append({"kind": "Secret", "metadata": {"name": "ls-yolo-restore"},
                    "data": {"restore": note}})  # fmt: skip
    assert release.note(found, "restore") == {"archive": "a.tar.gz"}
    with pytest.raises(UserError, match="a restore is half done"):
        release.need_no_restore(found)


class Told:
    """A pod of which all is told but the database."""

    label_studio_version = "1.23.2"
    server = None

    def __init__(self, found):
        self.release = found


ABOUT = {"label_studio": "1.23.2", "kit": "0.1.0", "database": "SQLite"}
USER = {"LABEL_STUDIO_USERNAME": "Admin@example.com"}


def test_what_a_release_can_become_is_taken(cluster):
    cluster()
    helm_restore.refuse(Told(release.find("ls-yolo")), ABOUT, USER)


@pytest.mark.parametrize(
    ("pairs", "about", "given", "words"),
    [
        ([], {**ABOUT, "label_studio": "1.24.0"}, USER, "Label Studio 1.24.0"),
        ([], {**ABOUT, "database": "PostgreSQL"}, USER, "postgres.enabled=true"),
        ([("labelStudio.persistence.enabled", False)], ABOUT, USER, "would go with the pod"),
        ([], ABOUT, {"LABEL_STUDIO_USERNAME": "me@example.com"},
         "labelStudio.env.LABEL_STUDIO_USERNAME=me@example.com"),
    ],
)  # fmt: skip
def test_what_it_cannot_become_is_refused_with_the_way(cluster, pairs, about, given, words):
    cluster(*pairs)
    with pytest.raises(UserError, match=words):
        helm_restore.refuse(Told(release.find("ls-yolo")), about, given)
