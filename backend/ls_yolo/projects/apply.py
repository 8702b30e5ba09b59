"""Makes Label Studio as projects/*.yaml say.

Every step looks first and changes only what differs, so it is safe to run again, and a run that was
cut off is finished by the next.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.client import Studio, StudioError, reason
from ls_yolo.projects.backend import ApplyError, Backend, Say
from ls_yolo.projects.config import Project
from ls_yolo.text import some


class TokenError(ApplyError):
    """Label Studio does not take the token."""


@dataclass(frozen=True)
class Made:
    """A project as it is in Label Studio: its id, when it was made, how many tasks it has.

    ``version``: what answers for it. ``waiting``: why nothing is to be predicted yet, else empty.
    """

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
    """

    def __init__(
        self,
        studio: Studio,
        backend: Backend,
        root: Path,
        say: Say,
        faults: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._faults = faults
        self._studio = studio
        # The SDK's rows are typed more narrowly than what Label Studio sends.
        self._api: Any = studio.client
        self._backend = backend
        self._root = root
        self._say = say

    def apply(self, project: Project) -> Made:
        """Makes or repairs one project; its tasks are left to be predicted.

        Raises:
            ApplyError: something cannot be made.
        """
        try:
            version, waiting = self._check_labels(project)
            number = self._project(project, version)
            if project.storage:
                self._storage(number, project)
            # Without anything to draw yet there is no version that predictions could bear.
            title = ("+".join(project.models) or "default model") if waiting else version
            self._connection(number, project, title)
            found = self._show_predictions(number, title)
            tasks = int(found.task_number or 0)
            return Made(number, str(found.created_at or ""), tasks, version, waiting)
        except (ApiError, StudioError, httpx.HTTPError) as error:
            raise ApplyError(f"{project.title}: Label Studio: {reason(error)}") from None

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
        rows = [
            row
            for row in (self._api.projects.list(title=project.title, page_size=1000).items or [])
            if row.title == project.title
        ]
        if len(rows) > 1:
            numbers = ", ".join(str(row.id) for row in rows)
            raise ApplyError(
                f"{project.title}: found {len(rows)} projects of that title (ids {numbers}), "
                "expected one; rename or delete the others in Label Studio"
            )
        if not rows:
            made = self._api.projects.create(
                title=project.title,
                description=project.description,
                label_config=project.label_config,
            )
            self._say(f"{project.title}: made (id {made.id})")
            return int(made.id)
        number = int(rows[0].id)
        found = self._api.projects.get(number)
        wanted = {"description": project.description, "label_config": project.label_config}
        changes = {
            key: value
            for key, value in wanted.items()
            if (getattr(found, key) or "").strip() != value
        }
        if "label_config" in changes:
            # Label Studio refuses a configuration that lacks what annotations use; asked first, so
            # that a refusal leaves the predictions as they are.
            self._api.projects.validate_label_config(number, label_config=project.label_config)
            # The version is that of the model, so predictions for other labels would pass for new.
            # They go first: cut off here, the next run still sees that the configuration differs.
            self._forget(number, version)
        if changes:
            self._api.projects.update(number, **changes)
            self._say(
                f"{project.title}: {' and '.join(sorted(changes))} differed from {project.source}, "
                "which holds; changed"
            )
        return number

    def _forget(self, number: int, version: str) -> None:
        """Deletes the predictions of a version, for which the SDK has no call."""
        path = f"api/projects/{number}/model-versions/"
        self._studio.request("DELETE", path, {"model_version": version})

    def _storage(self, number: int, project: Project) -> None:
        storage = project.storage
        assert storage is not None
        folder = self._root / storage.path
        if not folder.is_dir():
            raise ApplyError(
                f"{project.title}: found no folder {storage.path!r} in {self._root}, which is "
                "DATASETS_DIR of .env; make it, put images there, and let all read it: chmod a+rx"
            )
        for line in left_out(folder, storage.regex, storage.recursive):
            self._say(f"{project.title}: warning: {folder}: {line}")
        wanted = {
            "path": str(folder),
            "regex_filter": storage.regex,
            "recursive_scan": storage.recursive,
            "use_blob_urls": True,
        }
        client = self._api.import_storage.local
        rows = [row for row in client.list(project=number) if row.path == str(folder)]
        if not rows:
            row = client.create(project=number, title=storage.path, **wanted)
            self._say(f"{project.title}: storage {folder} made")
        else:
            row = rows[0]
            if any(getattr(row, key) != value for key, value in wanted.items()):
                row = client.update(row.id, project=number, **wanted)
                self._say(f"{project.title}: storage {folder} changed")
        done = client.sync(row.id)
        if str(done.status) not in ("completed", "completed_with_errors"):
            raise ApplyError(
                f"{project.title}: storage {folder}: sync ended as {done.status!r}: "
                f"{done.traceback or ''}"
            )
        if done.last_sync_count:
            self._say(f"{project.title}: {done.last_sync_count} new images from {folder}")

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


def left_out(folder: Path, regex: str, recursive: bool) -> Iterator[str]:
    """What of ``folder`` becomes no task though people may think so, in a line a kind: files whose
    names are not UTF-8, which Label Studio cannot store, and files that ``regex`` leaves out."""
    wanted = re.compile(regex)
    unreadable: list[str] = []
    kinds: Counter[str] = Counter()
    for path in folder.rglob("*") if recursive else folder.glob("*"):
        if not path.is_file():
            continue
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
        if not _utf8(str(path)):
            unreadable.append(f"'{name}'")
        elif not wanted.match(path.name):
            resource = path.name.startswith("._")  # what a Mac writes beside a file
            kinds["._*" if resource else path.suffix.lower() or "without a suffix"] += 1
    if unreadable:
        yield (
            f"{len(unreadable)} files are left out, since their names are not UTF-8: "
            f"{some(sorted(unreadable))}; rename them"
        )
    if kinds:
        listed = [f"{count} {kind}" for kind, count in kinds.most_common()]
        yield f"{kinds.total()} files are no tasks, since storage.regex leaves out: {some(listed)}"


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
