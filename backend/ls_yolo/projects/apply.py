"""Makes Label Studio as projects/*.yaml say.

Every step looks first and changes only what differs, so it is safe to run again, and a run that was
cut off is finished by the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio import display
from ls_yolo.labelstudio.bulk import store_of
from ls_yolo.labelstudio.client import Studio, StudioError, TokenError, away, reason
from ls_yolo.projects import connection, fields, members
from ls_yolo.projects.backend import ApplyError, Backend, NotReady, Say
from ls_yolo.projects.config import Project
from ls_yolo.projects.reconcile import Reconciler
from ls_yolo.projects.secrets import Secrets


@dataclass(frozen=True)
class Made:
    """A project as it is in Label Studio: its id, when it was made, how many tasks it has.

    ``project``: as its file says, with labels, whoever has made them.
    ``version``: what answers for it. ``waiting``: why nothing is to be predicted yet, else empty.
    """

    project: Project
    id: int
    born: str
    tasks: int
    version: str
    waiting: str


def check_token(studio: Studio) -> str:
    """The e-mail address of the user that the token belongs to.

    Raises:
        TokenError: Label Studio does not take the token.
        NotReady: Label Studio is not reached, or has no time.
        ApplyError: it fails otherwise.
    """
    try:
        return str(studio.client.users.whoami().email)
    except (ApiError, httpx.HTTPError) as error:
        if isinstance(error, ApiError) and error.status_code in (401, 403):
            raise TokenError(
                f"Label Studio does not take LABEL_STUDIO_API_KEY ({reason(error)}). "
                "It takes the one of .env when it starts: restart the label-studio service"
            ) from None
        kind = NotReady if away(error) else ApplyError
        raise kind(f"Label Studio: {reason(error)}") from None


class Applier:
    """Makes projects in one Label Studio, with one backend. ``root`` is the datasets folder.

    ``faults`` are of models that still answer, but with what their files were before.
    ``environment``: what references to secrets stand for.
    """

    def __init__(
        self,
        studio: Studio,
        backend: Backend,
        root: Path,
        say: Say,
        faults: Mapping[str, str] = MappingProxyType({}),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._faults = faults
        self._secrets = Secrets(environment)
        self._studio = studio
        # The SDK's rows are typed more narrowly than what Label Studio sends.
        self._api: Any = studio.client
        self._backend = backend
        self._root = root
        self._say: Say = lambda text: say(self._secrets.scrub(text))
        self._reconciler = Reconciler(studio, backend, root, self._say, self._secrets)

    def diff(self, project: Project, prune: bool = False) -> str:
        """What `apply` would change, for people to read; empty where that is nothing.

        Raises:
            ApplyError: it cannot be found out.
        """
        with self._told(project):
            return self._reconciler.diff(self._reconciler.resolve(project), prune)

    def deletions(self, project: Project) -> list[str]:
        """What `apply` with ``prune`` would delete, a line each.

        Raises:
            ApplyError: it cannot be found out.
        """
        with self._told(project):
            return self._reconciler.deletions(self._reconciler.resolve(project))

    def apply(self, project: Project, prune: bool = False) -> Made:
        """Makes or repairs one project; its tasks are left to be predicted.

        ``prune``: storages, webhooks, views and connections that its file does not have are
        deleted.

        Raises:
            TokenError: Label Studio does not take the token.
            ApplyError: something cannot be made.
        """
        with self._told(project):
            project = self._reconciler.resolve(project)
            self._reconciler.check(project)
            version, waiting = "", "no model is connected"
            if project.connect:
                version, waiting = self._check_labels(project)
            self._reconciler.check_secrets(project)
            number = self._project(project, version)
            self._reconciler.items(number, project, prune)
            self._reconciler.fill(number, project)
            members.add(self._studio, number, project.members, project.title, self._say)
            if not project.connect:
                found = self._api.projects.get(number)
                tasks = int(found.task_number or 0)
                return Made(project, number, str(found.created_at or ""), tasks, version, waiting)
            # Without anything to draw yet there is no version that predictions could bear.
            title = _names(project) if waiting else version
            self._connection(number, project, title)
            found = self._show_predictions(number, title)
            if not project.predict and not waiting:
                # Nobody makes them complete: each comes when its task is opened.
                display.end(self._studio, number, version, self._versions(number))
            tasks = int(found.task_number or 0)
            return Made(project, number, str(found.created_at or ""), tasks, version, waiting)

    @contextmanager
    def _told(self, project: Project) -> Iterator[None]:
        """Has errors name the project, and no secret."""
        try:
            yield
        except ApplyError as error:
            text = self._secrets.scrub(str(error))
            known = (f"{project.title}: ", f"{project.source}: ")
            raise ApplyError(text if text.startswith(known) else known[0] + text) from None
        except TokenError:
            raise
        except (ApiError, StudioError, httpx.HTTPError) as error:
            why = self._secrets.scrub(reason(error))
            raise ApplyError(f"{project.title}: Label Studio: {why}") from None

    def _check_labels(self, project: Project) -> tuple[str, str]:
        """Asks the backend before Label Studio does, whose own message would hide the reason.

        Returns the version that answers, and what it waits for where there is nothing to draw yet.
        """
        try:
            answer = self._backend.ask(
                project.models, "setup", {"project": "0.0", "schema": project.label_config}
            )
        except ApplyError as error:
            raise ApplyError(f"{project.source}: {error}") from None
        version, waiting = str(answer["model_version"]), str(answer.get("waiting") or "")
        if waiting:
            # Where a SAM answers smart tools meanwhile, the version is its own.
            why = version if version.endswith(waiting) else waiting
            self._say(f"{project.title}: warning: {why}; no task is predicted until then")
            return version, waiting
        for name in (part.rpartition("@")[0] for part in version.split("+")):
            if name in self._faults:
                raise ApplyError(
                    f"{project.title}: the backend still answers with {version}, because what is "
                    f"there now cannot be used: {self._faults[name]}"
                )
        for control, labels in answer.get("unmapped", {}).items():
            for why in labels.values():
                self._say(
                    f"{project.title}: warning: {control}: {why}; the label stays for people to use"
                )
        for why in answer.get("warnings", []):
            self._say(f"{project.title}: warning: {why}")
        return version, ""

    def _project(self, project: Project, version: str) -> int:
        named = {key: value for key, value in project.named.fields.items() if key != "models"}
        number = self._reconciler.find(project)
        if number is None:
            made = self._api.projects.create(title=project.title, **fields.sent(named))
            self._say(f"{project.title}: made (id {made.id})")
            return int(made.id)
        found = fields.found(self._api.projects.get(number).model_dump())
        changes = {key: value for key, value in named.items() if found[key] != value}
        if "label_config" in changes:
            # Label Studio refuses a configuration that lacks what annotations use; asked first, so
            # that a refusal leaves the predictions as they are.
            self._api.projects.validate_label_config(number, label_config=project.label_config)
            # The version is that of the model, so predictions for other labels would pass for new.
            # They go first: cut off here, the next run still sees that the configuration differs.
            if version:
                self._forget(number, project.title, version)
        if changes:
            self._api.projects.update(number, **fields.sent(changes))
            self._say(
                f"{project.title}: {' and '.join(sorted(changes))} differed from {project.source}, "
                "which holds; changed"
            )
        return number

    def _forget(self, number: int, title: str, version: str) -> None:
        """Deletes the predictions of a version, in requests that are short: Label Studio's own
        call for all of them takes minutes and gigabytes."""
        store = store_of(self._studio)
        gone = 0
        while deleted := store.delete(number, version):
            gone += deleted
        if gone:
            self._say(f"{title}: {gone} predictions of {version} deleted: they are of other labels")

    def _connection(self, number: int, project: Project, title: str) -> None:
        """Makes or repairs the ML backend connection.

        ``title``: of a new one; that of another says what people see, see `display`.
        """
        rows = [row.model_dump() for row in self._api.ml.list(project=number)]
        row = connection.ours(rows, self._backend, project)
        settings = connection.settings(row, self._backend, project)
        url = settings["url"]
        settings |= {"title": title, "project": number}
        if row is None:
            if self._api.projects.get(number).model_version:
                # Else it would look as if people had gone back from ``title``.
                settings["title"] = _names(project)
            row = self._api.ml.create(**settings).model_dump()
            self._say(f"{project.title}: connected to {url}")
            rows.append(row)
        else:
            settings["title"] = row.get("title") or title
            if connection.faults(row, settings) or row.get("title") != settings["title"]:
                self._api.ml.update(str(row["id"]), **settings)
                self._say(f"{project.title}: connection to {url} repaired")
            for twin in connection.twins(rows, row, url):
                self._api.ml.delete(twin["id"])
                self._say(f"{project.title}: a second connection to {url} removed")
        first = min(rows, key=lambda row: row["id"])
        if first["id"] != row["id"]:
            raise ApplyError(
                f"{project.title}: the connection to {first['url']} comes first, and Label Studio "
                "asks only the first; delete it in the project's settings, under Model"
            )

    def _show_predictions(self, number: int, title: str) -> Any:
        """Has a project show predictions, of ``title`` where it names no version; returns the
        project as it was before."""
        found = self._api.projects.get(number)
        if not found.show_collab_predictions or not found.model_version:
            named = found.model_version or title
            self._say(f"{found.title}: people are shown the predictions of {named}")
            self._api.projects.update(number, model_version=named, show_collab_predictions=True)
        return found

    def _versions(self, number: int) -> set[str]:
        """The versions that a project has predictions of."""
        rows = self._studio.request("GET", f"api/projects/{number}/model-versions/")
        return {name for name, count in rows.items() if count}


def _names(project: Project) -> str:
    """What a connection is called of which there is no complete version."""
    return "+".join(project.models) or "default model"
