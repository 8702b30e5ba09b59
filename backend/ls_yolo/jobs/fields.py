"""Numbers for the Data Manager to sort and filter by: how many objects of each label a task has."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects import views

Region = Mapping[str, Any]
"""As Label Studio stores it in the ``result`` of a prediction."""

TOTAL = "count"
"""The column of all objects. No label has it: theirs begin with ``count_``."""
LONGEST = 60
"""Letters of a label in its column at most."""
VIEW = views.COUNTED
"""The title of the view that is sorted by a count."""
WHOLE = frozenset({"choices", "taxonomy"})
"""What is said of a task as a whole: labels, but no objects."""


def labels(region: Region) -> list[str]:
    """The labels of a region, those of a Taxonomy as ``ship / tug``; none where it has none of its
    own: of a pair, a shape and its labels, only the second one has them."""
    value = region.get("value") or {}
    found = value.get(region.get("type"), value.get("labels"))
    if not isinstance(found, list):
        return []
    paths = [one if isinstance(one, list) else [one] for one in found]
    return [" / ".join(map(str, path)) for path in paths]


def column(label: str) -> str:
    """The key of ``label`` in a task's data, such as ``count_person`` or ``count_船员``: the same
    in every project and run.

    Label Studio gives ``.``, ``[`` and ``data__`` in a key a meaning, so what is no letter, digit
    or ``_`` becomes ``_``, and unless that was a single space between words, a hash is added, by
    which labels are still told apart.
    """
    normal = unicodedata.normalize("NFC", label)
    plain = re.sub(r"[\W_]+", "_", normal).strip("_")[:LONGEST]
    if not plain or plain != normal.replace(" ", "_"):
        mark = hashlib.sha256(normal.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        plain = f"{plain}_{mark}" if plain else mark
    return f"{TOTAL}_{plain}"


def counts(regions: Sequence[Region], known: Iterable[str] = ()) -> dict[str, int]:
    """Column to how many regions have its label, and `TOTAL` to how many are objects.

    known: labels of the labeling config, which have a number too where it is 0: a task without any
    would otherwise keep the number of an earlier run, and be sorted last.
    """
    found = dict.fromkeys([TOTAL, *map(column, known)], 0)
    for region in regions:
        names = labels(region)
        for name in names:
            found[column(name)] = found.get(column(name), 0) + 1
        found[TOTAL] += bool(names) and region.get("type") not in WHOLE
    return found


def show(studio: Studio, project: int, columns: Iterable[str], by: str = TOTAL) -> bool:
    """Makes the view `VIEW` of a project, or has it take ``columns`` for numbers; returns whether
    anything had to be changed.

    columns: keys of the tasks' data, as `counts` has them. PostgreSQL sorts them as text, 10 before
        9, unless the view calls them numbers.
    by: the column that a new view is sorted by, highest first. How people have sorted one that is
        there stays, and what else they have set.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses, or is not reached.
    """
    # The SDK's rows are typed more narrowly than what Label Studio sends.
    api: Any = studio.client
    numbers = {f"tasks:data.{name}": "Number" for name in (by, *columns)}
    order = [f"-tasks:data.{by}"]
    rows = [row.model_dump() for row in api.views.list(project=project)]
    found = next((row for row in rows if (row["data"] or {}).get("title") == VIEW), None)
    if found is None:
        # Every column would be shown, those of the data last.
        new = {"type": "list", "target": "tasks", "hiddenColumns": _hidden(studio, project)}
        if not rows:
            # The page makes this one of a project that has none, and then none any more.
            api.views.create(project=project, data={**new, "title": "Default"})
        more = {"title": VIEW, "ordering": order, "columnsDisplayType": numbers}
        api.views.create(project=project, data=new | more)
        return True
    # Label Studio replaces the data of a view as a whole.
    data: dict[str, Any] = {
        name: value for name, value in found["data"].items() if value is not None
    }
    merged = (data.get("columnsDisplayType") or {}) | numbers
    changed = data | {"columnsDisplayType": merged, "ordering": data.get("ordering") or order}
    if changed == data:
        return False
    api.views.update(str(found["id"]), project=project, data=changed)
    return True


def _hidden(studio: Studio, project: int) -> dict[str, list[str]]:
    """The columns that a new view does not show, as the page has it: by where they are shown."""
    rows = studio.request("GET", f"api/dm/columns?project={project}")["columns"]
    names = {
        f"tasks:{'data.' if row.get('parent') == 'data' else ''}{row['id']}": row.get(
            "visibility_defaults", {}
        )
        for row in rows
    }
    return {
        place: [name for name, shown in names.items() if not shown.get(place, True)]
        for place in ("explore", "labeling")
    }
