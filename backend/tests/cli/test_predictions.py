"""`ls-yolo predictions`: what it takes for shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ls_yolo.cli import main, predictions
from ls_yolo.labelstudio.bulk import Version


@pytest.mark.parametrize(
    ("on", "said"),
    [(True, "Demo: shows m@old already"), (False, "Demo: shows m@old; before: none")],
)
def test_a_version_that_is_hidden_is_not_shown_already(on, said, monkeypatch, capsys):
    project = SimpleNamespace(id=1, title="Demo", model_version="m@old", show_collab_predictions=on)
    changed = []
    projects = SimpleNamespace(
        get=lambda number: project, update=lambda number, **values: changed.append(values)
    )
    studio = SimpleNamespace(
        client=SimpleNamespace(projects=projects), connections=lambda number: []
    )
    versions = [Version("m@old", 3, 0, "", "2026-11-28T10:00:00Z")]
    monkeypatch.setattr(predictions, "open_studio", lambda: studio)
    monkeypatch.setattr("ls_yolo.labelstudio.lookup.find_project", lambda *words: project)
    monkeypatch.setattr(
        "ls_yolo.labelstudio.bulk.store_of",
        lambda studio: SimpleNamespace(versions=lambda number: versions),
    )
    assert main.main(["predictions", "rollback", "Demo", "--to", "m@old"]) in (0, None)
    assert capsys.readouterr().out.strip() == said
    shown = {"model_version": "m@old", "show_collab_predictions": True}
    assert changed == ([] if on else [shown])
