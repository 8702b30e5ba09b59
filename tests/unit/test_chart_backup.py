"""The backups that the chart makes by itself: what their pods see, where they stand, what tells."""

from __future__ import annotations

import re

import pytest
import yaml

from dev import render_chart
from lib import ROOT
from rendering import containers, joined, pod_spec

COMPONENT = "app.kubernetes.io/component"
ON = [("backup.enabled", True)]
POSTGRES = [("postgres.enabled", True)]
CACHE = [("backend.cache.enabled", True)]
WEIGHTS = [("models.type", "claim"), ("models.claim.existingClaim", "weights")]
MANY = ["ReadWriteMany"]
GPU = [("backend.gpu.enabled", True), ("backend.tolerations", [{"key": "night"}])]


@pytest.fixture
def rendered(tmp_path):
    """What the chart makes for backups, by kind."""

    def make(*pairs):
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(joined(*pairs)))
        return {
            found["kind"]: found for found in yaml.safe_load_all(render_chart.render([file]))
            if found and found["metadata"]["labels"].get(COMPONENT) == "backup"
            and found["kind"] != "Job"
        }  # fmt: skip

    return make


@pytest.fixture
def pod(rendered):
    """The pods of the CronJob."""

    def make(*pairs):
        return pod_spec(rendered(*ON, *pairs)["CronJob"])

    return make


def named(pod, name):
    (found,) = [one for one in containers([{"kind": "Pod", "spec": pod}]) if one["name"] == name]
    return found


def env(container):
    names = [row["name"] for row in container["env"]]
    assert len(set(names)) == len(names), "a variable twice"
    return {row["name"]: row.get("value", row.get("valueFrom")) for row in container["env"]}


def parts(pod):
    """Which folders the command line names as parts; each is mounted."""
    container = named(pod, "backup")
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    words = [re.fullmatch(r"--(?:volume|folder)=(.+)=(.+)", word) for word in container["command"]]
    found = [match.groups() for match in words if match]
    assert {folder for _, folder in found} <= mounted
    return [part for part, _ in found]


def test_there_is_none_unless_asked_for(rendered):
    # The policy is also for those that people make.
    assert set(rendered()) == {"NetworkPolicy"}
    assert set(rendered(*ON)) == {"NetworkPolicy", "CronJob", "PersistentVolumeClaim"}


def test_it_is_made_by_a_schedule_one_at_a_time_or_when_asked_to(rendered):
    spec = rendered(*ON)["CronJob"]["spec"]
    assert (spec["schedule"], spec["suspend"]) == ("15 2 * * *", False)
    assert spec["concurrencyPolicy"] == "Forbid"
    assert rendered(*ON, ("backup.schedule", ""))["CronJob"]["spec"]["suspend"] is True


def test_its_claim_outlives_the_release(rendered):
    claim = rendered(*ON)["PersistentVolumeClaim"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "PersistentVolumeClaim" not in rendered(*ON, ("backup.persistence.existingClaim", "c"))
    assert "PersistentVolumeClaim" not in rendered(*ON, ("backup.s3.bucket", "b"))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], ["label-studio", "models", "projects"]),
        ([*CACHE], ["label-studio", "backend", "models", "projects"]),
        ([*CACHE, ("backup.cache", False)], ["label-studio", "models", "projects"]),
        ([*WEIGHTS], ["label-studio", "models", "models", "projects"]),
        ([*WEIGHTS, ("backup.models", False)], ["label-studio", "models", "projects"]),
        ([("datasets.type", "claim"), ("backup.datasets", True)],
         ["label-studio", "models", "projects", "datasets"]),
        ([("setup.enabled", False)], ["label-studio", "models"]),
        ([*POSTGRES, ("labelStudio.persistence.enabled", False)], ["models", "projects"]),
    ],
)  # fmt: skip
def test_what_is_in_it(pod, pairs, expected):
    assert parts(pod(*pairs)) == expected


def test_no_secret_is_on_a_command_line_or_in_a_value(pod):
    found = pod(*POSTGRES, ("backup.s3.bucket", "b"), ("backup.s3.existingSecret", "s3"),
                ("backup.passphraseSecret", "lock"))  # fmt: skip
    whole = env(named(found, "backup")) | env(named(found, "dump"))
    secret = {name for name, value in whole.items() if isinstance(value, dict)}
    assert secret == {
        "LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS", "SECRET_KEY",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD",
    }  # fmt: skip
    (lock,) = [volume for volume in found["volumes"] if volume["name"] == "passphrase"]
    assert lock["secret"] == {"secretName": "lock", "defaultMode": 0o440}
    assert "--passphrase-file=/passphrase/passphrase" in named(found, "backup")["command"]


