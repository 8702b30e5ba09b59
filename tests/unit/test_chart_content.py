"""What values become: volumes, images, variables, and which pods are kept together."""

from __future__ import annotations

import re

import pytest
import yaml

from dev import render_chart
from lib import ROOT
from rendering import containers, joined, pod_spec, pod_template

GROUP = "ls-yolo/volume-group"
# What a container of ours is in, of one pod each.
PODS = ("label-studio", "backend", "setup", "prelabel", "doctor", "backup", "postgres", "test")
KEDA = [("backend.autoscaling.keda.enabled", True), ("metrics.serviceMonitor.enabled", True),
        ("backend.autoscaling.keda.prometheusAddress", "http://prometheus:9090")]  # fmt: skip
ALL = [("postgres.enabled", True), ("prelabel.enabled", True), ("prelabel.projects", ["Yard"]),
       ("doctor.enabled", True), ("backup.enabled", True)]  # fmt: skip
S3 = [("datasets.type", "s3"), ("datasets.s3.bucket", "images"), ("setup.demo", False)]


class Chart:
    """A rendering: its objects, and its pods by component."""

    def __init__(self, folder, *pairs):
        file = folder / "values.yaml"
        file.write_text(yaml.safe_dump(joined(*pairs)))
        self.objects = [found for found in yaml.safe_load_all(render_chart.render([file])) if found]

    def of(self, kind, component=""):
        return [
            found for found in self.objects if found["kind"] == kind
            and component in ("", found["metadata"]["labels"]["app.kubernetes.io/component"])
        ]  # fmt: skip

    def one(self, kind, component=""):
        (found,) = self.of(kind, component)
        return found

    def pod(self, component):
        """Metadata and spec of a component's pod; None if there is none."""
        for found in self.objects:
            if found["metadata"]["labels"].get("app.kubernetes.io/component") != component:
                continue
            if spec := pod_spec(found):
                template = found if found["kind"] == "Pod" else pod_template(found)
                return template["metadata"], spec
        return None

    def env(self, container):
        """The variables of a container by name; a name that is there twice is an error."""
        (found,) = [c for c in containers(self.objects) if c["name"] == container]
        names = [row["name"] for row in found["env"]]
        assert len(set(names)) == len(names), "a variable twice"
        return {row["name"]: row.get("value", row.get("valueFrom")) for row in found["env"]}

    def volume(self, component, name):
        _, spec = self.pod(component)
        (found,) = [volume for volume in spec["volumes"] if volume["name"] == name]
        return found


def together(chart):
    """The pods that are kept on one node, by what keeps them there."""
    found = {}
    for component in PODS:
        # A backup goes to where others are: test_chart_backup.py.
        if component == "backup" or not (pod := chart.pod(component)):
            continue
        meta, spec = pod
        group = meta["labels"].get(GROUP)
        terms = spec.get("affinity", {}).get("podAffinity", {}).get(
            "requiredDuringSchedulingIgnoredDuringExecution", [])  # fmt: skip
        assert bool(terms) == bool(group), component
        if group:
            (term,) = terms
            assert term["topologyKey"] == "kubernetes.io/hostname"
            # The pod itself meets it, or the first one could go nowhere.
            assert term["labelSelector"]["matchLabels"].items() <= meta["labels"].items()
            found.setdefault(group, set()).add(component)
    return found


CLAIM = ("datasets.type", "claim")
MANY = ["ReadWriteMany"]


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        ([], {}),
        ([CLAIM], {"datasets": {"label-studio", "backend", "setup"}}),
        ([CLAIM, *ALL], {"datasets": {"label-studio", "backend", "setup", "prelabel", "doctor"}}),
        ([CLAIM, ("datasets.claim.accessModes", MANY)], {}),
        ([("labelStudio.replicas", 2)], {"label-studio": {"label-studio"}}),
        ([("labelStudio.replicas", 2), ("labelStudio.persistence.accessModes", MANY)], {}),
        ([("backend.cache.enabled", True)], {}),
        ([("backend.cache.enabled", True), ("backend.replicas", 2)], {"backend": {"backend"}}),
        ([("backend.cache.enabled", True), *KEDA], {"backend": {"backend"}}),
        ([("backend.replicas", 2), ("backend.cache.enabled", True),
          ("backend.cache.accessModes", MANY)], {}),
    ],
)  # fmt: skip
def test_pods_that_share_a_volume_of_one_node_are_kept_together_and_no_others(
    pairs, groups, tmp_path
):
    assert together(Chart(tmp_path, ("postgres.enabled", True), *pairs)) == groups


