"""Predictions in bulk: counted, paged through, stored once each, deleted; numbers of ``task.data``.

Label Studio has no unique key for predictions, so nothing in its own API keeps two writers from
storing one twice. Here every write holds a lock of the project: an advisory lock on PostgreSQL, and
on SQLite a transaction that begins as a writer (see settings.py).

Upstream's flag ``fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short`` is left
alone. It would make ``import/predictions`` fast, but ends its validation, for people's own imports
too; `store` is fast and validates.

A *good* prediction of a version bears exactly that version and is not a failure; a *failed* one has
an empty result and no score.
"""

# mypy: disable-error-code="import-not-found,import-untyped,attr-defined"

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from core.feature_flags import flag_set
from core.label_config import replace_task_data_undefined_with_config_field
from data_manager.prepare_params import Filters, PrepareParams
from django.db import connection, transaction
from django.db.models import (
    Count,
    Exists,
    F,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
)
from django.db.models.functions import Coalesce
from django.utils import timezone
from label_studio_sdk.label_interface import LabelInterface
from projects.models import ProjectSummary
from tasks.models import Annotation, Prediction, PredictionMeta, Task

STRICT = "fflag_feat_utc_210_prediction_validation_15082025"
"""The flag by which Label Studio checks predictions strictly, those of its backends too."""
LOCK_CLASS = 0x15_901
"""The first of the two numbers of the advisory locks; the second is the project's id."""
LOOKED_AT = 20_000
"""Tasks that a page looks at before it is given out as it is, so that no request is long."""
CHUNK = 2000
"""Tasks that one query looks at."""
SECONDS = 5.0
"""A page is given out as it is after this time: a filter may take long for each chunk."""
NUMBERS_META = "ls_kit_numbers"
"""The key of ``task.meta`` under which it says which numbers of ``task.data`` are from here."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair of UTF-16, which JSON can name and no database hold."""

FAILED = Q(score__isnull=True) & (Q(result__isnull=True) | Q(result=[]))
GOOD = Q(score__isnull=False) | (Q(result__isnull=False) & ~Q(result=[]))