def test_its_pod_may_do_nothing_else(pod):
    found = pod(*POSTGRES)
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["automountServiceAccountToken"] is False
    for container in containers([{"kind": "Pod", "spec": found}]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "host", "mode"),
    [
        (POSTGRES, "ls-yolo-postgres", None),
        ([("postgres.external", {"host": "db.example.com", "existingSecret": "db",
                                 "sslMode": "verify-full"})], "db.example.com", "verify-full"),
    ],
)  # fmt: skip
def test_the_dump_reaches_the_same_database_as_label_studio(pod, pairs, host, mode):
    found = pod(*pairs)
    dump = named(found, "dump")
    told = env(dump)
    assert told["PGHOST"] == host
    assert (told["PGDATABASE"], told["PGUSER"]) == ("labelstudio", "labelstudio")
    assert told.get("PGSSLMODE") == mode
    assert dump["image"] == "postgres:17.6"
    assert "--dump=/dump/label-studio.dump" in named(found, "backup")["command"]
    assert "set postgres.image.tag" in dump["command"][-1]


def test_sqlite_needs_no_dump(pod):
    assert "initContainers" not in pod()


@pytest.mark.parametrize(
    ("pairs", "beside"),
    [
        ([], "label-studio"),
        (CACHE, "label-studio"),
        ([("labelStudio.persistence.accessModes", MANY)], None),
        ([("labelStudio.persistence.accessModes", MANY), *CACHE], "backend"),
        ([("labelStudio.persistence.accessModes", MANY), *CACHE, ("backup.cache", False)], None),
        ([("labelStudio.persistence.accessModes", MANY), *CACHE,
          ("backend.cache.accessModes", MANY)], None),
    ],
)  # fmt: skip
def test_it_stands_where_it_can_mount_what_another_pod_has(pod, pairs, beside):
    affinity = pod(*pairs).get("affinity")
    if beside is None:
        assert affinity is None
        return
    # Of several the scheduler wants one pod that fits all.
    (term,) = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"][COMPONENT] == beside


def test_an_operators_affinity_counts(pod):
    assert pod(("backup.affinity", {"nodeAffinity": {}}))["affinity"] == {"nodeAffinity": {}}


def test_it_bears_the_taints_of_the_nodes_that_it_must_go_to(pod):
    def borne(*pairs):
        return {taint["key"] for taint in pod(*pairs).get("tolerations", [])}

    assert borne(*GPU) == set()
    assert borne(*GPU, *CACHE) == {"night", "nvidia.com/gpu"}
    assert borne(*GPU, ("datasets.type", "claim")) == {"night", "nvidia.com/gpu"}
    assert borne(("labelStudio.tolerations", [{"key": "a"}]),
                 ("backup.tolerations", [{"key": "b"}])) == {"a", "b"}  # fmt: skip


@pytest.fixture
def jobs(tmp_path):
    def make(*pairs):
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(joined(*pairs)))
        return [
            found for found in filter(None, yaml.safe_load_all(render_chart.render([file])))
            if found["kind"] == "Job" and found["metadata"]["labels"][COMPONENT] == "backup"
        ]  # fmt: skip

    return make


def test_without_a_cluster_no_hook_is_made_of_what_may_not_be_there(jobs):
    assert not [
        job for job in jobs(*ON, ("backup.beforeUpgrade", True))
        if "helm.sh/hook" in job["metadata"].get("annotations", {})
    ]  # fmt: skip


def test_a_pod_takes_the_claim_at_once_since_helm_may_wait_until_it_has_a_volume(jobs, pod):
    (job,) = jobs(*ON)
    first, later = pod_spec(job), pod()
    assert [one["name"] for one in first["volumes"]] == ["backups"]
    assert first["affinity"] == later["affinity"]
    assert first["securityContext"] == later["securityContext"]
    (other,) = jobs(*ON, ("labelStudio.image.tag", "9"))
    assert job["metadata"]["name"] != other["metadata"]["name"], "a Job cannot be changed"
    claim = ("backup.persistence.existingClaim", "mine")
    assert jobs(*ON, claim) == jobs(*ON, ("backup.s3.bucket", "b")) == []


def test_an_alert_tells_when_the_last_good_one_is_too_old_and_what_to_do(rendered):
    assert "PrometheusRule" not in rendered(("metrics.prometheusRule.enabled", True))
    found = rendered(*ON, ("metrics.prometheusRule", {"enabled": True, "labels": {"a": "b"}}),
                     ("backup.alertAfterHours", 30))  # fmt: skip
    made, job = found["PrometheusRule"], found["CronJob"]["metadata"]["name"]
    namespace = found["CronJob"]["metadata"]["namespace"]
    assert made["metadata"]["labels"]["a"] == "b"
    (group,) = made["spec"]["groups"]
    (rule,) = group["rules"]
    which = f'{{namespace="{namespace}", cronjob="{job}"}}'
    assert rule["expr"] == (
        f"time() - (kube_cronjob_status_last_successful_time{which} or kube_cronjob_created{which})"
        f" > 30 * 3600 or absent(kube_cronjob_created{which})"
    )
    assert f"create job backup-now --from=cronjob/{job}" in rule["annotations"]["description"]


def test_the_backup_is_of_the_kit_that_the_chart_is_of(pod):
    version = (ROOT / "VERSION").read_text().strip()
    assert f"--kit={version}" in named(pod(), "backup")["command"]
