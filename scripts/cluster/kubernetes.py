"""A Kubernetes cluster as kubectl's current context names it: images on its nodes, files in its
claims. Knows nothing of which cluster it is, except that images of a kind cluster go there by kind.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from cluster import tools
from lib import ROOT, commands, docker
from lib.cli import UserError, say

KUBECTL = str(tools.TOOLS / "bin" / "kubectl")
# The user of both images.
USER = 1001
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
NO_CLUSTER = (
    "Point KUBECONFIG at a cluster's kubeconfig, or make one where Docker runs: "
    "kind create cluster (https://kind.sigs.k8s.io)"
)
NO_LOADER = (
    "Set KUBE_LOAD to the command that brings an image of the local Docker Engine to the nodes and "
    'takes image names as arguments, such as KUBE_LOAD="minikube image load", or push both images '
    "to a registry of yours and name it in the values"
)


def kubectl(*words: str, stdin: str | bytes | None = None, timeout: float = 300) -> str:
    """What kubectl prints.

    Raises:
        UserError: it is missing, failed or took too long; with its own words.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(
            [KUBECTL, *words], input=data, capture_output=True, timeout=timeout,
            stdin=None if data is not None else subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"cannot run {KUBECTL}: {error.strerror}. Run: make test-tools") from error
    except subprocess.TimeoutExpired:
        raise UserError(f"kubectl {' '.join(words)}: no answer after {timeout:g} s") from None
    if done.returncode:
        raise UserError(f"kubectl {' '.join(words)}: {done.stderr.decode().strip()}")
    return done.stdout.decode()


def get(*words: str) -> Any:
    """Objects of the cluster: ``get("pods", "-n", "x")``."""
    return json.loads(kubectl("get", *words, "-o", "json"))


def apply(*objects: Mapping[str, Any]) -> None:
    """Makes objects, or changes them into these."""
    if not objects:
        return
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List",
                                                  "items": list(objects)}))  # fmt: skip


def make_namespace(name: str) -> None:
    """Makes a namespace that enforces restricted pod security; one that is there stays as it is."""
    if name not in {found["metadata"]["name"] for found in get("namespaces")["items"]}:
        apply({"apiVersion": "v1", "kind": "Namespace",
               "metadata": {"name": name, "labels": RESTRICTED}})  # fmt: skip


def context() -> str:
    """The name of the cluster that answers.

    Raises:
        UserError: none does; the fix is named.
    """
    try:
        kubectl("get", "--raw", "/readyz", "--request-timeout=10s", timeout=30)
        return kubectl("config", "current-context").strip()
    except UserError as error:
        raise UserError(f"found no cluster that answers ({error}). {NO_CLUSTER}") from None


# Images


def content_tag(image: str) -> str:
    """``image`` under a tag that says what is in it, so that a node never runs an older one.

    Raises:
        UserError: the local Docker Engine does not have it.
    """
    identity = commands.output([docker.client(), "image", "inspect", "-f", "{{.Id}}", image])
    if identity is None:
        raise UserError(f"found no image {image} in the local Docker Engine. Run: make images")
    return f"{image}-{identity.rpartition(':')[2][:12]}"


def on_nodes() -> set[str]:
    """Images that every node has, by the names that nodes tell."""
    names = [
        {
            name.removeprefix("docker.io/")
            for image in node["status"].get("images", [])
            for name in image.get("names") or []
        }
        for node in get("nodes")["items"]
    ]
    return set.intersection(*names) if names else set()


def loader(context: str) -> list[str]:
    """The command that brings images to the nodes; empty if none is known."""
    if given := os.environ.get("KUBE_LOAD", "").strip():
        return shlex.split(given)
    if context.startswith("kind-") and shutil.which("kind"):
        return ["kind", "load", "docker-image", "--name", context.removeprefix("kind-")]
    return []