def test_an_operators_affinity_counts_in_place_of_the_charts(tmp_path):
    mine = {"nodeAffinity": {}}
    chart = Chart(tmp_path, CLAIM, ("backend.affinity", mine))
    assert chart.pod("backend")[1]["affinity"] == mine


def test_registry_and_pull_secrets_reach_every_pod(tmp_path):
    chart = Chart(tmp_path, *ALL, ("global.imageRegistry", "r.example:5000"),
                  ("global.imagePullSecrets", ["one", "two"]))  # fmt: skip
    assert {component for component in PODS if chart.pod(component)} == set(PODS)
    for component in PODS:
        _, spec = chart.pod(component)
        assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}], component
    images = {container["image"] for container in containers(chart.objects)}
    version = ROOT.joinpath("VERSION").read_text().strip()
    assert images == {f"r.example:5000/ls-yolo/label-studio:{version}",
                      f"r.example:5000/ls-yolo/backend:{version}",
                      "r.example:5000/postgres:17.6"}  # fmt: skip


def test_a_digest_counts_before_the_tag_and_an_images_own_registry_without_a_global_one(tmp_path):
    digest = "sha256:" + "0" * 64
    chart = Chart(tmp_path, *ALL, ("backend.image.digest", digest), ("backend.image.tag", "x"),
                  ("backend.image.registry", "r.example"))  # fmt: skip
    for component in ("backend", "setup", "prelabel", "doctor", "test"):
        _, spec = chart.pod(component)
        found = {container["image"] for container in containers([{"kind": "Pod", "spec": spec}])}
        assert found == {f"r.example/ls-yolo/backend@{digest}"}, component


@pytest.mark.parametrize(
    ("pairs", "source"),
    [
        ([("datasets.type", "hostPath"), ("datasets.hostPath.path", "/srv/images"),
          ("datasets.hostPath.node", "one")],
         {"hostPath": {"path": "/srv/images", "type": "Directory"}}),
        ([("datasets.type", "nfs"), ("datasets.readOnly", True), ("setup.demo", False),
          ("datasets.nfs", {"server": "nas", "path": "/srv", "mountOptions": ["nfsvers=4.1"]})],
         {"nfs": {"server": "nas", "path": "/srv", "readOnly": True},
          "mountOptions": ["nfsvers=4.1"]}),
        ([*S3, ("datasets.s3.region", "eu-central-1"), ("datasets.s3.prefix", "yard/"),
          ("datasets.s3.endpoint", "https://s3.example.com")],
         {"mountOptions": ["allow-other", "read-only", "region eu-central-1", "prefix yard/",
                           "endpoint-url https://s3.example.com", "force-path-style"]}),
    ],
    ids=["hostPath", "nfs", "s3"],
)  # fmt: skip
def test_images_from_elsewhere_are_a_volume_that_this_release_alone_may_claim(
    pairs, source, tmp_path
):
    chart = Chart(tmp_path, *pairs)
    volume = chart.one("PersistentVolume")
    assert volume["spec"].items() >= source.items()
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    (claim,) = [c for c in chart.of("PersistentVolumeClaim")
                if c["spec"].get("volumeName") == volume["metadata"]["name"]]  # fmt: skip
    assert volume["spec"]["claimRef"] == {
        "namespace": "ls-yolo", "name": claim["metadata"]["name"],
    }  # fmt: skip
    for component in ("label-studio", "backend", "setup"):
        mounted = chart.volume(component, "datasets")["persistentVolumeClaim"]["claimName"]
        assert mounted == claim["metadata"]["name"], component


def test_a_folder_of_one_node_is_looked_for_on_that_node(tmp_path):
    chart = Chart(tmp_path, ("datasets.type", "hostPath"), ("datasets.hostPath.path", "/srv"),
                  ("datasets.hostPath.node", "one"))  # fmt: skip
    (term,) = chart.one("PersistentVolume")["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["one"]}
    ]


@pytest.mark.parametrize(
    ("pairs", "source"), [([], "driver"), ([("datasets.s3.auth", "pod")], "pod")]
)
def test_the_s3_driver_is_told_one_of_its_two_sources_of_rights_and_no_secret(
    pairs, source, tmp_path
):
    """Another source, such as a Secret, it refuses to mount (Mountpoint for Amazon S3, 2.x)."""
    csi = Chart(tmp_path, *S3, *pairs).one("PersistentVolume")["spec"]["csi"]
    assert csi["driver"] == "s3.csi.aws.com"
    assert csi["volumeAttributes"] == {"bucketName": "images", "authenticationSource": source}
    assert "nodePublishSecretRef" not in csi


