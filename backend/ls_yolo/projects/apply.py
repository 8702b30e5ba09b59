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
from urllib.parse import urlsplit

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.bulk import store_of
from ls_yolo.labelstudio.client import Studio, StudioError, TokenError, reason
from ls_yolo.projects import fields, members
from ls_yolo.projects.backend import ApplyError, Backend, Say
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
        ApplyError: Label Studio fails otherwise.
    """
    try:
        return str(studio.client.users.whoami().email)
    except ApiError as error:
        if error.status_code in (401, 403):
            raise TokenError(
                f"Label Studio does not take LABEL_STUDIO_API_KEY ({reason(error)}). "
                "It takes the one of .env when it starts: restart the label-studio service"
            ) from None
        raise ApplyError(f"Label Studio: {reason(error)}") from None
    except httpx.HTTPError as error:
        raise ApplyError(f"Label Studio: {reason(error)}") from None


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
        self._say = say
        self._reconciler = Reconciler(studio, backend, root, say, self._secrets)

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
            version, waiting = self._check_labels(project)
            self._reconciler.check_secrets(project)
            number = self._project(project, version)
            self._reconciler.items(number, project, prune)
            self._reconciler.fill(number, project)
            members.add(self._studio, number, project.members, project.title, self._say)
            # Without anything to draw yet there is no version that predictions could bear.
            title = ("+".join(project.models) or "default model") if waiting else version
            self._connection(number, project, title)
            found = self._show_predictions(number, title)
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
            self._forget(number, version)
        if changes:
            self._api.projects.update(number, **fields.sent(changes))
            self._say(
                f"{project.title}: {' and '.join(sorted(changes))} differed from {project.source}, "
                "which holds; changed"
            )
        return number

    def _forget(self, number: int, version: str) -> None:
        """Deletes the predictions of a version, in requests that are short: Label Studio's own
        call for all of them takes minutes and gigabytes."""
        store = store_of(self._studio)
        while store.delete(number, version):
            pass

    def _connection(self, number: int, project: Project, title: str) -> None:
        """Makes or repairs the ML backend connection.

        The title is the version: the project's model_version is to be both, the title of a
        connection, so that tasks without a prediction are predicted when they are opened, and the
        version of predictions, by which uncertainty sampling finds them.
        """
        url = self._backend.address(project.models)
        rows = [row.model_dump() for row in self._api.ml.list(project=number)]
        host = urlsplit(url).netloc
        ours = [row for row in rows if urlsplit(row["url"] or "").netloc == host]
        # The row of this very URL first: what an interrupted or refused registration has left.
        ours.sort(key=lambda row: (row["url"] != url, row["id"]))
        settings: dict[str, Any] = {"url": url, "title": title, "project": number}
        if self._backend.password:
            settings |= {
                "auth_method": "BASIC_AUTH",
                "basic_auth_user": self._backend.user,
                "basic_auth_pass": self._backend.password,
            }
        else:
            settings |= {"auth_method": "NONE"}
        if any(control.flag("smart") for control in label_config.parse(project.label_config)):
            settings |= {"is_interactive": True}  # else the page never asks; people may want it too
        if not ours:
            made = self._api.ml.create(**settings)
            self._say(f"{project.title}: connected to {url}")
            rows.append(made.model_dump())
            ours = rows[-1:]
        else:
            row = ours[0]
            same = all(
                row.get(key) == settings.get(key)
                for key in ("url", "title", "auth_method", "basic_auth_user", "is_interactive")
                if key != "is_interactive" or key in settings
            )
            if not same or str(row.get("state")) != "CO" or not row.get("model_version"):
                self._api.ml.update(str(row["id"]), **settings)
                self._say(f"{project.title}: connection to {url} repaired")
            for twin in ours[1:]:
                if twin["url"] == url:
                    self._api.ml.delete(twin["id"])
                    self._say(f"{project.title}: a second connection to {url} removed")
        first = min(rows, key=lambda row: row["id"])
        if first["id"] != ours[0]["id"]:
            raise ApplyError(
                f"{project.title}: the connection to {first['url']} comes first, and Label Studio "
                "asks only the first; delete it in the project's settings, under Model"
            )

    def _show_predictions(self, number: int, title: str) -> Any:
        """A project shows the predictions of the version or connection that model_version names;
        returns the project as it was before."""
        found = self._api.projects.get(number)
        if found.model_version != title or not found.show_collab_predictions:
            self._api.projects.update(number, model_version=title, show_collab_predictions=True)
        return found
