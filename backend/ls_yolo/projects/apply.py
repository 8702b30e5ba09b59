"""Makes Label Studio as projects/*.yaml say, and proves it by counting stored predictions.

Every step looks first and changes only what differs, so it is safe to run again, and a run that was
cut off is finished by the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.client import Studio, StudioError, reason
from ls_yolo.projects import fields, members
from ls_yolo.projects.backend import ApplyError, Backend, Say
from ls_yolo.projects.config import Project
from ls_yolo.projects.reconcile import Reconciler
from ls_yolo.projects.secrets import Secrets

BATCH = 16
"""Tasks per request for predictions: Label Studio gives a request 100 s, on slow CPUs too."""

PAGE = 100
"""Tasks per page when predictions are counted."""


class TokenError(ApplyError):
    """Label Studio does not take the token."""


@dataclass(frozen=True)
class Stored:
    """A prediction that Label Studio has stored.

    ``failed``: the backend could not predict the task, and said so by a score of None.
    """

    id: int
    version: str
    failed: bool


def check_token(studio: Studio) -> str:
    """The e-mail address of the user that the token belongs to.

    Raises:
        TokenError: Label Studio does not take the token.
        ApplyError: Label Studio fails otherwise.
    """
    try:
        return str(studio.client.users.whoami().email)
    except StudioError as error:
        raise TokenError(str(error)) from None
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

    def apply(self, project: Project, prune: bool = False) -> None:
        """Makes or repairs one project, and has its tasks predicted.

        ``prune``: storages, webhooks, views and connections that its file does not have are
        deleted.

        Raises:
            ApplyError: something cannot be made, or a task has no stored prediction.
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
            title = self._connection(number, project)
            self._show_predictions(number, title)
            if project.predict and not waiting:
                self._predict(number, project, version)

    @contextmanager
    def _told(self, project: Project) -> Iterator[None]:
        """Has errors name the project, and no secret."""
        try:
            yield
        except ApplyError as error:
            text = self._secrets.scrub(str(error))
            known = (f"{project.title}: ", f"{project.source}: ")
            raise ApplyError(text if text.startswith(known) else known[0] + text) from None
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
        """Deletes the predictions of a version, for which the SDK has no call."""
        path = f"api/projects/{number}/model-versions/"
        self._studio.request("DELETE", path, {"model_version": version})

    def _connection(self, number: int, project: Project) -> str:
        """Makes or repairs the ML backend connection; returns its title."""
        url = self._backend.address(project.models)
        title = "+".join(project.models) or "default model"
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
        return title

    def _show_predictions(self, number: int, title: str) -> None:
        """A project shows the predictions of the version or connection that model_version names."""
        found = self._api.projects.get(number)
        if found.model_version != title or not found.show_collab_predictions:
            self._api.projects.update(number, model_version=title, show_collab_predictions=True)

    def _predict(self, number: int, project: Project, version: str) -> None:
        tasks = dict(self._tasks(number))
        if not tasks and project.storage:
            raise ApplyError(
                f"{project.title}: found no task, expected at least one; "
                f"put images in {project.storage.path} of DATASETS_DIR"
            )
        missing = []
        for task, found in tasks.items():
            ours = [prediction for prediction in found if prediction.version == version]
            good = [prediction for prediction in ours if not prediction.failed]
            # What could not be predicted is tried again: its image may be there by now. Of what two
            # runs at a time have stored twice, the first stays.
            for prediction in ours:
                if prediction not in good[:1]:
                    self._api.predictions.delete(prediction.id)
            if not good:
                missing.append(task)
        done = len(tasks) - len(missing)
        failed: list[int] = []
        # A video may take all the time of a request.
        videos = any(control.of_video for control in label_config.parse(project.label_config))
        size = 1 if videos else BATCH
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            stored = self._retrieve(number, batch, version)
            if len(batch) > 1 and len(stored) < len(batch):
                # One at a time: a batch may have taken longer than Label Studio waits.
                for task in batch:
                    if task not in stored:
                        stored |= self._retrieve(number, [task], version)
            without = [task for task in batch if task not in stored]
            if without:
                raise ApplyError(self._diagnosis(number, project, without, version))
            failed += [task for task, prediction in stored.items() if prediction.failed]
            done += len(batch)
            self._say(f"{project.title}: {done} of {len(tasks)} tasks have predictions")
        if failed:
            self._warn(number, project, failed)
        self._say(
            f"{project.title}: {len(tasks)} tasks, each with a stored prediction of {version}"
        )

    def _retrieve(self, number: int, tasks: Sequence[int], version: str) -> dict[int, Stored]:
        """Has tasks predicted; returns those that then have a prediction of ``version``."""
        self._api.actions.create(
            id="retrieve_tasks_predictions",
            project=number,
            selected_items={"all": False, "included": list(tasks)},
        )
        # Label Studio answers "Retrieved N predictions" whether or not it stored any: count.
        return {
            task: prediction
            for task, found in self._tasks(number, tasks)
            for prediction in found
            if prediction.version == version
        }

    def _tasks(
        self, number: int, only: Sequence[int] = ()
    ) -> Iterator[tuple[int, tuple[Stored, ...]]]:
        """Each task of a project, or of ``only``, with its stored predictions."""
        total = len(only) or int(self._api.projects.get(number).task_number or 0)
        chosen = (
            {"query": json.dumps({"selectedItems": {"all": False, "included": list(only)}})}
            if only
            else {}
        )
        # Page by page, since the SDK's own iteration ends with a request that Label Studio logs as
        # an error.
        for page in range(1, -(-total // PAGE) + 1):
            rows = self._api.tasks.list(
                project=number,
                fields="all",
                include="id,predictions",
                page=page,
                page_size=PAGE,
                **chosen,
            )
            for task in rows.items or []:
                yield int(task.id), tuple(map(_stored, task.predictions or []))

    def _warn(self, number: int, project: Project, failed: Sequence[int], most: int = 10) -> None:
        """Names tasks that the backend could not predict, and why."""
        answers = [self._ask(number, project, task) for task in failed[:most]]
        self._say(
            f"{project.title}: warning: {len(failed)} tasks could not be predicted; "
            "mend or delete them and run setup again:"
        )
        for task, answer in zip(failed, answers, strict=False):
            self._say(f"  task {task}: {answer.get('error', 'it can be predicted by now')}")
        if len(failed) > most:
            self._say(f"  and {len(failed) - most} more; the backend's log names all: make logs")

    def _ask(self, number: int, project: Project, number_of_task: int) -> dict[str, Any]:
        """What the backend itself answers for a task."""
        task = self._api.tasks.get(str(number_of_task))
        body = {
            "tasks": [{"id": task.id, "data": task.data}],
            "project": f"{number}.0",
            "label_config": project.label_config,
        }
        answer: dict[str, Any] = self._backend.ask(project.models, "predict", body)["results"][0]
        return answer

    def _diagnosis(
        self, number: int, project: Project, without: Sequence[int], version: str
    ) -> str:
        """Why a task has no prediction, as far as asking the backend directly can tell."""
        text = (
            f"{project.title}: {len(without)} tasks have no stored prediction of {version}, "
            f"the first is task {without[0]}"
        )
        try:
            answer = self._ask(number, project, without[0])
        except ApplyError as error:
            return f"{text}: {error}"
        return (
            f"{text}. The backend itself answers with {len(answer['result'])} boxes, "
            "so Label Studio did not take them; its log says why: make logs"
        )


def _stored(row: Any) -> Stored:
    found = row if isinstance(row, dict) else row.model_dump()
    failed = not found.get("result") and found.get("score") is None
    return Stored(int(found["id"]), str(found.get("model_version")), failed)
