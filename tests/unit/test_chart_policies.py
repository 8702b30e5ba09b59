"""The rendered NetworkPolicies, over every pair: who must reach whom, and nobody else does."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from dev import render_chart
from policies import Address, Pod, passes
from rendering import pod_template

CI = render_chart.CHART / "ci"
OURS = ("label-studio", "backend", "setup", "prelabel", "doctor", "backup", "test", "postgres")
PORTS = {"label-studio": 8080, "backend": 9090, "postgres": 5432}
DNS = Pod({"k8s-app": "kube-dns"}, "kube-system", {"kubernetes.io/metadata.name": "kube-system"})
PROMETHEUS = Pod(
    {"app.kubernetes.io/name": "prometheus"}, "monitoring",
    {"kubernetes.io/metadata.name": "monitoring"},
)  # fmt: skip
INGRESS = Pod({"app": "nginx"}, "ingress-nginx", {"kubernetes.io/metadata.name": "ingress-nginx"})
NEIGHBOUR = Pod({"app": "of somebody else"}, "ls-yolo")
STRANGER = Pod({"app": "of somebody else"}, "other", {"kubernetes.io/metadata.name": "other"})
WEB, API, METADATA = Address("93.184.215.14"), Address("172.16.0.1"), Address("169.254.169.254")
LAN = Address("192.168.1.20")


class Chart:
    """A rendering: its policies, and its components as pods."""

    def __init__(self, *files: Path, values=None, folder=None) -> None:
        chosen = list(files)
        if values is not None:
            extra = folder / "values.yaml"
            extra.write_text(yaml.safe_dump(values))
            chosen.append(extra)
        objects = [o for o in yaml.safe_load_all(render_chart.render(chosen)) if o]
        self.policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
        self.pods = {}
        for found in objects:
            labels = pod_template(found).get("metadata", {}).get("labels")
            if found["kind"] == "Pod":
                labels = found["metadata"]["labels"]
            if labels:
                component = labels["app.kubernetes.io/component"]
                self.pods[component] = Pod(labels, "ls-yolo")

    def passes(self, source, target, port):
        ends = (
            self.pods.get(end, end) if isinstance(end, str) else end for end in (source, target)
        )
        return passes(self.policies, *ends, port)

    def into(self, component):
        """Who of everyone reaches a component's port."""
        everyone = {
            **self.pods, "dns": DNS, "prometheus": PROMETHEUS, "ingress": INGRESS,
            "neighbour": NEIGHBOUR, "stranger": STRANGER, "web": WEB, "lan": LAN,
        }  # fmt: skip
        return {
            name for name, peer in everyone.items()
            if name != component and self.passes(peer, component, PORTS[component])
        }  # fmt: skip

    def out_of(self, component):
        """Which of everything outside the release a component reaches, by name and port."""
        places = {"web": WEB, "api": API, "metadata": METADATA, "lan": LAN, "stranger": STRANGER,
                  "neighbour": NEIGHBOUR, "prometheus": PROMETHEUS}  # fmt: skip
        return {
            (name, port) for name, place in places.items() for port in (22, 80, 443, 6443, 8000)
            if self.passes(component, place, port)
        }  # fmt: skip


@pytest.fixture(scope="module")
def postgres():
    """Everything that the chart can run in one namespace."""
    return Chart(*(CI / f"{name}-values.yaml" for name in ("postgres", "prelabel", "backup")))


def test_there_is_a_policy_for_each_component_in_both_directions(postgres):
    assert set(postgres.pods) == set(OURS)
    for policy in postgres.policies:
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    selected = {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for policy in postgres.policies
    }
    assert selected == set(OURS)


JOBS = {"setup", "prelabel", "doctor", "test"}
MUST = {
    ("label-studio", "backend"), ("label-studio", "postgres"), ("backend", "label-studio"),
    ("backup", "postgres"),
    *((job, service) for job in JOBS
      for service in ("label-studio", "backend")),
}  # fmt: skip


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(OURS, 2)))
def test_each_pair_of_components_passes_just_where_it_must(postgres, source, target):
    for port in (*PORTS.values(), 22, 80, 443):
        expected = (source, target) in MUST and port == PORTS[target]
        assert postgres.passes(source, target, port) is expected, port


