"""Has a project in Label Studio what its file names, and nothing else changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.client import Studio, reason
from ls_yolo.labelstudio.records import StudioDown
from ls_yolo.projects import connection, document, fields, labels, state, storages, task_files
from ls_yolo.projects.backend import ApplyError, Backend, Say
from ls_yolo.projects.config import IMAGES, Project
from ls_yolo.projects.left_out import left_out
from ls_yolo.projects.plan import Change, Fields, Item, State, after, label, plan, unnamed
from ls_yolo.projects.rest import Rows
from ls_yolo.projects.secrets import Secrets
from ls_yolo.text import some

NOUNS = {
    storages.SOURCE: "storage",
    storages.TARGET: "target storage",
    "webhooks": "webhook",
    "views": "view",
    "connections": "connection",
}
DONE = {"create": "made", "change": "changed", "delete": "deleted"}


class Reconciler:
    """Projects in one Label Studio. ``root`` is the datasets folder.

    Every method raises ApplyError where a file asks for what cannot be, and ApiError,
    httpx.HTTPError or StudioError where Label Studio refuses or is not reached.
    """

    def __init__(
        self, studio: Studio, backend: Backend, root: Path, say: Say, secrets: Secrets
    ) -> None:
        self._studio = studio
        self._backend = backend
        self._root = root
        self._say = say
        self._secrets = secrets

    def resolve(self, project: Project) -> Project:
        """``project`` with the labeling config that its file says to make of the models."""
        if project.labels is None:
            return project
        try:
            text = labels.label_config(project.labels, project.models, self._backend.known())
            label_config.parse(text)
        except (ApplyError, label_config.LabelConfigError) as error:
            raise ApplyError(f"{project.source}: {error}") from None
        return project.with_labels(text)

    def find(self, project: Project) -> int | None:
        """The id of the project of this title; None where there is none."""
        api: Any = self._studio.client
        found = api.projects.list(title=project.title, page_size=1000).items or []
        rows = [row for row in found if row.title == project.title]
        if len(rows) > 1:
            numbers = ", ".join(str(row.id) for row in rows)
            raise ApplyError(
                f"{project.title}: found {len(rows)} projects of that title (ids {numbers}), "
                "expected one; rename or delete the others in Label Studio"
            )
        return int(rows[0].id) if rows else None

    def check_secrets(self, project: Project) -> None:
        """Sees that what is to be made has its secrets; what is there may keep those it has."""
        number = self.find(project)
        found = State() if number is None else self._found(number, project)
        self._check_secrets(project, plan(project.named, found, state.KINDS))

    def diff(self, project: Project, prune: bool) -> str:
        """What would change, as a unified diff of the YAML, and what stays though the file does not
        name it; empty where nothing would change."""
        self.check(project)
        number = self.find(project)
        found = State() if number is None else self._found(number, project)
        changes = plan(project.named, found, state.KINDS, prune)
        self._check_secrets(project, changes)
        named = project.named.fields
        before = "" if number is None else document.dump(document.of(project.title, found, named))
        then = document.dump(document.of(project.title, after(found, changes), named))
        text = document.unified(before, then, project.title, project.source)
        if number is not None:
            for line in self._besides(number, project, "label_config" in _own(changes)):
                text += f"{project.title}: {line}\n"
        return text

    def deletions(self, project: Project) -> list[str]:
        """What pruning would delete, a line each."""
        number = self.find(project)
        if number is None:
            return []
        changes = plan(project.named, self._found(number, project), state.KINDS, True)
        return [
            f"{project.title}: {_name(change)}" for change in changes if change.action == "delete"
        ]

    def items(self, number: int, project: Project, prune: bool) -> None:
        """Makes and changes storages, webhooks and views; ``prune``: deletes what the file does not
        have."""
        found = self._found(number, project)
        changes = [one for one in plan(project.named, found, state.KINDS, prune) if one.kind]
        for change in changes:
            complete = _with_secrets(change, project)
            with _told(change.kind, change.item.fields if change.item else change.fields):
                state.execute(self._studio, number, complete, self._root, self._secrets)
            self._say(f"{project.title}: {_name(change)} {DONE[change.action]}")
        changed = [change.item for change in changes if change.item]
        for kind in storages.KINDS:
            for item, wanted in self._pairs(project, found, kind):
                if not any(item is other for other in changed):
                    with _told(kind, item.fields):
                        storages.refresh(
                            self._studio, number, kind, item, wanted.fields, self._root,
                            self._secrets,
                        )  # fmt: skip
        if not prune and (stays := unnamed(project.named, found, state.KINDS, fields.DEFAULTS)):
            self._say(
                f"{project.title}: stays as it is in Label Studio, since {project.source} does not "
                f"name it: {some(stays)}"
            )

    def fill(self, number: int, project: Project) -> None:
        """Makes tasks of what is new in source storages and files of tasks."""

        def say(text: str) -> None:
            self._say(f"{project.title}: {text}")

        found = storages.found(self._studio, number, self._root)
        for item, _ in self._pairs(project, State({}, found), storages.SOURCE):
            try:
                made = storages.sync(self._studio, number, item, say)
            except ApplyError as error:
                raise ApplyError(f"{project.title}: {error}") from None
            if made:
                where = label(item.fields)
                if item.fields["type"] == "local":
                    where = str(self._root / where)
                say(f"{made} new images from {where}")
        for path in project.task_files:
            try:
                made = task_files.load(self._studio, number, self._root / path, say)
            except ApplyError as error:
                raise ApplyError(f"{project.title}: {error}") from None
            if made:
                say(f"{made} new tasks from {self._root / path}")

    def _found(self, number: int, project: Project) -> State:
        url = self._backend.address(project.models)
        return state.read(self._studio, number, self._root, url, project.named, self._secrets)

    def _pairs(self, project: Project, found: State, kind: str) -> list[tuple[Item, Item]]:
        """The items of a kind that are there and that the file names, as found and as wanted."""
        key = state.KINDS[kind].key
        return [
            (item, wanted)
            for wanted in project.named.items.get(kind, ())
            for item in found.items.get(kind, ())
            if key(item.fields) == key(wanted.fields)
        ]

    def check(self, project: Project) -> None:
        """Looks at folders and files before anything is changed."""
        for kind in storages.KINDS:
            for item in project.named.items.get(kind, ()):
                if item.fields["type"] == "local":
                    self._folder(project, kind, item)
        for path in project.task_files:
            if not (self._root / path).is_file():
                raise ApplyError(
                    f"{project.title}: task_files: found no file {path!r} in {self._root}, which "
                    "is DATASETS_DIR of .env"
                )

    def _folder(self, project: Project, kind: str, item: Item) -> None:
        folder = self._root / item.fields["path"]
        if not folder.is_dir():
            raise ApplyError(
                f"{project.title}: found no folder {item.fields['path']!r} in {self._root}, which "
                "is DATASETS_DIR of .env; make it, put images there, and let all read it: "
                "chmod a+rx"
            )
        if kind == storages.SOURCE and item.fields.get("method", "files") == "files":
            regex = item.fields.get("regex", IMAGES)
            for line in left_out(folder, regex, item.fields.get("recursive", False)):
                self._say(f"{project.title}: warning: {folder}: {line}")

    def _check_secrets(self, project: Project, changes: Sequence[Change]) -> None:
        made: dict[str, list[Item]] = {}
        for change in changes:
            # Label Studio takes the headers of a webhook all together, so one whose value is not at
            # hand cannot be kept beside one that changes.
            if change.kind and (change.action == "create" or "headers" in change.fields):
                made.setdefault(change.kind, []).append(Item(None, change.fields))
        if missing := self._secrets.unset(state.hidden(made)):
            raise ApplyError(
                f"{project.source}: found no {', '.join(missing)} in the environment, expected it "
                "there, since something of this project is made or changed with it; put it into "
                "secrets.env beside the project's file: NAME=value"
            )
        if kept := self._secrets.unset(state.hidden(project.named.items)):
            self._say(
                f"{project.title}: {', '.join(kept)} is not in the environment: what Label Studio "
                "has stays"
            )

    def _besides(self, number: int, project: Project, relabelled: bool) -> list[str]:
        """What would change that no file has, a line each. ``relabelled``: labels would."""
        if not project.connect:
            return []
        rows = Rows(self._studio, "api/ml", slash=False).all(number)
        lines = []
        row = connection.ours(rows, self._backend, project)
        if row is not None:
            wanted = connection.settings(row, self._backend, project)
            if why := connection.faults(row, wanted):
                lines.append(f"the connection would be repaired: {'; '.join(why)}")
            lines += [
                f"a second connection to {wanted['url']} would be removed"
                for _ in connection.twins(rows, row, wanted["url"])
            ]
        api: Any = self._studio.client
        found = api.projects.get(number)
        if not found.show_collab_predictions or not found.model_version:
            lines.append("people would be shown the predictions")
        if relabelled:
            lines.append(
                "predictions of the version that answers would be deleted: they are of other labels"
            )
        return lines


@contextmanager
def _told(kind: str, fields_: Fields) -> Iterator[None]:
    """Has errors of Label Studio name what they are of."""
    try:
        yield
    except (ApiError, StudioDown) as error:
        hint = ""
        if fields_.get("type") in storages.TYPES and fields_["type"] != "local":
            # Of addresses other than Amazon's, Label Studio does not say why.
            hint = "; are its keys, its place and its address right?"
        # Of the address and what it said, the latter; a refused key is a 500 in Label Studio.
        down = isinstance(error, StudioDown)
        why = str(error).partition(": ")[2] if down else reason(error)
        raise ApplyError(f"{NOUNS[kind]} {label(fields_)}: {why}{hint}") from None


def _own(changes: Sequence[Change]) -> Fields:
    """What changes of the project's own fields."""
    return next((change.fields for change in changes if not change.kind), {})


def _name(change: Change) -> str:
    return f"{NOUNS[change.kind]} {label(change.item.fields if change.item else change.fields)}"


def _with_secrets(change: Change, project: Project) -> Change:
    """A change of a storage with its secrets, which are not compared and always sent."""
    kind = state.KINDS[change.kind]
    if change.action != "change" or change.item is None or not kind.hidden:
        return change
    key = kind.key(change.item.fields)
    for wanted in project.named.items[change.kind]:
        if kind.key(wanted.fields) == key:
            texts = {name: wanted.fields[name] for name in kind.hidden if name in wanted.fields}
            return Change(change.kind, change.action, {**change.fields, **texts}, change.item)
    return change