@contextlib.contextmanager
def locked(project: Any) -> Iterator[None]:
    """A transaction that no other of this kind, on this project, runs beside."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, project.pk])
        yield


def tasks_of(
    project: Any,
    where: Mapping[str, Any] | None,
    shard: tuple[int, int] | None,
    request: Any,
    after: int = 0,
    highest: int | None = None,
) -> QuerySet[Any]:
    """The tasks of a project that a filter of the Data Manager, and a shard, leave; of those with
    ids above ``after`` and up to ``highest``.

    Raises:
        ValidationError: pydantic's or DRF's; the filter is none.
    """
    ids: dict[str, Any] = {"pk__gt": after}
    if highest is not None:
        ids["pk__lte"] = highest
    tasks = Task.objects.filter(project=project, **ids)
    if where:
        params = PrepareParams(
            project=project.pk, filters=Filters.model_validate(where), request=request
        )
        # The range is inside too, or the filter would go through the whole project each time. It
        # joins tables, and a task may come of it more than once.
        found = Task.prepared.only_filtered(prepare_params=params).filter(**ids)
        tasks = tasks.filter(pk__in=found.order_by().values("pk"))
    if shard:
        index, total = shard
        tasks = tasks.annotate(shard=F("pk") % total).filter(shard=index)
    return tasks


def count(tasks: QuerySet[Any], version: str) -> dict[str, int]:
    """How many of ``tasks`` there are, lack a good prediction, and have a failed one instead."""
    of_task = Prediction.objects.filter(task=OuterRef("pk"), model_version=version)
    missing = tasks.filter(~Exists(of_task.filter(GOOD)))
    return {
        "total": tasks.count(),
        "missing": missing.count(),
        "failed": missing.filter(Exists(of_task.filter(FAILED))).count(),
    }


def missing(
    project: Any,
    tasks: Callable[[int, int | None], QuerySet[Any]],
    version: str,
    after: int,
    limit: int,
    highest: int | None,
) -> dict[str, Any]:
    """A page of those tasks that lack a good prediction, by ranges of id.

    ``tasks``: those that are meant, with ids above the one and up to the other.

    It takes as long at a million tasks as at a thousand. ``data`` is as Label Studio sends it to
    the backend: what a storage put under ``$undefined$`` is under the name of the labeling config.
    """
    found: list[int] = []
    last, until = after, time.monotonic() + SECONDS
    for _ in range(0, LOOKED_AT, CHUNK):
        chunk = tasks_of(project, None, None, None, last, highest).order_by("pk")
        end = chunk.values_list("pk", flat=True)[CHUNK - 1 : CHUNK].first()
        ids = list(tasks(last, end or highest).order_by("pk").values_list("pk", flat=True))
        lacking = _lacking(ids, version)[: limit - len(found)]
        found += lacking
        last = lacking[-1] if len(found) == limit else end or 0
        if last == 0 or len(found) == limit or time.monotonic() > until:
            break
    first = next(iter(project.data_types), None)
    rows = []
    for pk, data in Task.objects.filter(pk__in=found).order_by("pk").values_list("pk", "data"):
        replace_task_data_undefined_with_config_field(data, project, first_key=first)
        rows.append({"id": pk, "data": data})
    return {"tasks": rows, "last": last}


def _lacking(ids: Sequence[int], version: str) -> list[int]:
    good = set(
        Prediction.objects.filter(GOOD, task__in=ids, model_version=version).values_list(
            "task", flat=True
        )
    )
    return [pk for pk in ids if pk not in good]


def refusal(project: Any, row: Mapping[str, Any]) -> str:
    """Why a row cannot be stored, by Label Studio's own strict validation; empty where it can.

    That validation does not know all that the page draws. Where Label Studio itself does without
    it, which is the default, so is done here with a labeling config that has any of that.
    """
    if not storable(row["result"]):
        return "found a character that a database cannot hold: U+0000, or half of a pair"
    owner = project.organization.created_by  # whom Label Studio itself asks the flag for
    if _beyond(project.label_config) and not flag_set(STRICT, user=owner):
        return ""
    errors = _interface(project.label_config).validate_prediction(dict(row), return_errors=True)
    return "; ".join(map(str, errors))


def storable(value: Any) -> bool:
    """Whether PostgreSQL can hold all strings of a JSON value."""
    if isinstance(value, dict):
        return all(storable(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return all(map(storable, value))
    if not isinstance(value, str):
        return True
    return "\0" not in value and SURROGATE.search(value) is None


@lru_cache(maxsize=16)
def _beyond(label_config: str) -> bool:
    """Whether a labeling config has what strict validation refuses although the page draws it:
    tags in a namespace, the numbered names of a Repeater, labels that each task brings, choices
    inside choices."""
    for element in ElementTree.fromstring(label_config).iter():
        tag = element.tag.lower()
        own = tag.endswith("labels") or tag == "choices"
        if (
            "}" in tag
            or tag == "repeater"
            or (own and element.get("value", "").startswith("$"))
            or (tag == "choice" and any(child.tag.lower() == "choice" for child in element))
        ):
            return True
    return False


@lru_cache(maxsize=16)
def _interface(label_config: str) -> Any:
    return LabelInterface(label_config)


def store(project: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stores rows of tasks that have no good prediction of the row's version.

    Args:
        project: whose tasks they are.
        rows: ``task``, ``result``, ``score``, ``version`` and, if it is known, ``cluster``.

    A good row takes the place of failed predictions of its version; a failed one is stored where
    there is none of the version at all.
    """
    # Before the lock, since this is what takes time.
    refused = {}
    wanted: dict[tuple[int, str], Mapping[str, Any]] = {}
    for row in rows:
        why = refusal(project, row)
        if why:
            refused[row["task"]] = why
        else:
            wanted.setdefault((row["task"], row["version"]), row)
    versions = {version for _, version in wanted}
    with locked(project):
        ids = {task for task, _ in wanted}
        # Held until the end, or a task might be deleted between here and the insertion.
        alive = set(
            Task.objects.filter(project=project, pk__in=ids)
            .order_by("pk")
            .select_for_update(no_key=True)
            .values_list("pk", flat=True)
        )
        there = Prediction.objects.filter(task__in=alive, model_version__in=versions)
        good = set(there.filter(GOOD).values_list("task", "model_version"))
        failed = set(there.filter(FAILED).values_list("task", "model_version"))
        new, present = [], 0
        for (task, version), row in wanted.items():
            if task not in alive:
                continue
            is_good = row["score"] is not None or bool(row["result"])
            if (task, version) in good or (not is_good and (task, version) in failed):
                present += 1
                continue
            new.append(
                Prediction(
                    task_id=task,
                    project_id=project.pk,
                    result=row["result"],
                    score=row["score"],
                    model_version=version,
                    cluster=row.get("cluster"),
                )
            )
        for version in versions:
            replaced = [row.task_id for row in new if (row.task_id, version) in failed]
            old = there.filter(FAILED, model_version=version, task__in=replaced)
            _remove(list(old.values_list("pk", flat=True)))
        Prediction.objects.bulk_create(new, batch_size=500)
        _recount({prediction.task_id for prediction in new})
    return {
        "stored": len(new),
        "present": present,
        "gone": sorted(ids - alive),
        "refused": sorted(refused.items()),
    }


def _remove(predictions: list[int]) -> None:
    """Deletes predictions by id, without reading their results.

    Upstream's signals, which this leaves out, count each one's task anew and save it, 30 a second.
    """
    PredictionMeta.objects.filter(prediction__in=predictions).delete()
    Annotation.objects.filter(parent_prediction__in=predictions).update(parent_prediction=None)
    found = Prediction.objects.filter(pk__in=predictions)
    found._raw_delete(found.db)


