"""A release of the chart: what it keeps, part by part, reached through a pod that only waits."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster import kubernetes, tools
from lib import backups, commands, parts, postgres
from lib.cli import UserError

HELM = str(tools.TOOLS / "bin" / "helm")
LABELS = "app.kubernetes.io"
SECRETS = ("LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS", "SECRET_KEY")
LIBPQ = {
    "POSTGRE_HOST": "PGHOST", "POSTGRE_PORT": "PGPORT", "POSTGRE_NAME": "PGDATABASE",
    "POSTGRE_USER": "PGUSER", "POSTGRE_PASSWORD": "PGPASSWORD", "PGSSLMODE": "PGSSLMODE",
}  # fmt: skip
PERSONS = ("models", "datasets")
"""Parts that a person fills."""
BACKUPS = "/backups"
"""Where the pod has the backups that the chart has made."""
SETUP_WITHIN = 900
"""Seconds."""
LIVES = 86400
"""Seconds that the pod waits at most, should nobody be there any more to remove it."""


@dataclass(frozen=True)
class Claim(parts.Part):
    """A claim, by a pod that has it. ``where``: its folder there; ``pod``: what runs in the pod.

    person: whether a person fills it, so that what gives way is kept.
    """

    pod: tuple[str, ...] = ()
    person: bool = False

    def volume(self, action: str) -> list[str]:
        keep = ["--keep"] if self.person and action == "commit" else []
        return [*self.pod, "python3", "-m", "lib.volume", action, self.where, *keep]


@dataclass(frozen=True)
class Mount:
    """A claim as the release mounts it, and where the pod has it."""

    claim: str
    folder: str
    sub_path: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class Release:
    """What the cluster has of it: the Deployments of Label Studio and of the backend.

    backups: the claim of its own backups; empty: none that a pod has had by now.
    saved: what those are made of, by the volumes of the pod that makes them; None: none are made.
    """

    namespace: str
    label_studio: Mapping[str, Any]
    backend: Mapping[str, Any]
    backups: str = ""
    saved: Sequence[str] | None = None

    @property
    def name(self) -> str:
        return str(self.label_studio["metadata"]["labels"][f"{LABELS}/instance"])

    @property
    def full_name(self) -> str:
        """What the names of all its objects begin with."""
        return str(self.label_studio["metadata"]["name"]).removesuffix("-label-studio")

    @property
    def container(self) -> Mapping[str, Any]:
        return dict(_spec(self.label_studio)["containers"][0])

    @cached_property
    def env(self) -> dict[str, str]:
        """Variables of Label Studio and of the backend that are no secrets."""
        both = [*_spec(self.backend)["containers"][0]["env"], *self.container["env"]]
        return {one["name"]: one["value"] for one in both if "value" in one}

    @property
    def postgres(self) -> bool:
        return self.env.get("DJANGO_DB") == "postgresql"

    @property
    def secret_name(self) -> str:
        (found,) = [one for one in self.container["env"] if one["name"] == "LABEL_STUDIO_API_KEY"]
        return str(found["valueFrom"]["secretKeyRef"]["name"])

    def secrets(self) -> dict[str, str]:
        """Passwords, token and key."""
        data = kubernetes.get("secret", self.secret_name, "-n", self.namespace).get("data") or {}
        return {name: base64.b64decode(data[name]).decode() for name in SECRETS if name in data}

    @cached_property
    def mounts(self) -> dict[str, Mount]:
        """The claims of the parts, by their names; without those that one pod alone may have, as
        ``backup.cache=false`` and ``backup.models=false`` say.
        """
        wanted = {
            "label-studio": (self.label_studio, "data", "/data"),
            "backend": (self.backend, "data", "/volumes/backend"),
            "models": (self.backend, "models", "/volumes/models"),
            "datasets": (self.label_studio, "datasets", "/volumes/datasets"),
        }
        found = {}
        for part, (deployment, volume, folder) in wanted.items():
            if self.saved is not None and part in ("backend", "models") and part not in self.saved:
                continue
            spec = _spec(deployment)
            (source,) = [one for one in spec["volumes"] if one["name"] == volume]
            (mount,) = [
                one for one in spec["containers"][0]["volumeMounts"] if one["name"] == volume
            ]
            if claim := source.get("persistentVolumeClaim"):
                made = kubernetes.get("pvc", claim["claimName"], "-n", self.namespace)
                only_read = made["spec"]["accessModes"] == ["ReadOnlyMany"]
                read_only = only_read or (part == "datasets" and mount.get("readOnly", False))
                found[part] = Mount(claim["claimName"], folder, mount.get("subPath", ""), read_only)
        return found

    def texts(self) -> dict[str, dict[str, str]]:
        """Files that are values of the chart, by the part that has them with Docker Compose."""
        names = {"models": f"{self.full_name}-models", "projects": f"{self.full_name}-projects"}
        found = kubernetes.get("configmaps", "-n", self.namespace)["items"]
        there = {one["metadata"]["name"]: one.get("data") or {} for one in found}
        return {part: there[name] for part, name in names.items() if name in there}


def _spec(deployment: Mapping[str, Any]) -> dict[str, Any]:
    return dict(deployment["spec"]["template"]["spec"])


def find(namespace: str, name: str = "") -> Release:
    """
    name: of the release; empty: the only one.

    Raises:
        UserError: there is none, or several.
    """
    selector = f"{LABELS}/part-of=ls-yolo" + (f",{LABELS}/instance={name}" if name else "")
    found: dict[str, dict[str, Any]] = {}
    for one in kubernetes.get("deployments", "-n", namespace, "-l", selector)["items"]:
        labels = one["metadata"]["labels"]
        parts_of = found.setdefault(labels[f"{LABELS}/instance"], {})
        parts_of[labels[f"{LABELS}/component"]] = one
    if not found:
        raise UserError(
            f"found no release{f' {name}' if name else ''} in the namespace {namespace}. Install "
            "one (docs/kubernetes.md), or name another: NAMESPACE=, RELEASE="
        )
    if len(found) > 1:
        raise UserError(f"found the releases {', '.join(sorted(found))}. Name one: RELEASE=")
    ((instance, both),) = found.items()
    backups, saved = _backups(namespace, instance)
    return Release(namespace, both["label-studio"], both["backend"], backups, saved)


def _backups(namespace: str, instance: str) -> tuple[str, Sequence[str] | None]:
    """The claim of the release's own backups, and the volumes of the pod that makes them."""
    selector = f"{LABELS}/instance={instance},{LABELS}/component=backup"
    for job in kubernetes.get("cronjobs", "-n", namespace, "-l", selector)["items"]:
        volumes = {one["name"]: one for one in _spec(job["spec"]["jobTemplate"])["volumes"]}
        claim = ""
        if "backups" in volumes:
            claim = str(volumes["backups"]["persistentVolumeClaim"]["claimName"])
            made = kubernetes.get("pvc", claim, "-n", namespace)
            # Until the first pod that the scheduler places with it there may be no volume, and a
            # pod whose node is named would wait for it forever.
            if made["status"].get("phase") != "Bound":
                claim = ""
        return claim, list(volumes)
    return "", None


