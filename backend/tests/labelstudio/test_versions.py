"""Versions of predictions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ls_yolo.cli.common import ToolError
from ls_yolo.cli.predictions import chosen
from ls_yolo.labelstudio import versions
from ls_yolo.labelstudio.bulk import Version

OLD, NEW, BOTH = "m@0123456789ab", "m@ba9876543210", "m@0123456789ab+head.v2@0123456789ab"


@pytest.mark.parametrize(
    ("version", "names"),
    [
        (OLD, ("m",)),
        (BOTH, ("m", "head.v2")),
        ("", ()),
        ("0.1.0", ()),
        ("m@0123456789", ()),
        ("reviewed by Ann", ()),
        (f"{OLD}+mine", ()),
    ],
)
def test_a_version_of_the_kits_models_names_them_and_any_other_none(version, names):
    assert versions.models(version) == names


def found(*names, shown="", current=""):
    rows = [Version(name, 1, 0, "", "") for name in names]
    return SimpleNamespace(
        title="p", project=1, versions=rows, names=list(names), shown=shown, current=current,
        check=lambda name: None,
    )  # fmt: skip


def test_what_people_have_imported_goes_only_where_it_is_named():
    project = found("", OLD, BOTH, NEW, "mine")
    assert [row.name for row in chosen(project, 1, [])] == [OLD, BOTH]
    assert chosen(project, 4, []) == []
    assert [row.name for row in chosen(project, 1, ["mine", ""])] == ["", "mine"]
    # Where nothing is shown, that is no version which would have to stay.
    assert [row.name for row in chosen(found("", OLD, shown=OLD), 0, [""])] == [""]
    with pytest.raises(ToolError, match="is shown, and stays"):
        chosen(found(OLD, NEW, shown=OLD), 0, [OLD])
