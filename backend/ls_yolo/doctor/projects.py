"""Checks of projects: labels, connections, versions, and a prediction there and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ls_yolo.doctor.base import (
    Checks,
    Finding,
    Unavailable,
    failed,
    of_subject,
    ok,
    warning,
)
from ls_yolo.doctor.facts import Facts, ProjectFacts
from ls_yolo.text import some

CHECKS: Checks[Facts] = Checks()
MARK = "ls-yolo doctor"
"""The version of the prediction that the doctor writes and deletes."""
LIMITS = {"setup": 3.0, "predict": 100.0}
"""How long Label Studio waits for an answer, in seconds, where it does not say itself."""


@CHECKS.add("projects")
def projects(facts: Facts) -> Iterator[Finding]:
    """Whether there are any, with tasks."""
    found = facts.projects
    if not found:
        which = f"no project {facts.wanted!r}" if facts.wanted else "no project"
        say = failed if facts.wanted else warning
        yield say(f"{which} is there that the token's user sees",
                  "describe one in projects/ and run make setup")  # fmt: skip
    for project in found:
        count = int(project.row.get("task_number") or 0)
        if count:
            yield ok(f"id {project.id}, {count} tasks", project.title)
        else:
            yield warning("it has no task", "put images in its storage, then make setup",
                          project.title)  # fmt: skip


@CHECKS.add("connection")
def connection(facts: Facts) -> Iterator[Finding]:
    """Whether each project has one whole connection, and it is asked first."""
    ours = urlsplit(facts.values["BACKEND_URL"]).netloc
    for project in facts.projects:
        rows = project.connections
        title = project.title
        if not rows:
            yield warning("no ML backend is connected", "make setup, or ls-yolo apply", title)
            continue
        for row in rows:
            url = str(row.get("url") or "")
            state = str(row.get("state") or "")
            if state not in ("CO", "PR", "TR"):
                why = " ".join(str(row.get("error_message") or "").split())[:200]
                yield failed(
                    f"the connection to {url} is half made: Label Studio has it as "
                    f"{row.get('readable_state') or state}{f' ({why})' if why else ''}",
                    "make setup repairs that of the kit; delete others in the project's settings, "
                    "under Model", title,
                )  # fmt: skip
            elif not row.get("model_version"):
                yield failed(
                    f"the connection to {url} is half made: it has no version",
                    "make setup repairs it", title,
                )  # fmt: skip
        if len(rows) > 1:
            others = ", ".join(str(row.get("url")) for row in rows[1:])
            yield failed(
                f"{len(rows)} connections, and Label Studio asks the first only, "
                f"{rows[0].get('url')}; not {others}",
                "delete all but one in the project's settings, under Model", title,
            )  # fmt: skip
        if urlsplit(str(rows[0].get("url") or "")).netloc != ours:
            yield warning(
                f"it is connected to {rows[0].get('url')}, not to {facts.values['BACKEND_URL']}",
                "if that is not meant: make setup", title,
            )  # fmt: skip
        shown = str(project.row.get("model_version") or "")
        if shown not in (rows[0].get("title"), rows[0].get("model_version")):
            yield warning(
                f"it shows predictions of {shown or 'nothing'!r}, and its connection is "
                f"{rows[0].get('title')!r}",
                "choose the version in the project's settings, under Annotation, or make setup",
                title,
            )
        yield ok(f"{rows[0].get('url')}, as {rows[0].get('model_version')}", title)


@CHECKS.add("labels")
def labels(facts: Facts) -> Iterator[Finding]:
    """Whether each label has a class that stands for it."""
    for project in _connected(facts):
        try:
            answer = facts.setup(project).content
        except Unavailable as error:
            yield failed(str(error), "correct the labeling config, or the models", project.title)
            continue
        unmapped = answer.get("unmapped") or {}
        for control, found in unmapped.items():
            yield warning(
                f"{control}: {some(list(found.values()), 3)}",
                "rename one or the other, or give the label predicted_values; labels for people "
                "alone may stay", project.title,
            )  # fmt: skip
        for line in answer.get("warnings") or []:
            yield warning(line, "see docs/controls.md", project.title)
        if answer.get("waiting"):
            yield warning(answer["waiting"], "see docs/models.md", project.title)
        yield ok("every label has a class", project.title)


@CHECKS.add("versions")
def versions(facts: Facts) -> Iterator[Finding]:
    """Whether /setup, /versions, Label Studio and stored predictions name the same version."""
    for project in _connected(facts):
        try:
            now = str(facts.setup(project).content["model_version"])
        except Unavailable:
            continue  # told by the check of labels
        title = project.title
        listed = facts.of_backend("versions", project.models).content["versions"]
        if now not in listed and not set(now.split("+")) <= set("+".join(listed).split("+")):
            yield failed(
                f"/setup says {now}, and /versions {', '.join(listed)}",
                "were weights replaced just now? ask again; else make logs SERVICE=backend", title,
            )  # fmt: skip
        known = str(project.first.get("model_version") or "")
        if known != now:
            yield warning(
                f"Label Studio has the connection as {known or 'nothing'!r}, and it is {now} by "
                "now", "open the project's settings, Model, or run make setup", title,
            )  # fmt: skip
        stored: dict[str, Any] = facts.of_studio(
            f"api/projects/{project.id}/model-versions"
        ).content
        older = {name: count for name, count in stored.items() if name not in (now, MARK)}
        count = int(stored.get(now) or 0)
        tasks = int(project.row.get("task_number") or 0)
        if stored.get(MARK):
            yield warning(
                f"{stored[MARK]} predictions are left of a doctor that was stopped",
                "they go with its next look at the task; or ls-yolo predictions prune", title,
            )  # fmt: skip
        if count < tasks:
            rest = some([f"{name} ({number})" for name, number in older.items()], 3)
            yield warning(
                f"{count} of {tasks} tasks have a prediction of {now}"
                + (f"; others are of {rest}" if older else ""),
                f"make setup, or ls-yolo prelabel {project.id}", title,
            )  # fmt: skip
        elif count > tasks:
            yield warning(
                f"{count} predictions of {now} for {tasks} tasks: some are there twice",
                "ls-yolo predictions prune", title,
            )  # fmt: skip
        yield ok(f"{now}, stored for {count} tasks", title)


@CHECKS.add("prediction")
def prediction(facts: Facts) -> Iterator[Finding]:
    """Whether a prediction of a real task is made, stored, read back as it was, and deleted."""
    for project in _connected(facts):
        row = next(iter(facts.tasks(project.id, 1)), None)
        if row is None:
            continue
        title, task = project.title, int(row["id"])
        body = {"tasks": [row], "project": f"{project.id}.0", "label_config": project.config}
        try:
            timed = facts.asked(project, "predict", body)
            answer = timed.content["results"][0]
        except Unavailable as error:
            yield failed(f"task {task}: {error}", "see the check of labels, and make logs", title)
            continue
        answer = answer[0] if isinstance(answer, list) else answer
        if answer.get("score") is None and not answer["result"]:
            yield failed(
                f"task {task} cannot be predicted: {answer.get('error', 'no reason is given')}",
                "mend or delete the task", title,
            )  # fmt: skip
            continue
        try:
            said = str(facts.setup(project).content["model_version"])
        except Unavailable:
            said = str(answer["model_version"])
        if answer["model_version"] != said:
            yield failed(
                f"/setup says {said}, and /predict {answer['model_version']}: each retrieval "
                "would store it once more", "make logs SERVICE=backend", title,
            )  # fmt: skip
        regions, score = answer["result"], answer["score"]
        yield from of_subject(title, _stored(facts, task, regions, score))
        yield ok(f"task {task}: {len(regions)} regions made, stored, read back, deleted", title)


def _stored(facts: Facts, task: int, regions: Any, score: Any) -> list[Finding]:
    """What is wrong when a prediction is stored, read back and deleted; whatever is, it goes."""
    try:
        for old in facts.of_studio("api/predictions", task=task).content:
            if old.get("model_version") == MARK:  # of a run that was stopped
                facts.change("DELETE", f"api/predictions/{old['id']}")
        made = facts.change("POST", "api/predictions", {
            "task": task, "result": regions, "score": score, "model_version": MARK,
        })  # fmt: skip
    except Unavailable as error:
        return [failed(
            f"task {task}: no prediction can be stored: {error}",
            "may the token's user change the project? make logs SERVICE=label-studio",
        )]  # fmt: skip
    place = f"api/predictions/{made['id']}"
    faults = []
    try:
        back = facts.of_studio(place).content
        if back["result"] != regions or back["model_version"] != MARK:
            faults.append(failed(
                f"task {task}: Label Studio stored another prediction than it was given",
                "make logs SERVICE=label-studio",
            ))  # fmt: skip
    except Unavailable as error:
        faults.append(failed(
            f"task {task}: prediction {made['id']} cannot be read back: {error}",
            "make logs SERVICE=label-studio",
        ))  # fmt: skip
    finally:
        faults += _deleted(facts, task, int(made["id"]))
    return faults


def _deleted(facts: Facts, task: int, number: int) -> list[Finding]:
    """Deletes a prediction; that it is left, if it is."""
    try:
        facts.change("DELETE", f"api/predictions/{number}")
        left = facts.of_studio("api/predictions", task=task).content
        why = "it is still there" if any(one["id"] == number for one in left) else ""
    except Unavailable as error:
        why = str(error)
    if not why:
        return []
    return [failed(f"task {task}: prediction {number} ({MARK}) was not deleted: {why}",
                   "delete it in the page")]  # fmt: skip


@CHECKS.add("latency")
def latency(facts: Facts) -> Iterator[Finding]:
    """Whether answers come within what Label Studio waits."""
    limits = dict(LIMITS)
    with contextlib.suppress(Unavailable):
        limits |= facts.said("limits")
    for project in _connected(facts):
        title = project.title
        try:
            once = facts.setup(project).seconds
        except Unavailable:
            continue  # told by the check of labels
        if once > limits["setup"] / 2:
            yield _slow("/setup", once, limits["setup"], title)
        row = next(iter(facts.tasks(project.id, 1)), None)
        if row is None:
            yield ok(f"/setup in {once * 1000:.0f} ms of {limits['setup']:g} s", title)
            continue
        body = {"tasks": [row], "project": f"{project.id}.0", "label_config": project.config}
        try:
            answer = facts.asked(project, "predict", body)
        except Unavailable:
            continue  # told by the check of predictions
        took, entry = answer.seconds, answer.content["results"][0]
        if isinstance(entry, dict) and entry.get("score") is None and not entry["result"]:
            # A failure is fast, and told by the check of predictions.
            yield ok(f"/setup in {once * 1000:.0f} ms of {limits['setup']:g} s", title)
            continue
        if took > limits["predict"] / 2:
            yield _slow("/predict of one task", took, limits["predict"], title)
        fit = int(limits["predict"] / max(took, 0.001))
        yield ok(
            f"/setup in {once * 1000:.0f} ms of {limits['setup']:g} s, a task in "
            f"{took * 1000:.0f} ms: about {fit} fit the {limits['predict']:g} s of Retrieve "
            "predictions, more by ls-yolo prelabel", title,
        )  # fmt: skip


def _slow(what: str, took: float, limit: float, title: str) -> Finding:
    say = failed if took > limit else warning
    return say(
        f"{what} took {took:.1f} s, and Label Studio waits {limit:g} s",
        "is the machine busy, or the model loaded at first use (MODEL_LOADING=start)? "
        "docs/speed.md", title,
    )  # fmt: skip


def _connected(facts: Facts) -> list[ProjectFacts]:
    """The projects that have a connection; others are told by the check of connections."""
    return [project for project in facts.projects if project.connections]
