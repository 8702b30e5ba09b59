"""What `make helm-install` gives to the chart."""

from __future__ import annotations

import pytest

import helm_install
from lib import versions
from lib.cli import UserError

# make helm-install


@pytest.fixture
def folders(tmp_path):
    found = {name: tmp_path / name for name in ("MODELS_DIR", "DATASETS_DIR", "PROJECTS_DIR")}
    for folder in found.values():
        folder.mkdir()
    (found["MODELS_DIR"] / "models.yaml").write_text("a: {weights: a.pt}")
    (found["PROJECTS_DIR"] / "yard.yaml").write_text("title: Yard")
    (found["PROJECTS_DIR"] / "notes.txt").write_text("no project")
    return found


IMAGES = {tag: f"{tag}-0123456789ab" for tag in versions.images().values()}


def test_the_chart_gets_the_models_and_projects_of_this_host(folders):
    values = helm_install.values(folders, IMAGES)
    assert values["models"]["config"] == "a: {weights: a.pt}"
    assert values["projects"] == {"yard.yaml": "title: Yard"}
    assert values["backend"]["image"]["repository"] == "ls-yolo/backend"
    assert values["backend"]["image"]["tag"].endswith("-0123456789ab")


def test_without_a_models_yaml_nothing_is_installed(folders):
    (folders["MODELS_DIR"] / "models.yaml").unlink()
    with pytest.raises(UserError, match=r"models\.yaml.*docs/models\.md"):
        helm_install.values(folders, IMAGES)


def test_hidden_files_and_readmes_stay_here(folders):
    (folders["DATASETS_DIR"] / ".cache").mkdir()
    (folders["DATASETS_DIR"] / "yard").mkdir()
    for name in ("README.md", ".cache/x", "yard/a.jpg", "yard/.hidden"):
        (folders["DATASETS_DIR"] / name).write_text("x")
    assert set(helm_install.files_of(folders["DATASETS_DIR"])) == {"yard/a.jpg"}


@pytest.mark.parametrize(("size", "claim"), [(0, "1Gi"), (2**28, "1Gi"), (2**28 + 1, "2Gi"),
                                             (3 * 2**30, "12Gi")])  # fmt: skip
def test_claims_have_room_for_more(tmp_path, size, claim):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(size)
    assert helm_install.size_of({"a": tmp_path / "a"}) == claim
