"""What an update does to pods and Jobs: how and when they are replaced; where they may stand."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from dev import render_chart

ADDRESS = {"enabled": True, "master": "eth1", "labelStudioAddress": "192.0.2.10/24",
           "backendAddress": "192.0.2.11/24"}  # fmt: skip
SHARED = {
    "labelStudio": {"persistence": {"accessModes": ["ReadWriteMany"]}},
    "postgres": {"enabled": True},
}
FILE = {"name": "yolov8n.pt", "url": "https://example.com/a.pt", "sha256": "0" * 64}
GPU = {"gpu": {"enabled": True}, "nodeSelector": {"gpu": "yes"},
       "tolerations": [{"key": "night", "operator": "Exists"}]}  # fmt: skip
BEARS = {"nvidia.com/gpu", "night"}


@pytest.fixture
def rendered(tmp_path):
    """What the chart makes of values, the later counting more, by kind and component."""

    def make(*layers):
        files = [tmp_path / f"{number}.yaml" for number, _ in enumerate(layers)]
        for file, values in zip(files, layers, strict=True):
            file.write_text(yaml.safe_dump(values))
        return {
            (found["kind"], found["metadata"]["labels"]["app.kubernetes.io/component"]): found
            for found in yaml.safe_load_all(render_chart.render(files))
            if found and found["kind"] in ("Deployment", "Job", "StatefulSet")
        }  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("values", "component", "wanted"),
    [
        ({}, "backend", "RollingUpdate"),
        ({"backend": {"gpu": {"enabled": True}}}, "backend", "Recreate"),
        ({"backend": {"gpu": {"enabled": True}, "strategy": "RollingUpdate"}}, "backend",
         "RollingUpdate"),
        ({"multus": ADDRESS}, "backend", "Recreate"),
        ({"multus": {**ADDRESS, "enabled": False}}, "backend", "RollingUpdate"),
        ({}, "label-studio", "Recreate"),
        ({"postgres": {"enabled": True}}, "label-studio", "Recreate"),
        (SHARED, "label-studio", "RollingUpdate"),
        ({**SHARED, "multus": ADDRESS}, "label-studio", "Recreate"),
        ({**SHARED, "multus": {**ADDRESS, "labelStudioAddress": ""}}, "label-studio",
         "RollingUpdate"),
    ],
)  # fmt: skip
def test_one_pod_at_a_time_where_two_would_be_in_each_others_way(
    rendered, values, component, wanted
):
    strategy = rendered(values)["Deployment", component]["spec"]["strategy"]
    assert strategy["type"] == wanted
    # Named, so that they are Helm's to take away: in a Recreate the API server refuses them.
    assert set(strategy.get("rollingUpdate", ())) == (
        {"maxSurge", "maxUnavailable"} if wanted == "RollingUpdate" else set()
    )


@pytest.mark.parametrize(
    "other", [[{**FILE, "sha256": "1" * 64}], [FILE, {**FILE, "name": "b.pt"}]]
)
def test_other_weights_to_download_make_other_pods(rendered, other):
    def template(files):
        made = rendered({"models": {"download": {"files": files}}})
        return made["Deployment", "backend"]["spec"]["template"]

    assert template([FILE]) == template([FILE])
    assert template([FILE]) != template(other)


def test_what_is_not_downloaded_makes_no_other_pods(rendered):
    def template(files):
        claim = {"type": "claim", "claim": {"existingClaim": "weights"}}
        made = rendered({"models": {**claim, "download": {"files": files}}})
        return made["Deployment", "backend"]["spec"]["template"]

    assert template([FILE]) == template([])


CHANGES = {
    "another port": {"labelStudio": {"service": {"port": 80}}},
    "another port of the backend": {"backend": {"service": {"port": 80}}},
    "another registry": {"global": {"imageRegistry": "registry.example.com"}},
    "another Secret to pull with": {"global": {"imagePullSecrets": ["pull"]}},
    "other passwords": {"secrets": {"existingSecret": "login"}},
    "another label": {"commonLabels": {"team": "vision"}},
    "another name": {"nameOverride": "labels"},
    "no time limit of its own": {"setup": {"activeDeadlineSeconds": 600}},
    # These are not in the Job, and it has to look at them again.
    "another project": {"projects": {"yard.yaml": "title: Yard"}},
    "another threshold": {"models": {"config": "coco: {weights: yolov8n.pt, conf: 0.4}"}},
}


JOB = {"setup": {"mode": "job"}}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setup_job_that_would_change_has_another_name(rendered, change):
    before, same, after = (
        rendered(JOB, more)["Job", "setup"]["metadata"]["name"]
        for more in ({}, {}, CHANGES[change])
    )
    assert same == before != after


def test_a_setup_job_of_another_version_has_another_name(rendered, tmp_path, monkeypatch):
    before = rendered(JOB)["Job", "setup"]["metadata"]["name"]
    other = shutil.copytree(render_chart.CHART, tmp_path / "chart")
    about = (other / "Chart.yaml").read_text()
    (other / "Chart.yaml").write_text(about.replace("appVersion: ", "appVersion: 9"))
    monkeypatch.setattr(render_chart, "CHART", other)
    assert rendered(JOB)["Job", "setup"]["metadata"]["name"] != before


def placement(made):
    """Per component: its node labels, and the keys of the taints that it bears."""
    specs = {component: found["spec"]["template"]["spec"] for (_, component), found in made.items()}
    return {
        component: (spec.get("nodeSelector", {}), {t["key"] for t in spec.get("tolerations", [])})
        for component, spec in specs.items()
    }  # fmt: skip


def test_pods_that_share_the_backends_node_may_go_where_the_backend_may(rendered):
    values = {"backend": GPU, "datasets": {"type": "claim"}, "postgres": {"enabled": True},
              "labelStudio": {"nodeSelector": {"disk": "ssd"}}}  # fmt: skip
    assert placement(rendered(values)) == {
        "backend": ({"gpu": "yes"}, BEARS),
        "setup": ({"gpu": "yes"}, BEARS),
        "label-studio": ({"gpu": "yes", "disk": "ssd"}, BEARS),
        "postgres": ({}, set()),
    }


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"datasets": {"type": "claim", "claim": {"accessModes": ["ReadWriteMany"]}}},
        # Who says where a pod goes, says all of it.
        {"datasets": {"type": "claim"}, **{
            part: {"affinity": {"nodeAffinity": {}}} for part in ("labelStudio", "setup")
        }},
    ],
)  # fmt: skip
def test_pods_that_may_stand_elsewhere_do_not_take_a_gpu_nodes_place(rendered, values):
    found = placement(rendered({**values, "backend": GPU}))
    assert found["backend"] == ({"gpu": "yes"}, BEARS)
    assert found["label-studio"] == found["setup"] == ({}, set())


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({"backend": {"gpu": {"enabled": True}}, "datasets": {"type": "claim"}}, True),
        ({"backend": GPU, "datasets": {"type": "claim"}}, False),
        ({"backend": {"gpu": {"enabled": True}}}, False),
    ],
)
def test_a_gpu_that_label_studio_may_stand_away_from_is_warned_of(tmp_path, values, warned):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [render_chart.HELM, "install", "a", str(render_chart.CHART),
         "--dry-run=client", "-f", str(file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ("without backend.nodeSelector" in done.stdout.partition("NOTES:")[2]) is warned