def _recount(tasks: set[int]) -> None:
    """Has tasks say how many predictions they have, and that they changed."""
    counted = (
        Prediction.objects.filter(task=OuterRef("pk"))
        .order_by()
        .values("task")
        .annotate(number=Count("pk"))
        .values("number")
    )
    Task.objects.filter(pk__in=tasks).update(
        total_predictions=Coalesce(Subquery(counted), 0), updated_at=timezone.now()
    )


def versions(project: Any) -> list[dict[str, Any]]:
    """The versions that have predictions, by the time of their last one; ``""``: without any."""
    rows = (
        Prediction.objects.filter(project=project)
        .annotate(name=Coalesce("model_version", Value(""), output_field=TextField()))
        .values("name")
        .annotate(
            count=Count("pk"),
            failed=Count("pk", filter=FAILED),
            first=Min("created_at"),
            last=Max("created_at"),
        )
        .order_by("last")
    )
    return [
        {
            "name": row["name"],
            "count": row["count"],
            "failed": row["failed"],
            "first": row["first"].isoformat(),
            "last": row["last"].isoformat(),
        }
        for row in rows
    ]


def delete(project: Any, version: str, limit: int) -> int:
    """Deletes up to ``limit`` predictions of a version, ``""``: those without any; how many.

    What the project shows stays as it is; upstream's own call would have it show none.
    """
    named = Q(model_version=version)
    if not version:
        named |= Q(model_version__isnull=True)
    with locked(project):
        rows = dict(
            Prediction.objects.filter(named, project=project)
            .order_by("pk")
            .values_list("pk", "task")[:limit]
        )
        _remove(list(rows))
        _recount(set(rows.values()))
    return len(rows)


def settle(project: Any, version: str, limit: int, among: Collection[int] | None = None) -> int:
    """Deletes what a task has of a version besides its first good prediction, of up to ``limit``
    tasks, of those ``among`` if they are named; how many predictions.

    Label Studio itself stores without a look, when two people open a task at once for example.
    """
    with locked(project):
        ours = Prediction.objects.filter(project=project, model_version=version)
        if among is not None:
            ours = ours.filter(task__in=among)
        twice = (
            ours.order_by()
            .values("task")
            .annotate(number=Count("pk"))
            .filter(number__gt=1)
            .values_list("task", flat=True)[:limit]
        )
        tasks = list(twice)
        good = dict(
            ours.filter(GOOD, task__in=tasks).values("task").annotate(first=Min("pk")).order_by()
            .values_list("task", "first")
        )  # fmt: skip
        first = dict(
            ours.filter(task__in=tasks).values("task").annotate(first=Min("pk")).order_by()
            .values_list("task", "first")
        )  # fmt: skip
        kept = (first | good).values()
        doomed = ours.filter(task__in=tasks).exclude(pk__in=kept)
        copies = list(doomed.values_list("pk", flat=True))
        _remove(copies)
        _recount(set(tasks))
    return len(copies)


def numbers(project: Any, values: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Writes numbers into ``task.data``, never over what somebody else put there.

    Which ones are from here is kept in ``task.meta``. Returns how many tasks ``changed``, and the
    keys that were ``kept`` as they are.
    """
    changed, added, kept = [], dict[str, int](), set[str]()
    with locked(project):
        now = timezone.now()
        found = Task.objects.filter(project=project, pk__in=values).order_by("pk")
        for task in found.select_for_update(no_key=True).only("pk", "data", "meta", "updated_at"):
            meta = task.meta if isinstance(task.meta, dict) else {}
            ours = set(meta.get(NUMBERS_META) or ())
            before = (dict(task.data), set(ours))
            for key, value in values[task.pk].items():
                if key in task.data and key not in ours:
                    kept.add(key)
                    continue
                if key not in task.data:
                    added[key] = added.get(key, 0) + 1
                task.data[key] = value
                ours.add(key)
            if (task.data, ours) != before:
                task.meta = {**meta, NUMBERS_META: sorted(ours)}
                task.updated_at = now
                changed.append(task)
        Task.objects.bulk_update(changed, ["data", "meta", "updated_at"], batch_size=500)
        if added:
            # The Data Manager offers the columns that are named here.
            summary = ProjectSummary.objects.select_for_update().get(pk=project.summary.pk)
            columns = dict(summary.all_data_columns or {})
            for key, more in added.items():
                columns[key] = columns.get(key, 0) + more
            summary.all_data_columns = columns
            summary.save(update_fields=["all_data_columns"])
    return {"changed": len(changed), "kept": sorted(kept)}


def highest(project: Any) -> int:
    """The highest id of a task; 0 where there is none."""
    return int(Task.objects.filter(project=project).aggregate(top=Max("pk"))["top"] or 0)
