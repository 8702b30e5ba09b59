"""Checks of images: where they lie, and whether both services can read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from ls_yolo.doctor.base import Checks, Finding, Unavailable, failed, ok, warning
from ls_yolo.doctor.facts import Facts, ProjectFacts
from ls_yolo.images import source
from ls_yolo.images.decode import read_header
from ls_yolo.images.limits import MAX_BYTES, MediaError
from ls_yolo.labelstudio import label_config, values
from ls_yolo.labelstudio.client import StudioError, reason

CHECKS: Checks[Facts] = Checks()
MOST = 20_000
"""Tasks of a project whose images are looked for, unless that project alone is asked for."""
SAMPLE = 20
"""Tasks of a project whose images are opened."""
NAMED = 3
"""Faults of a kind that are named one by one."""
HEADER = 1 << 20
"""Bytes of a file that its size in pixels is read from."""
BATCH = 10
"""Files that the backend is asked of at a time."""
LINE = 3000
"""Bytes that their names may take in an address: servers read a first line of 4,094."""
LOCAL = "/data/local-files"
MOUNT = "mount the same folder (DATASETS_DIR) at the same path in both: make up"


@CHECKS.add("document root")
def document_root(facts: Facts) -> Iterator[Finding]:
    """Whether local files are served, from the same folder in both services."""
    if not facts.said("serving"):
        yield failed(
            "Label Studio serves no local files", "set LOCAL_FILES_SERVING_ENABLED=true: make up"
        )
    theirs, own = facts.said("document_root"), facts.own.content["document_root"]
    faulty = False
    for who, root in (("Label Studio", theirs), ("the backend", own)):
        if root["error"]:
            faulty = True
            yield failed(
                f"{who} cannot read {root['path']}: {root['error']}",
                "is DATASETS_DIR there, and open to all? chmod a+rx",
            )
    if faulty:
        return
    if theirs["path"] != own["path"]:
        yield failed(
            f"Label Studio's is {theirs['path']}, the backend's {own['path']}",
            "give both the same LOCAL_FILES_DOCUMENT_ROOT, and " + MOUNT,
        )
    elif theirs["digest"] != own["digest"]:
        yield failed(
            f"{own['path']} is another folder in each: {theirs['entries']} entries in Label "
            f"Studio, {own['entries']} in the backend",
            MOUNT,
        )
    else:
        yield ok(f"{own['path']} in both, {own['entries']} entries")


@CHECKS.add("storage path")
def storage_path(facts: Facts) -> Iterator[Finding]:
    """Whether each local storage lies where Label Studio serves files from."""
    root = Path(facts.said("document_root")["path"])
    rows = _storages(facts)
    for row in rows:
        path = Path(row["path"])
        if path == root:
            yield failed(
                f"the storage is the document root {root} itself, and Label Studio serves the "
                "files of folders below it only",
                "make a storage of a folder in it", _of(row),
            )  # fmt: skip
        elif not path.is_relative_to(root):
            yield failed(
                f"{path} lies outside {root}", f"make a storage of a folder in {root}", _of(row)
            )
    if rows:
        yield ok(f"{len(rows)} local storages, each in a folder of {root}")
    else:
        yield ok("no local storage")


@CHECKS.add("storage file")
def storage_file(facts: Facts) -> Iterator[Finding]:
    """Whether a file of each storage is read by Label Studio, through its API, and by the
    backend."""
    rows = _storages(facts)
    readable: list[tuple[dict[str, Any], str]] = []
    for row in rows:
        if row["file"]:
            readable.append((row, row["file"]))
        elif row["error"]:
            yield failed(
                f"Label Studio cannot read it: {row['error']}",
                "let all read it: chmod -R a+rX on the folder of the host", _of(row),
            )  # fmt: skip
        else:
            yield warning(
                f"no file is in {row['path']}", "put images there, then make setup", _of(row)
            )
    files = [file for _, file in readable]
    told: dict[str, str] = {}
    for batch in _batches(files):
        told |= facts.of_backend("diagnosis", file=batch).content["files"]
    for row, file in readable:
        if told[file]:
            yield failed(f"the backend cannot read it: {told[file]}", MOUNT, _of(row))
            continue
        try:
            # Quoted in the query, since a name may hold & or #.
            facts.studio.fetch("/data/local-files/", MAX_BYTES, f"d={quote(file)}")
        except (MediaError, StudioError) as error:
            yield failed(
                f"{file}: {error}",
                "does the storage's path hold it, and may the token's user see the project?",
                _of(row),
            )
        else:
            yield ok(f"{file} is read by both", _of(row))
    if not rows:
        yield ok("no local storage")


@CHECKS.add("cloud storage")
def cloud(facts: Facts) -> Iterator[Finding]:
    """Whether Label Studio reaches each bucket."""
    found = 0
    for project in facts.projects:
        for row in facts.of_studio("api/storages", project=project.id).content:
            kind = str(row.get("type"))
            if kind == "localfiles":
                continue
            found += 1
            subject = f"{project.title}, {row.get('title') or kind}"
            try:
                facts.change("POST", f"api/storages/{kind}/validate", {
                    "id": row["id"], "project": project.id,
                })  # fmt: skip
            except Unavailable as error:
                yield failed(str(error), "correct it in the project's settings", subject)
            else:
                yield ok("Label Studio reaches it", subject)
    if not found:
        yield ok("none")


@CHECKS.add("image by token")
def image(facts: Facts) -> Iterator[Finding]:
    """Whether the token fetches a real image of each project, as the backend would."""
    for project in facts.projects:
        task, url = _first(facts, project)
        if not task:
            continue
        parts = urlsplit(url)
        if source.origin(url, [facts.studio.url]) == "web":
            yield ok(f"task {task} has its image elsewhere: {source.shown(url)}", project.title)
            continue
        query = parts.query
        try:
            data = facts.studio.fetch(parts.path, MAX_BYTES, query)
            header = read_header(data)
        except (MediaError, StudioError, source.Redirect) as error:
            yield failed(
                f"task {task}: {error}",
                "for a local file: a storage of the project must cover it, in a folder below the "
                "document root; else see the token", project.title,
            )  # fmt: skip
            continue
        except Exception as error:  # the SDK's, where it exchanges a token
            yield failed(f"task {task}: {reason(error)}", "see the token", project.title)
            continue
        width, height = header.size
        yield ok(f"task {task}: {len(data) / 1000:.0f} KB, {width} x {height}", project.title)


@CHECKS.add("images on disk")
def on_disk(facts: Facts) -> Iterator[Finding]:
    """Whether the local files of tasks are there, not empty, and not too large."""
    for project in facts.projects:
        most = 0 if facts.wanted else MOST
        names = _values(project)
        looked = 0
        missing: list[tuple[int, str]] = []
        odd: list[tuple[int, str]] = []
        for row in facts.tasks(project.id, most):
            for url in _urls(row, names):
                if not (name := _local(url)):
                    continue
                looked += 1
                try:
                    with source.opened(url, facts.root, None, ()) as path:
                        count = path.stat().st_size
                except MediaError as error:
                    missing.append((int(row["id"]), str(error)))
                    continue
                if not count:
                    odd.append((int(row["id"]), f"{name} is empty"))
                elif count > MAX_BYTES and not _video(project):
                    odd.append((int(row["id"]), f"{name} is larger than {MAX_BYTES >> 20} MiB"))
        for faults, fix in (
            (missing, "put the files back, or delete the tasks"),
            (odd, "replace the files, or delete the tasks"),
        ):
            if faults:
                some = "; ".join(f"task {task}: {why}" for task, why in faults[:NAMED])
                yield failed(f"{len(faults)} of {looked} images: {some}", fix, project.title)
        if not missing and not odd:
            total = int(project.row.get("task_number") or 0)
            part = f", those of the first {most} tasks; all with --project {project.id}"
            yield ok(f"{looked} local images are there"
                     f"{part if most and total > most else ''}", project.title)  # fmt: skip


@CHECKS.add("sizes")
def sizes(facts: Facts) -> Iterator[Finding]:
    """Whether images can be decoded, and predictions were made for images of their size."""
    for project in facts.projects:
        names = _values(project)
        looked = 0
        for row in facts.tasks(project.id, SAMPLE):
            for url in _urls(row, names):
                if not _local(url):
                    continue
                try:
                    with source.opened(url, facts.root, None, ()) as path, path.open("rb") as file:
                        header = read_header(file.read(HEADER))
                except MediaError as error:
                    if error.kind == "media_too_large":
                        yield failed(f"task {row['id']}: {error}",
                                     "make the image smaller, or delete the task",
                                     project.title)  # fmt: skip
                    continue
                width, height = header.size
                if not width or header.kind is None:
                    continue
                looked += 1
                upright = (height, width) if header.orientation >= 5 else (width, height)
                for told in _told(facts, int(row["id"])):
                    if told != upright:
                        yield failed(
                            f"task {row['id']}: a stored region is of an image of {told[0]} x "
                            f"{told[1]}, and the image is {upright[0]} x {upright[1]} upright",
                            "the file was replaced, or another program stored it: predict anew",
                            project.title,
                        )
                        break
        yield ok(f"{looked} images looked at", project.title)


def _told(facts: Facts, task: int) -> list[tuple[int, int]]:
    """Width and height that stored regions of a task say its image has, each once."""
    rows = facts.of_studio("api/predictions", task=task).content
    found = {
        (int(region["original_width"]), int(region["original_height"]))
        for row in rows
        for region in row.get("result") or []
        if isinstance(region, dict)
        and region.get("original_width")
        and region.get("original_height")
    }
    return sorted(found)


def _storages(facts: Facts) -> list[dict[str, Any]]:
    titles = {project.id: project.title for project in facts.projects}
    rows: list[dict[str, Any]] = facts.said("storages")
    return [row | {"title": titles[row["project"]]} for row in rows if row["project"] in titles]


def _batches(names: list[str]) -> Iterator[list[str]]:
    """The names in parts that fit the first line of a request."""
    batch: list[str] = []
    length = 0
    for name in names:
        more = len(quote(name, safe="")) + len("&file=")
        if batch and (len(batch) == BATCH or length + more > LINE):
            yield batch
            batch, length = [], 0
        batch.append(name)
        length += more
    if batch:
        yield batch


def _of(row: Mapping[str, Any]) -> str:
    return f"{row['title']}, storage {row['id']}"


def _values(project: ProjectFacts) -> list[str]:
    """Where a task has its images or videos, in Label Studio's language."""
    try:
        controls = label_config.parse(project.config)
    except label_config.LabelConfigError:
        return []
    return list(dict.fromkeys(control.value for control in controls if control.value))


def _video(project: ProjectFacts) -> bool:
    try:
        return any(control.of_video for control in label_config.parse(project.config))
    except label_config.LabelConfigError:
        return False


def _urls(row: Mapping[str, Any], names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        value = values.resolve(name, row.get("data") or {})
        many = value if isinstance(value, list) else [value]
        found += [one for one in many if isinstance(one, str)]
    return found


def _local(url: str) -> str:
    """The path of a local file from the document root; empty where ``url`` is of another kind."""
    try:
        parts = urlsplit(url)
        if source.origin(url, ()) != "local" or not parts.path.rstrip("/").endswith(LOCAL):
            return ""
        return parse_qs(parts.query).get("d", [""])[-1]
    except ValueError:
        return ""


def _first(facts: Facts, project: ProjectFacts) -> tuple[int, str]:
    """A task and its image; 0 where there is none."""
    for row in facts.tasks(project.id, 1):
        for url in _urls(row, _values(project)):
            return int(row["id"]), url
    return 0, ""
