"""Checks of projects: labels, connections, versions, and a prediction there and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ls_yolo.doctor.base import (
    Checks,
    Faulty,
    Finding,
    Level,
    Unavailable,
    failed,
    of_subject,
    ok,
    warning,
)
from ls_yolo.doctor.facts import Facts, ProjectFacts, Timed
from ls_yolo.doctor.services import server
from ls_yolo.labelstudio import bulk
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.selection import SelectionError
from ls_yolo.text import some

CHECKS: Checks[Facts] = Checks()
Look = Callable[[Facts, ProjectFacts], Iterator[Finding]]
MARK = "ls-yolo doctor"
"""The version of the prediction that the doctor writes and deletes."""
MOST = 20_000
"""Tasks whose predictions are read one by one where Label Studio does not count them itself."""
LIMITS = {"setup": 3.0, "predict": 100.0}
"""How long Label Studio waits for an answer, in seconds, where it does not say itself."""


def of_each(name: str) -> Callable[[Look], Look]:
    """Makes a function of a project the check ``name`` of all that are connected to the backend;
    those that are not are told by the check of connections. One that fails hides no other."""

    def added(look: Look) -> Look:
        @CHECKS.add(name)
        def of_all(facts: Facts) -> Iterator[Finding]:
            _, ours = server(facts.values["BACKEND_URL"])
            for project in facts.projects:
                if not project.connections or server(str(project.first.get("url")))[1] != ours:
                    continue
                try:
                    yield from of_subject(project.title, look(facts, project))
                except SelectionError as error:
                    yield failed(f"its connection names no models: {error}",
                                 "make setup, or correct it in the project's settings, under Model",
                                 project.title)  # fmt: skip
                except Faulty as error:
                    yield failed(str(error), "make logs", project.title)
                except Unavailable as error:
                    yield Finding(Level.SKIPPED, f"not looked at: {error}", "", project.title)

        return look

    return added


def _setup(facts: Facts, project: ProjectFacts) -> Timed:
    """As `Facts.setup`; that it refuses is told once, by the check of labels."""
    try:
        return facts.setup(project)
    except Unavailable:
        raise Unavailable("/setup refuses, see the check of labels") from None


def _waits(facts: Facts, project: ProjectFacts) -> bool:
    """Whether there is nothing to predict yet; the check of labels says why."""
    return bool(_setup(facts, project).content.get("waiting"))


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
    _, ours = server(facts.values["BACKEND_URL"])
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
        if server(str(rows[0].get("url") or ""))[1] != ours:
            yield warning(
                f"it is connected to {rows[0].get('url')}, not to {facts.values['BACKEND_URL']}",
                "if that is not meant: make setup", title,
            )  # fmt: skip
        shown = str(project.row.get("model_version") or "")
        if shown not in (rows[0].get("title"), rows[0].get("model_version")):
            yield warning(
                f"it shows predictions of {shown or 'nothing'!r}, and its connection is "
                f"{rows[0].get('title')!r}",
                "if that is not meant: ls-yolo predictions rollback PROJECT --to VERSION",
                title,
            )
        yield ok(f"{rows[0].get('url')}, as {rows[0].get('model_version')}", title)


@of_each("labels")
def labels(facts: Facts, project: ProjectFacts) -> Iterator[Finding]:
    """Whether each label has a class that stands for it."""
    try:
        answer = facts.setup(project).content
    except Unavailable as error:
        yield failed(str(error), "correct the labeling config, or the models")
        return
    unmapped = answer.get("unmapped") or {}
    for control, found in unmapped.items():
        yield warning(
            f"{control}: {some(list(found.values()), 3)}",
            "rename one or the other, or give the label predicted_values; labels for people "
            "alone may stay",
        )
    for line in answer.get("warnings") or []:
        yield warning(line, "see docs/controls.md")
    if answer.get("waiting"):
        yield warning(answer["waiting"], "see docs/models.md")
    yield ok("every label has a class")


@of_each("versions")
def versions(facts: Facts, project: ProjectFacts) -> Iterator[Finding]:
    """Whether /setup, /versions, Label Studio and stored predictions name the same version."""
    now = str(_setup(facts, project).content["model_version"])
    listed = facts.of_backend("versions", project.models).content["versions"]
    if now not in listed and not set(now.split("+")) <= set("+".join(listed).split("+")):
        yield failed(
            f"/setup says {now}, and /versions {', '.join(listed)}",
            "were weights replaced just now? ask again; else make logs SERVICE=backend",
        )
    known = str(project.first.get("model_version") or "")
    if known != now:
        yield warning(
            f"Label Studio has the connection as {known or 'nothing'!r}, and it is {now} by now",
            "open the project's settings, Model, or run make setup",
        )
    if _waits(facts, project):
        return
    try:
        store = facts.store
        if isinstance(store, bulk.PlainStore) and int(project.row["task_number"] or 0) > MOST:
            yield ok(
                f"{now}; who lacks it is not counted: without the kit's image, that takes long"
            )
            return
        stored = {version.name: version for version in store.versions(project.id)}
        counts = store.count(project.id, now)
    except StudioError as error:
        raise Faulty(f"stored predictions cannot be counted: {error}") from None
    if left := stored.pop(MARK, None):
        yield warning(
            f"{left.count} predictions are left of a doctor that was stopped",
            f"they go with its next look, or with ls-yolo predictions prune {project.id}",
        )
    ours = stored.pop(now, None)
    done = counts.total - counts.missing
    prelabel = f"ls-yolo prelabel {project.id}"
    if counts.missing:
        rest = some([f"{name} ({one.count})" for name, one in stored.items()], 3)
        lost = f", {counts.failed} of the others failed" if counts.failed else ""
        yield warning(
            f"{done} of {counts.total} tasks have a prediction of {now}{lost}"
            + (f"; others are of {rest}" if stored else ""),
            f"make setup, or {prelabel}",
        )
    if ours and ours.count - ours.failed > done:
        yield warning(
            f"{ours.count - ours.failed} predictions of {now} for {done} tasks: some are there "
            "twice", f"{prelabel} leaves one of each",
        )  # fmt: skip
    yield ok(f"{now}, stored for {done} tasks")


@of_each("prediction")
def prediction(facts: Facts, project: ProjectFacts) -> Iterator[Finding]:
    """Whether a prediction of a real task is made, stored, read back as it was, and deleted."""
    row = facts.first(project)
    if row is None or _waits(facts, project):
        return
    task = int(row["id"])
    try:
        answer = facts.predicted(project).content["results"][0]
    except Unavailable as error:
        yield failed(f"task {task}: {error}", "see the check of labels, and make logs")
        return
    answer = answer[0] if isinstance(answer, list) else answer
    if answer.get("score") is None and not answer["result"]:
        yield failed(
            f"task {task} cannot be predicted: {answer.get('error', 'no reason is given')}",
            "mend or delete the task",
        )
        return
    said = str(_setup(facts, project).content["model_version"])
    if answer["model_version"] != said:
        yield failed(
            f"/setup says {said}, and /predict {answer['model_version']}: each retrieval would "
            "store it once more", "make logs SERVICE=backend",
        )  # fmt: skip
    regions, score = answer["result"], answer["score"]
    yield from _stored(facts, task, regions, score)
    yield ok(f"task {task}: {len(regions)} regions made, stored, read back, deleted")


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


@of_each("latency")
def latency(facts: Facts, project: ProjectFacts) -> Iterator[Finding]:
    """Whether answers come within what Label Studio waits."""
    limits = dict(LIMITS)
    with contextlib.suppress(Unavailable):
        limits |= facts.said("limits")
    once = _setup(facts, project).seconds
    if once > limits["setup"] / 2:
        yield _slow("/setup", once, limits["setup"])
    setup = f"/setup in {once * 1000:.0f} ms of {limits['setup']:g} s"
    if facts.first(project) is None or _waits(facts, project):
        yield ok(setup)
        return
    try:
        answer = facts.predicted(project)
    except Unavailable:
        raise Unavailable("/predict refuses, see the check of prediction") from None
    took, entry = answer.seconds, answer.content["results"][0]
    if isinstance(entry, dict) and entry.get("score") is None and not entry["result"]:
        # A failure is fast, and told by the check of predictions.
        yield ok(setup)
        return
    if took > limits["predict"] / 2:
        yield _slow("/predict of one task", took, limits["predict"])
    fit = int(limits["predict"] / max(took, 0.001))
    yield ok(
        f"{setup}, a task in {took * 1000:.0f} ms: about {fit} fit the {limits['predict']:g} s of "
        "Retrieve predictions, more by ls-yolo prelabel"
    )


def _slow(what: str, took: float, limit: float) -> Finding:
    say = failed if took > limit else warning
    return say(
        f"{what} took {took:.1f} s, and Label Studio waits {limit:g} s",
        "is the machine busy, or the model loaded at first use (MODEL_LOADING=start)? "
        "docs/speed.md",
    )