def test_uploads_in_s3_are_told_to_label_studio_with_the_key_from_a_secret(tmp_path):
    chart = Chart(tmp_path, ("labelStudio.s3", {
        "enabled": True, "bucket": "uploads", "folder": "a", "region": "eu-central-1",
        "endpoint": "https://s3.example.com", "existingSecret": "s3",
    }))  # fmt: skip
    for container in ("prepare", "label-studio"):
        env = chart.env(container)
        assert {name: value for name, value in env.items() if name.startswith("STORAGE_")} == {
            "STORAGE_TYPE": "s3",
            "STORAGE_AWS_BUCKET_NAME": "uploads",
            "STORAGE_AWS_FOLDER": "a",
            "STORAGE_AWS_REGION_NAME": "eu-central-1",
            "STORAGE_AWS_ENDPOINT_URL": "https://s3.example.com",
            "STORAGE_AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "s3", "key": "access-key-id"}},
            "STORAGE_AWS_SECRET_ACCESS_KEY": {
                "secretKeyRef": {"name": "s3", "key": "secret-access-key"}
            },
        }


def test_keda_asks_for_what_the_backend_counts_by_the_labels_that_the_monitor_gives(tmp_path):
    chart = Chart(tmp_path, *KEDA, ("backend.autoscaling.keda.queueDepth", 1000000))
    scaled, service = chart.one("ScaledObject"), chart.one("Service", "backend")
    (trigger,) = scaled["spec"]["triggers"]
    metric, labels = re.fullmatch(r"sum\((\w+)\{(.+)\}\)", trigger["metadata"]["query"]).groups()
    assert f'"{metric}"' in (ROOT / "backend/ls_yolo/metrics.py").read_text()
    name = service["metadata"]["name"]
    assert labels == f'namespace="ls-yolo",service="{name}"'
    assert trigger["metadata"]["serverAddress"] == "http://prometheus:9090"
    assert trigger["metadata"]["threshold"] == "1000000"
    selected = chart.one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service["metadata"]["labels"].items()
    target = chart.one("Deployment", "backend")
    assert scaled["spec"]["scaleTargetRef"]["name"] == target["metadata"]["name"]
    assert "replicas" not in target["spec"], "or each upgrade would undo what KEDA did"


@pytest.mark.parametrize("replicas", [1, 3])
def test_setup_finds_every_pod_of_the_backend_by_a_name_of_its_own(replicas, tmp_path):
    chart = Chart(tmp_path, ("backend.replicas", replicas), *KEDA, ("backend.service.port", 9191))
    name, port = chart.env("wait-for-models")["BACKEND_PODS"].split(":")
    (service,) = [o for o in chart.of("Service") if o["metadata"]["name"] == name]
    # Without an address of its own the name has those of all pods, so the port is the pods'.
    assert service["spec"]["clusterIP"] == "None"
    metadata, spec = chart.pod("backend")
    assert service["spec"]["selector"].items() <= metadata["labels"].items()
    assert int(port) == spec["containers"][0]["ports"][0]["containerPort"]
    watched = chart.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    assert not watched <= service["metadata"]["labels"].items(), "or each pod is scraped twice"


def test_a_disruption_budget_is_that_of_its_components_pods(tmp_path):
    chart = Chart(
        tmp_path,
        ("labelStudio.podDisruptionBudget", {"enabled": True}),
        ("backend.podDisruptionBudget", {"enabled": True, "maxUnavailable": "50%"}),
    )
    for component, away in (("label-studio", 1), ("backend", "50%")):
        budget = chart.one("PodDisruptionBudget", component)["spec"]
        assert budget["maxUnavailable"] == away
        selected = budget["selector"]["matchLabels"].items()
        covered = {
            c for c in PODS if (pod := chart.pod(c)) and selected <= pod[0]["labels"].items()
        }
        assert covered == {component}


def test_an_operators_variables_reach_every_container_of_the_service(tmp_path):
    mine = [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]
    chart = Chart(tmp_path, ("labelStudio.extraEnv", mine), ("backend.extraEnv", mine))
    for container in ("prepare", "label-studio", "fetch-models", "backend"):
        env = chart.env(container)
        assert env["HTTPS_PROXY"] == "http://proxy:3128", container
        assert env["TOKEN"] == mine[1]["valueFrom"], container
    assert "HTTPS_PROXY" not in chart.env("setup")