@pytest.mark.parametrize("component", [c for c in OURS if c != "postgres"])
def test_names_are_resolved_by_udp_and_tcp(postgres, component):
    pod = postgres.pods[component]
    assert passes(postgres.policies, pod, DNS, 53, "UDP")
    assert passes(postgres.policies, pod, DNS, 53, "TCP")
    assert not passes(postgres.policies, pod, DNS, 8080)
    assert not passes(postgres.policies, pod, STRANGER, 53, "UDP")


def test_postgres_calls_nobody(postgres):
    assert not passes(postgres.policies, postgres.pods["postgres"], DNS, 53, "UDP")
    assert postgres.out_of("postgres") == set()


def test_nobody_else_comes_in(postgres):
    assert postgres.into("label-studio") == {"backend", *JOBS}
    assert postgres.into("backend") == {"label-studio", *JOBS}
    assert postgres.into("postgres") == {"label-studio", "backup"}


@pytest.mark.parametrize(
    ("component", "places"),
    [
        ("label-studio", set()),
        ("backend", {("web", 80), ("web", 443)}),
        # It reads images itself.
        ("prelabel", {("web", 80), ("web", 443)}),
        ("setup", set()),
        ("doctor", set()),
        ("backup", set()),
        ("test", {(place, port) for place in ("web", "api", "metadata", "lan", "stranger",
                                              "neighbour", "prometheus") for port in (443, 6443)}),
    ],
)  # fmt: skip
def test_what_leaves_the_release(postgres, component, places):
    assert postgres.out_of(component) == places


def test_the_backend_does_not_leave_where_nothing_is_read_from_the_web(tmp_path):
    values = {
        "backend": {"env": {"ALLOW_HTTP_IMAGES": "false"}},
        "models": {"type": "claim", "claim": {"existingClaim": "weights"}},
    }
    assert Chart(values=values, folder=tmp_path).out_of("backend") == set()


def test_behind_an_ingress_people_come_in_and_to_label_studio_only():
    chart = Chart(CI / "ingress-values.yaml")
    assert {"ingress", "web", "lan"} <= chart.into("label-studio")
    assert chart.into("backend") == {"label-studio", "setup", "test"}


def test_only_the_named_peers_come_in_where_there_are_some(tmp_path):
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
    values = {"networkPolicy": {"labelStudio": {"from": [peer]}}}
    chart = Chart(CI / "ingress-values.yaml", values=values, folder=tmp_path)
    assert chart.into("label-studio") == {"backend", "setup", "test", "ingress"}


def test_prometheus_comes_in_where_it_is_asked_to(tmp_path):
    values = {"metrics": {"serviceMonitor": {"enabled": True}}}
    assert "prometheus" in Chart(values=values, folder=tmp_path).into("backend")
    assert "prometheus" not in Chart(CI / "cpu-values.yaml").into("backend")


def test_an_external_database_is_reached_at_its_port(tmp_path):
    chart = Chart(CI / "external-postgres-values.yaml")
    assert chart.passes("label-studio", LAN, 5432)
    assert not chart.passes("label-studio", LAN, 5433)
    assert not chart.passes("backend", LAN, 5432)


@pytest.mark.parametrize(
    ("endpoint", "port"), [("", 443), ("https://s3.example.com", 443), ("http://minio:8000", 8000)]
)
def test_a_backup_reaches_its_bucket_and_no_other_port(tmp_path, endpoint, port):
    s3 = {"bucket": "b", "endpoint": endpoint}
    chart = Chart(values={"backup": {"enabled": True, "s3": s3}}, folder=tmp_path)
    assert {found for _, found in chart.out_of("backup")} == {port}
    assert {found for place, found in chart.out_of("backup") if place == "lan"} == {port}


def test_the_pods_that_people_make_for_backups_and_restores_reach_the_database_too(tmp_path):
    chart = Chart(values={"postgres": {"enabled": True}}, folder=tmp_path)
    labels = {**chart.pods["postgres"].labels, "app.kubernetes.io/component": "backup"}
    assert chart.passes(Pod(labels, "ls-yolo"), "postgres", 5432)


def test_what_an_operator_adds_passes(tmp_path):
    camera = {"to": [{"ipBlock": {"cidr": "192.168.1.0/24"}}], "ports": [{"port": 8000}]}
    chart = Chart(values={"networkPolicy": {"backend": {"egress": [camera]}}}, folder=tmp_path)
    assert chart.passes("backend", LAN, 8000)
    assert not chart.passes("label-studio", LAN, 8000)


def test_without_policies_there_is_none(tmp_path):
    assert Chart(values={"networkPolicy": {"enabled": False}}, folder=tmp_path).policies == []
