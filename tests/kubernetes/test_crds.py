"""CRDs of other projects and what not every cluster has: refused where they are not known, and
taken by the API server where they are.

ServiceMonitor, PrometheusRule, HTTPRoute and ScaledObject are held against the projects' own
definitions, pinned; NetworkAttachmentDefinition against one written for this. What an operator, a
gateway, KEDA, Multus or a metrics server then makes of them is not tested.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from cluster import kubernetes
from dev import crds as other_projects
from dev import render_chart
from lib.cli import UserError
from release import HELM, HELM3, NAME, Release, lacking, namespace

pytestmark = pytest.mark.kubernetes
VALUES = Path(__file__).parent / "values"
OURS = Path(__file__).parent / "crds"


def there():
    return {crd["metadata"]["name"] for crd in kubernetes.get("crd")["items"]}


@pytest.fixture(scope="module")
def definitions():
    """Files of definitions by name."""
    files = [*OURS.iterdir(), *other_projects.FOLDER.iterdir()]
    return {yaml.safe_load(file.read_text())["metadata"]["name"]: file for file in files}


@pytest.fixture(scope="module")
def where(reached):
    with namespace("t-crds") as name:
        yield name


@pytest.fixture(scope="module")
def crds(where, definitions):
    """All CRDs are known to the cluster; those that it did not know are gone after the tests."""
    missing = {name: file for name, file in definitions.items() if name not in there()}
    with ExitStack() as stack:
        for name, file in missing.items():
            kubernetes.kubectl("apply", "--server-side", "-f", str(file))
            stack.callback(kubernetes.kubectl, "delete", "crd", name, "--wait=false")
        for name in definitions:
            kubernetes.kubectl("wait", "crd", name, "--for=condition=Established", "--timeout=60s")
        yield


# Before the tests with `crds`.
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("optional", ["gateway.enabled=true", "HTTPRoute", "metrics.serviceMonitor.enabled=true",
                      "metrics.prometheusRule.enabled=true"]),
        ("lan", ["multus.enabled=true", "Install Multus first"]),
        ("queue", ["backend.autoscaling.keda.enabled=true", "Install KEDA first"]),
    ],
)  # fmt: skip
def test_a_crd_that_the_cluster_does_not_know_is_refused(where, definitions, values, words):
    if known := there() & set(definitions):
        lacking(f"the cluster has {', '.join(sorted(known))}; only one without them refuses them")
    release = Release(where, [VALUES / f"{values}.yaml"])
    done = release.install("--dry-run=server", check=False)
    assert done.returncode != 0
    assert [word for word in words if word not in done.stderr] == []


@pytest.mark.parametrize("values", ["optional", "lan", "queue"])
def test_the_api_server_takes_every_object(where, crds, values):
    text = render_chart.render([VALUES / f"{values}.yaml"], "-n", where)
    # Not the pod of `helm test`: its account would have to be there first.
    objects = [found for found in yaml.safe_load_all(text) if found and found["kind"] != "Pod"]
    said = kubernetes.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-n", where, "-f", "-",
        stdin=yaml.safe_dump_all(objects),
    )  # fmt: skip
    assert len(said.splitlines()) == len(objects)


def test_a_misspelt_field_of_another_projects_kind_is_refused(where, crds):
    text = render_chart.render([VALUES / "optional.yaml"], "-n", where).replace(
        "scrapeTimeout", "scrape"
    )
    with pytest.raises(UserError, match="scrape"):
        kubernetes.kubectl("apply", "--dry-run=server", "--validate=strict", "-n", where, "-f", "-",
                        stdin=text)  # fmt: skip


@pytest.mark.parametrize("helm", [HELM, HELM3], ids=["helm", "helm3"])
def test_helm_3_and_4_see_the_same_cluster(where, crds, helm):
    release = Release(where, [VALUES / "optional.yaml"], helm_program=helm)
    done = release.helm("install", NAME, str(release.chart), "--dry-run=server",
                        "-f", str(VALUES / "optional.yaml"))  # fmt: skip
    assert "kind: ServiceMonitor" in done.stdout


def test_a_monitor_and_a_route_are_made_that_find_the_services(where, crds, tmp_path):
    optional = yaml.safe_load((VALUES / "optional.yaml").read_text())
    nobody = tmp_path / "nobody.yaml"
    nobody.write_text(yaml.safe_dump({
        "labelStudio": {"replicas": 0}, "backend": {"replicas": 0}, "setup": {"demo": False},
        "metrics": optional["metrics"], "gateway": optional["gateway"],
    }))  # fmt: skip
    release = Release(where, [nobody])
    release.helm("install", NAME, str(release.chart), "-f", str(nobody), "--no-hooks")
    monitor, route = release.one("servicemonitors"), release.one("httproutes")
    services = release.get("services")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (watched,) = [found for found in services if wanted <= found["metadata"]["labels"].items()]
    assert watched == release.one("services", "backend")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in watched["spec"]["ports"]]
    assert "basicAuth" in endpoint
    (rule,) = route["spec"]["rules"]
    (target,) = rule["backendRefs"]
    people = release.one("services", "label-studio")
    assert (target["name"], target["port"]) == (
        people["metadata"]["name"], people["spec"]["ports"][0]["port"],
    )  # fmt: skip
    release.uninstall()
    assert not release.get("servicemonitors") + release.get("httproutes")


@pytest.mark.parametrize(
    ("component", "address"), [("label-studio", "192.0.2.10/24"), ("backend", "192.0.2.11/24")]
)
def test_multus_gets_a_macvlan_with_the_address_and_the_pod_asks_for_it(
    where, crds, component, address
):
    text = render_chart.render([VALUES / "lan.yaml"], "-n", where)
    objects = [found for found in yaml.safe_load_all(text) if found]
    (network,) = [found for found in objects if found["kind"] == "NetworkAttachmentDefinition"]
    config = json.loads(network["spec"]["config"])
    plugin = config["plugins"][0] if "plugins" in config else config
    assert (plugin["type"], plugin["master"]) == ("macvlan", "eth1")
    (pod,) = [
        found["spec"]["template"]["metadata"] for found in objects
        if found["kind"] == "Deployment" and found["metadata"]["name"].endswith(component)
    ]  # fmt: skip
    asked = pod["annotations"]["k8s.v1.cni.cncf.io/networks"]
    assert network["metadata"]["name"] in asked
    addresses = [entry["address"] for entry in plugin["ipam"].get("addresses", [])]
    assert address in asked or address in addresses