def test_past_a_proxy_go_the_services_and_whom_the_operator_names(tmp_path):
    mine = [{"name": "NO_PROXY", "value": "registry.example.com,10.0.0.0/8"},
            {"name": "no_proxy", "value": "localhost,nas"}]  # fmt: skip
    chart = Chart(tmp_path, ("labelStudio.extraEnv", mine), ("backend.extraEnv", mine))
    ours = ["ls-yolo-label-studio", "ls-yolo-backend", "ls-yolo-postgres", "localhost",
            "127.0.0.1", "kubernetes.default.svc"]  # fmt: skip
    for container in ("prepare", "label-studio", "fetch-models", "backend"):
        env = chart.env(container)
        assert env["NO_PROXY"] == env["no_proxy"]
        assert env["NO_PROXY"].split(",") == [*ours, "registry.example.com", "10.0.0.0/8", "nas"]
    assert chart.env("setup")["NO_PROXY"].split(",") == ours


@pytest.mark.parametrize(
    ("folder", "root"), [("", "/models"), ("yolo", "/models/yolo"), ("/a/b/", "/models/a/b")]
)
def test_weights_in_an_image_are_read_where_its_volume_is_mounted(folder, root, tmp_path):
    chart = Chart(tmp_path, ("models.type", "image"),
                  ("models.image", {"reference": "r.example/w:1", "subPath": folder}))  # fmt: skip
    assert chart.env("backend")["MODEL_ROOT"] == root
    assert chart.volume("backend", "models")["image"] == {
        "reference": "r.example/w:1", "pullPolicy": "IfNotPresent",
    }  # fmt: skip
    (mount,) = [
        m for c in chart.pod("backend")[1]["containers"] for m in c["volumeMounts"]
        if m["name"] == "models"
    ]  # fmt: skip
    assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}


INGRESS = [("ingress.enabled", True), ("ingress.host", "in.example")]
GATEWAY = [("gateway.enabled", True), ("gateway.host", "gate.example"), ("gateway.tls", True),
           ("gateway.parentRefs", [{"name": "web"}])]  # fmt: skip
HOST = ("labelStudio.env.LABEL_STUDIO_HOST", "https://labels.example")


@pytest.mark.parametrize(
    ("pairs", "told", "origins"),
    [
        ([], None, None),
        # Label Studio itself trusts the one that it is told.
        (INGRESS, "http://in.example", None),
        ([*INGRESS, HOST], "https://labels.example", "http://in.example"),
        ([*INGRESS, ("ingress.tls.enabled", True), HOST], "https://labels.example",
         "https://in.example"),
        ([*GATEWAY, *INGRESS, HOST], "https://labels.example",
         "http://in.example,https://gate.example"),
        ([*GATEWAY, HOST, ("labelStudio.env.CSRF_TRUSTED_ORIGINS", "https://a.example")],
         "https://labels.example", "https://a.example,https://gate.example"),
        # TLS that ends further out: the same name by http is not what people open.
        ([*INGRESS, ("labelStudio.env.LABEL_STUDIO_HOST", "https://in.example")],
         "https://in.example", None),
    ],
)  # fmt: skip
def test_forms_are_taken_from_every_address_that_leads_here(pairs, told, origins, tmp_path):
    env = Chart(tmp_path, *pairs).env("label-studio")
    assert env.get("LABEL_STUDIO_HOST") == told
    assert env.get("CSRF_TRUSTED_ORIGINS") == origins


def test_under_quotas_every_container_has_requests_and_limits():
    text = render_chart.render([render_chart.CHART / "ci" / "restricted-values.yaml"])
    objects = [found for found in yaml.safe_load_all(text) if found]
    found = {container["name"]: container["resources"] for container in containers(objects)}
    assert {"demo-images", "fetch-models", "wait-for-models", "prepare", "test"} <= set(found)
    for name, resources in found.items():
        assert set(resources) == {"requests", "limits"}, name
        assert all(set(part) == {"cpu", "memory"} for part in resources.values()), name


def test_where_the_cluster_gives_the_user_ids_none_is_asked_for():
    text = render_chart.render([render_chart.CHART / "ci" / "restricted-values.yaml"])
    specs = [spec for found in yaml.safe_load_all(text) if found and (spec := pod_spec(found))]
    assert len(specs) == 4
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(spec["securityContext"])
