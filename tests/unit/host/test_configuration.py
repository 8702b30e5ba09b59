"""Settings, names in ``.env`` and folders that a person has chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from host import configuration
from host.checks import OK, STOP, WARNING
from lib import settings
from lib.cli import UserError

# Settings and folders

AUTH = {"BASIC_AUTH_USER": "ann", "BASIC_AUTH_PASS": "secret"}


def answer(code, out="", err=""):
    return lambda _: (code, out, err)


def test_settings_that_can_be_used_are_one_line():
    (check,) = configuration.check_settings(AUTH, answer(0))
    assert check.state == OK


def test_each_setting_that_cannot_be_used_stops_with_its_own_line():
    lines = "BACKEND_MEMORY: found 'lots', expected a size such as 6g\nDEVICE: is odd\n"
    checks = configuration.check_settings(AUTH, answer(78, lines))
    assert [(c.name, c.found, c.needed, c.state) for c in checks] == [
        ("BACKEND_MEMORY", "'lots'", "a size such as 6g", STOP),
        ("DEVICE", "is odd", "", STOP),
    ]
    assert checks[0].fix.startswith("Expected a size such as 6g. Correct it in .env")


def test_a_look_at_the_settings_that_fails_is_no_pass():
    with pytest.raises(UserError, match="no such module"):
        configuration.check_settings(AUTH, answer(1, err="no such module"))


@pytest.mark.parametrize(
    ("user", "password", "state"),
    [("ann", "secret", OK), ("", "", OK), ("ann", "", OK), ("", "secret", STOP)],
)
def test_a_password_of_the_backend_needs_a_user(user, password, state):
    values = {"BASIC_AUTH_USER": user, "BASIC_AUTH_PASS": password}
    assert configuration.check_settings(values, answer(0))[0].state == state


def test_what_env_will_have_is_looked_at():
    values = settings.values({}, Path("/none"))
    seen = configuration.to_look_at({**values, "WORKERS": "4"}, settings.declared(), given=())
    assert len(seen["LABEL_STUDIO_API_KEY"]) == 40  # is generated
    assert seen["WORKERS"] == "1"  # fixed by Compose, whatever the shell says
    given = configuration.to_look_at(values, settings.declared(), given=("BASIC_AUTH_PASS",))
    assert given["BASIC_AUTH_PASS"] == ""


def test_the_backend_itself_looks_at_the_settings():
    values = configuration.to_look_at(settings.values({}, Path("/none")), settings.declared(), ())
    assert [check.state for check in configuration.check_settings(values)] == [OK]
    checks = configuration.check_settings({**values, "LABEL_STUDIO_PORT": "99999"})
    assert [(check.name, check.state) for check in checks] == [("LABEL_STUDIO_PORT", STOP)]


@pytest.mark.parametrize(
    ("name", "found", "fix"),
    [
        ("LABELSTUDIO_PORT", "is no setting", "Did you mean LABEL_STUDIO_PORT?"),
        ("label_studio_port", "is no setting", "Did you mean LABEL_STUDIO_PORT?"),
        ("SECRET_KEY_X", "is no setting", "docs/settings.md"),
        ("WORKERS", "has no effect", "Compose sets it"),
    ],
)
def test_a_name_in_env_that_changes_nothing_is_a_warning(name, found, fix):
    (check,) = configuration.check_names([name], settings.declared())
    assert (check.name, check.state) == (name, WARNING)
    assert check.found.startswith(found)
    assert fix in check.fix


def test_names_in_env_that_mean_something():
    names = [s["name"] for s in settings.declared() if not s["fixed"]]
    others = [
        "COMPOSE_PARALLEL_LIMIT",
        "DOCKER_HOST",
        "http_proxy",
        "NO_PROXY",
        "BUILDKIT_PROGRESS",
    ]
    assert configuration.check_names([*names, *others], settings.declared()) == []


def test_folders_of_a_persons_own_lack_what_makes_them_work(tmp_path):
    values = {
        "MODELS_DIR": str(tmp_path), "PROJECTS_DIR": str(tmp_path / "none"), "MODEL_CLASS": "",
    }  # fmt: skip
    models, projects = configuration.check_folders(values)
    assert (models.state, projects.state) == (STOP, STOP)
    assert models.found == f"no models.yaml in {tmp_path}"
    assert f"Write {tmp_path}/models.yaml" in models.fix
    assert "my-model:\n        weights: best.pt" in models.fix
    assert projects.found == f"no folder {tmp_path / 'none'}"
    gone = configuration.check_folders({**values, "MODELS_DIR": str(tmp_path / "none")})
    assert gone[0].found == f"no folder {tmp_path / 'none'}"


def test_folders_that_are_fine(tmp_path):
    (tmp_path / "models.yaml").touch()
    values = {"MODELS_DIR": str(tmp_path), "PROJECTS_DIR": str(tmp_path), "MODEL_CLASS": ""}
    assert [check.state for check in configuration.check_folders(values)] == [OK, OK]


def test_the_kit_s_own_folders_begin_with_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    values = {"MODELS_DIR": "./models", "PROJECTS_DIR": "./projects", "MODEL_CLASS": ""}
    models, projects = configuration.check_folders(values)
    assert (models.state, projects.state) == (OK, OK)
    assert "make up begins with the demo's" in models.found


def test_a_class_of_ones_own_needs_no_models_yaml(tmp_path):
    values = {"MODELS_DIR": str(tmp_path), "PROJECTS_DIR": str(tmp_path), "MODEL_CLASS": "m:Own"}
    assert [check.state for check in configuration.check_folders(values)] == [OK, OK]
    gone, _ = configuration.check_folders({**values, "MODELS_DIR": str(tmp_path / "none")})
    assert gone.state == STOP


def test_a_value_that_compose_would_fill_in_is_refused_with_the_way_out():
    (check,) = configuration.check_references(["DATASETS_DIR"])
    assert (check.name, check.state) == ("DATASETS_DIR", STOP)
    assert "'...'" in check.fix