# The pod


def waiting(release: Release) -> dict[str, Any]:
    """A pod that has all claims and PostgreSQL's programs, with the rights of Label Studio's.

    Raises:
        UserError: an older chart has installed the release.
    """
    spec = _spec(release.label_studio)
    mounts = release.mounts
    inner = {
        "securityContext": release.container["securityContext"],
        "imagePullPolicy": release.container["imagePullPolicy"],
        "command": ["sleep", str(LIVES)],
        "resources": release.container.get("resources", {}),
    }
    containers = [{
        **inner,
        "name": "label-studio",
        "image": release.container["image"],
        "env": release.container["env"],
        "envFrom": release.container.get("envFrom", []),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            *({"name": part, "mountPath": one.folder, "readOnly": one.read_only,
               **({"subPath": one.sub_path} if one.sub_path else {})}
              for part, one in mounts.items()),
            *([{"name": "backups", "mountPath": BACKUPS, "readOnly": True}] if release.backups
              else []),
        ],
    }]  # fmt: skip
    if release.postgres:
        image = (release.label_studio["metadata"].get("annotations") or {}).get(
            "ls-yolo/postgres-image"
        )
        if not image:
            raise UserError(
                f"an older chart has installed {release.name}, which does not name the image of "
                "PostgreSQL. Upgrade it with the values that it has, then this again"
            )
        containers.append({
            **inner,
            "name": "postgres",
            "image": image,
            "env": [{**one, "name": LIBPQ[one["name"]]}
                    for one in release.container["env"] if one["name"] in LIBPQ],
        })  # fmt: skip
    claims = {part: one.claim for part, one in mounts.items()}
    if release.backups:
        claims["backups"] = release.backups
    node = kubernetes.node_of(release.namespace, claims.values())
    kept = ("imagePullSecrets", "serviceAccountName", "securityContext", "tolerations")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{release.full_name}-backup-by-hand",
            "namespace": release.namespace,
            "labels": {
                f"{LABELS}/name": release.label_studio["metadata"]["labels"][f"{LABELS}/name"],
                f"{LABELS}/instance": release.name,
                f"{LABELS}/component": "backup",
                f"{LABELS}/part-of": "ls-yolo",
            },
        },
        "spec": {
            **{key: spec[key] for key in kept if key in spec},
            # Only there can the pod mount what another has.
            **({"nodeName": node} if node else {}),
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIVES,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "containers": containers,
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                *({"name": part, "persistentVolumeClaim": {"claimName": claim}}
                  for part, claim in claims.items()),
            ],
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Hand:
    """The pod, while it is there."""

    release: Release
    pod: str

    def command(self, container: str, *words: str) -> list[str]:
        return [kubernetes.KUBECTL, "exec", "-i", "-n", self.release.namespace, self.pod, "-c",
                container, "--", *words]  # fmt: skip

    def python(self, text: str, *more: str) -> str:
        """What a line of Python prints beside Label Studio's files.

        Raises:
            UserError: it failed.
        """
        done = subprocess.run(
            self.command("label-studio", "python", "-c", text, *more), stdin=subprocess.DEVNULL,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise UserError(f"{self.pod}: {done.stderr.strip() or f'exit {done.returncode}'}")
        return done.stdout.strip()

    @cached_property
    def label_studio_version(self) -> str:
        return self.python("from importlib.metadata import version; print(version('label-studio'))")

    @property
    def parts(self) -> list[parts.Part]:
        """The claims, in the order in which they are saved."""
        reach = tuple(self.command("label-studio"))
        return [
            Claim(part, one.folder, backups.ELSEWHERE.get(part, ()), reach, part in PERSONS)
            for part, one in self.release.mounts.items()
        ]

    @property
    def server(self) -> postgres.Server | None:
        env = self.release.env
        if not self.release.postgres:
            return None
        reach = tuple(self.command("postgres"))
        return postgres.Server(reach, env["POSTGRE_NAME"], env["POSTGRE_USER"])


@contextlib.contextmanager
def hand(release: Release) -> Iterator[Hand]:
    """
    Raises:
        UserError: the pod does not start.
    """
    pod = waiting(release)
    name, where = pod["metadata"]["name"], ("-n", release.namespace)
    # One that a run has left which was killed.
    kubernetes.kubectl("delete", "pod", name, *where, "--ignore-not-found")
    kubernetes.apply(pod)
    try:
        ready = ("--for=condition=Ready", "--timeout=180s")
        try:
            kubernetes.kubectl("wait", f"pod/{name}", *where, *ready)
        except UserError as failure:
            events = ("get", "events", *where, f"--field-selector=involvedObject.name={name}")
            raise UserError(f"{failure}\n{kubernetes.kubectl(*events)}") from None
        yield Hand(release, name)
    finally:
        commands.output([kubernetes.KUBECTL, "delete", "pod", name, *where, "--ignore-not-found"])


@contextlib.contextmanager
def source(hand: Hand, kit: str, datasets: bool = False) -> Iterator[backups.Source]:
    """What a backup of the release has in it, as the chart's own backups have it."""
    release, secrets, server = hand.release, hand.release.secrets(), hand.server
    with tempfile.TemporaryDirectory(prefix="ls-yolo-values-") as folder:
        texts = []
        for part, files in release.texts().items():
            (here := Path(folder, part)).mkdir()
            for name, text in files.items():
                (here / name).write_text(text)
            texts.append(parts.Folder(part, str(here)))
        claims = [part for part in hand.parts if part.name != "datasets"]
        images = [part for part in hand.parts if part.name == "datasets" and datasets]
        yield backups.Source(
            f"{release.namespace}-{release.full_name}", kit, hand.label_studio_version,
            backups.settings_text({**release.env, **secrets}, release.postgres),
            [*claims, *texts, *images], server.dump if server else None,
            server.size() if server else 0, backups.keys(secrets.get("SECRET_KEY", "")),
        )  # fmt: skip


# What is half done: a Secret, since what it says may be one


def note(release: Release, what: str) -> dict[str, Any] | None:
    """What was written down of something that is half done; nothing as a rule."""
    for found in kubernetes.get("secrets", "-n", release.namespace)["items"]:
        if found["metadata"]["name"] == f"{release.full_name}-{what}":
            said: dict[str, Any] = json.loads(base64.b64decode(found["data"][what]))
            return said
    return None


def write_note(release: Release, what: str, said: Mapping[str, Any]) -> None:
    kubernetes.apply({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": f"{release.full_name}-{what}", "namespace": release.namespace},
        "stringData": {what: json.dumps(said)},
    })  # fmt: skip


def remove_note(release: Release, what: str) -> None:
    kubernetes.kubectl("delete", "secret", f"{release.full_name}-{what}", "-n", release.namespace)


# What a restore ends with


def scale(release: Release, replicas: Mapping[str, int]) -> None:
    """Sets the number of pods of Deployments, and waits until they are there, or gone."""
    where = ("-n", release.namespace)
    for deployment, number in replicas.items():
        kubernetes.kubectl("scale", "deployment", deployment, *where, f"--replicas={number}")
    for deployment, number in replicas.items():
        if number:
            kubernetes.kubectl("rollout", "status", "deployment", deployment, *where,
                               "--timeout=15m", timeout=960)  # fmt: skip
        else:
            component = deployment.removeprefix(f"{release.full_name}-")
            selector = f"{LABELS}/instance={release.name},{LABELS}/component={component}"
            kubernetes.kubectl("wait", "pod", *where, "--for=delete", "-l", selector,
                               "--timeout=5m", timeout=330)  # fmt: skip


RESTORE = "restore"
"""The note that is there from the moment that all of a restore is staged until all is in its place;
it has the passwords that the release gets."""


def need_no_restore(release: Release) -> None:
    """Raises: UserError: a restore was begun and is not finished."""
    if note(release, RESTORE):
        raise UserError("a restore is half done. Run the same make helm-restore again, then this")


def revision(release: Release) -> int:
    """The one that Helm has deployed.

    Raises:
        UserError: Helm has none: another upgrade is half done, or failed.
    """
    words = [HELM, "status", release.name, "-n", release.namespace, "-o", "json"]
    said = json.loads(commands.output(words, 60) or "{}")
    state = said.get("info", {}).get("status", "not there")
    if state != "deployed":
        raise UserError(
            f"the release {release.name} is {state}, expected deployed. Put it right first: "
            f"helm -n {release.namespace} rollback {release.name}"
        )
    return int(said["version"])


def setup_again(release: Release) -> None:
    """Runs the Job again that connects projects with the backend; does nothing without one.

    Raises:
        UserError: it fails.
    """
    where = ("-n", release.namespace)
    jobs = []
    for what in ("hooks", "manifest"):
        text = commands.output([HELM, "get", what, release.name, *where], 60) or ""
        # By kubectl, which reads YAML; a bare machine has nothing else that does.
        shown = kubernetes.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", *where,
                                   stdin=text) if text.strip() else ""  # fmt: skip
        jobs += [one for one in _objects(shown) if one["kind"] == "Job"
                 and one["metadata"]["labels"].get(f"{LABELS}/component") == "setup"]  # fmt: skip
    for job in jobs:
        name = job["metadata"]["name"]
        kubernetes.kubectl("delete", "job", name, *where, "--ignore-not-found")
        kubernetes.kubectl("create", "-f", "-", *where, stdin=json.dumps(job))
        if _ended(name, release.namespace) != "Complete":
            raise UserError(
                "setup did not reach its goal, all else is done. What it says: "
                f"kubectl -n {release.namespace} logs job/{name}"
            )


def _ended(job: str, namespace: str) -> str:
    """How a Job has ended: ``Complete`` or ``Failed``; kubectl waits for one of them only."""
    end = time.monotonic() + SETUP_WITHIN
    while True:
        status = kubernetes.get("job", job, "-n", namespace)["status"]
        for one in status.get("conditions", []):
            if one["type"] in ("Complete", "Failed") and one["status"] == "True":
                return str(one["type"])
        if time.monotonic() > end:
            raise UserError(f"the Job {job} has not ended within {SETUP_WITHIN} s")
        time.sleep(1)


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that follow one another in ``text``."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    while text := text.lstrip():
        one, end = decoder.raw_decode(text)
        found += one["items"] if one["kind"] == "List" else [one]
        text = text[end:]
    return found