def bring_images(images: Iterable[str]) -> dict[str, str]:
    """Brings images to the nodes, those that are not there; returns the name that each has there.

    Raises:
        UserError: there is no way to bring them, or it failed.
    """
    present = on_nodes()
    named = {image: content_tag(image) for image in images}
    missing = {image: name for image, name in named.items() if name not in present}
    if not missing:
        return named
    command = loader(context())
    if not command:
        raise UserError(f"the cluster does not have {', '.join(missing.values())}. {NO_LOADER}")
    for image, name in missing.items():
        say(f"bringing {name} to the cluster's nodes")
        commands.run([docker.client(), "tag", image, name])
        try:
            commands.run([*command, name], cwd=ROOT)
        finally:
            # Only this name of it: the image stays under its own.
            commands.output([docker.client(), "rmi", name])
    return named


# Files


def claim(namespace: str, name: str, size: str, mode: str = "ReadWriteOnce") -> dict[str, Any]:
    """A PersistentVolumeClaim of the default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": [mode], "resources": {"requests": {"storage": size}}},
    }


def node_of(namespace: str, claims: Iterable[str]) -> str:
    """The node of a pod that has one of the claims; only there can another pod mount them all."""
    names = set(claims)
    for pod in get("pods", "-n", namespace)["items"]:
        used = {
            (volume.get("persistentVolumeClaim") or {}).get("claimName")
            for volume in pod["spec"].get("volumes", [])
        }
        if pod["status"]["phase"] == "Running" and used & names:
            return str(pod["spec"]["nodeName"])
    return ""


def filler(namespace: str, name: str, image: str, claims: Iterable[str]) -> dict[str, Any]:
    """A pod that does nothing, with each claim mounted at ``/<its name>``."""
    mounts = list(claims)
    node = node_of(namespace, mounts)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            **({"nodeName": node} if node else {}),
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "fill",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "3600"],
                "securityContext": {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": f"c{n}", "mountPath": f"/{mount}"}
                                 for n, mount in enumerate(mounts)],
            }],
            "volumes": [{"name": f"c{n}", "persistentVolumeClaim": {"claimName": mount}}
                        for n, mount in enumerate(mounts)],
        },
    }  # fmt: skip


def send(files: Mapping[str, Path | bytes], pipe: IO[bytes]) -> None:
    """Writes a tar of files, by the path that they get; everyone may read them."""
    with tarfile.open(fileobj=pipe, mode="w|") as tar:
        for name, source in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o644
            if isinstance(source, bytes):
                entry.size = len(source)
                tar.addfile(entry, io.BytesIO(source))
            else:
                found = source.stat()
                entry.size, entry.mtime = found.st_size, int(found.st_mtime)
                with source.open("rb") as file:
                    tar.addfile(entry, file)


def fill(namespace: str, image: str, files: Mapping[str, Path | bytes]) -> None:
    """Puts files into claims through a pod that is there just for that: ``<claim>/<path>``.

    Raises:
        UserError: the pod does not start, or a claim takes no more.
    """
    pod = f"fill-{secrets.token_hex(3)}"
    apply(filler(namespace, pod, image, sorted({name.partition("/")[0] for name in files})))
    try:
        kubectl("wait", "-n", namespace, f"pod/{pod}", "--for=condition=Ready", "--timeout=180s")
        unpack = ["tar", "-x", "--no-same-owner", "--no-overwrite-dir", "-C", "/"]
        with subprocess.Popen(
            [KUBECTL, "exec", "-i", "-n", namespace, pod, "--", *unpack],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            errors = commands.Reader(process.stderr)
            # A pod that refuses ends the pipe; what it says tells more than that.
            with contextlib.suppress(BrokenPipeError):
                send(files, process.stdin)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            said = errors.text()
        if process.returncode:
            raise UserError(f"files cannot be copied into the claims of {namespace}: {said}")
    finally:
        kubectl("delete", "pod", pod, "-n", namespace, "--ignore-not-found", "--wait=false")
