"""Images on the nodes of a cluster, files in its claims."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading

import pytest

from cluster import kubernetes
from lib import commands, docker
from lib.cli import UserError

NAMED = {"ls-yolo/a:1": "ls-yolo/a:1-0123456789ab"}


@pytest.fixture
def node(monkeypatch):
    """A cluster of two nodes; what each has is set by the test."""
    images = [set(), set()]
    monkeypatch.setattr(
        kubernetes, "get",
        lambda *words: {"items": [{"status": {"images": [{"names": sorted(found)}]}}
                                  for found in images]},
    )  # fmt: skip
    monkeypatch.setattr(kubernetes, "context", lambda: "somewhere")
    monkeypatch.setattr(kubernetes, "content_tag", NAMED.__getitem__)
    monkeypatch.setattr(docker, "client", lambda: "docker")
    monkeypatch.setattr(commands, "output", lambda *more: "")
    monkeypatch.delenv("KUBE_LOAD", raising=False)
    return images


def test_an_image_that_every_node_has_is_not_brought_again(node, monkeypatch):
    monkeypatch.setattr(commands, "run", lambda *more, **others: pytest.fail("brought"))
    for found in node:
        found.add("docker.io/ls-yolo/a:1-0123456789ab")
    assert kubernetes.bring_images(NAMED) == NAMED


def test_an_image_that_one_node_lacks_is_brought_under_the_tag_of_its_content(node, monkeypatch):
    ran = []
    monkeypatch.setattr(commands, "run", lambda command, **others: ran.append(command))
    monkeypatch.setenv("KUBE_LOAD", "minikube image load")
    node[0].add("ls-yolo/a:1-0123456789ab")
    assert kubernetes.bring_images(NAMED) == NAMED
    assert ran == [
        ["docker", "tag", "ls-yolo/a:1", "ls-yolo/a:1-0123456789ab"],
        ["minikube", "image", "load", "ls-yolo/a:1-0123456789ab"],
    ]


def test_without_a_way_to_bring_images_the_cure_is_named(node):
    with pytest.raises(UserError, match="KUBE_LOAD"):
        kubernetes.bring_images(NAMED)


def test_images_of_a_kind_cluster_go_there_by_kind(monkeypatch):
    monkeypatch.delenv("KUBE_LOAD", raising=False)
    monkeypatch.setattr(kubernetes.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert kubernetes.loader("kind-work") == ["kind", "load", "docker-image", "--name", "work"]
    assert kubernetes.loader("somewhere") == []


def test_no_cluster_is_an_error_with_a_cure(monkeypatch):
    def refused(*words, **more):
        raise UserError("connection refused")

    monkeypatch.setattr(kubernetes, "kubectl", refused)
    with pytest.raises(UserError, match=r"connection refused.*KUBECONFIG"):
        kubernetes.context()


def test_nothing_to_make_is_nothing_to_ask_for(monkeypatch):
    monkeypatch.setattr(kubernetes, "kubectl", lambda *more, **others: pytest.fail("asked"))
    kubernetes.apply()


def test_kubectl_fails_with_its_own_words(monkeypatch):
    done = subprocess.CompletedProcess([], 1, b"", b"pods is forbidden\n")
    monkeypatch.setattr(kubernetes.subprocess, "run", lambda *more, **others: done)
    with pytest.raises(UserError, match="kubectl get pods: pods is forbidden"):
        kubernetes.kubectl("get", "pods")


def test_files_arrive_under_their_claims_and_everyone_may_read_them(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "a").chmod(0o600)
    pipe = io.BytesIO()
    kubernetes.send({"models/a.pt": tmp_path / "a", "datasets/yard/b": b"image"}, pipe)
    pipe.seek(0)
    with tarfile.open(fileobj=pipe) as tar:
        found = {entry.name: (entry.mode, tar.extractfile(entry).read()) for entry in tar}
    assert found == {"models/a.pt": (0o644, b"weights"), "datasets/yard/b": (0o644, b"image")}


def test_the_pod_that_fills_claims_is_restricted(monkeypatch):
    monkeypatch.setattr(kubernetes, "node_of", lambda *more: "")
    pod = kubernetes.filler("here", "fill", "image", ["models", "datasets"])["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [m["mountPath"] for m in container["volumeMounts"]] == ["/models", "/datasets"]


def test_claims_are_filled_on_the_node_that_has_them(monkeypatch):
    def pod(claim, node, phase="Running"):
        volumes = [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": claim}}]
        return {"spec": {"nodeName": node, "volumes": volumes}, "status": {"phase": phase}}

    pods = [pod("other", "a"), pod("models", "b", "Succeeded"), pod("models", "c")]
    monkeypatch.setattr(kubernetes, "get", lambda *words: {"items": pods})
    assert kubernetes.node_of("here", ["models"]) == "c"
    assert kubernetes.node_of("here", ["datasets"]) == ""


def test_a_pod_that_says_more_than_a_pipe_holds_is_heard_while_files_are_sent(
    tmp_path, monkeypatch
):
    """Neither waits for the other: the pod speaks first, and there is more to send than fits."""
    program = tmp_path / "kubectl"
    talk = "head -c 1000000 /dev/zero | tr '\\0' '\\n' >&2; cat >/dev/null; echo full >&2; exit 1"
    program.write_text(
        f"#!/bin/sh\ncase $1 in exec) {talk};; get) echo '{{\"items\": []}}';; *) cat;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(kubernetes, "KUBECTL", str(program))
    failures = []

    def fill():
        try:
            kubernetes.fill("here", "image", {"models/a.pt": bytes(10**6)})
        except UserError as error:
            failures.append(str(error))

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    thread.join(20)
    assert failures == ["files cannot be copied into the claims of here: full"]
