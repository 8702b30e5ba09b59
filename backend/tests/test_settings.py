"""Settings: one list, typed, bounded, with errors that say what to write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo import settings
from ls_yolo.settings import BY_NAME, SETTINGS, SettingError

NUMBERS = [setting for setting in SETTINGS if setting.type in ("int", "float")]


def test_every_name_is_there_once():
    assert len(BY_NAME) == len(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_is_a_value_of_its_setting_and_every_setting_says_what_it_means(setting):
    if setting.default or setting.type not in ("int", "float"):
        setting.parse(setting.default)
    assert setting.meaning.endswith(".")
    assert setting.readers
    assert setting.secret == bool(setting.generate), "what is generated is a secret, and only that"


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
def test_numbers_have_both_bounds_and_take_them(setting):
    assert setting.parse(f"{setting.minimum:g}") == setting.minimum
    assert setting.parse(f"{setting.maximum:g}") == setting.maximum
    for beyond in (setting.minimum - 1, setting.maximum + 1):
        with pytest.raises(SettingError, match=f"{setting.name}: found .*expected a number from"):
            setting.parse(f"{beyond:g}")


@given(st.text())
def test_a_threshold_is_a_number_from_0_to_1_or_an_error_that_names_the_setting(text):
    try:
        value = BY_NAME["MODEL_SCORE_THRESHOLD"].parse(text)
    except SettingError as error:
        assert str(error).startswith("MODEL_SCORE_THRESHOLD: found ")
    else:
        assert 0 <= value <= 1


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "-0.1", "1.1", "half"])
def test_what_is_no_score_is_refused(text):
    with pytest.raises(SettingError, match="MODEL_SCORE_THRESHOLD"):
        BY_NAME["MODEL_SCORE_THRESHOLD"].parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, True) for text in ("1", "TRUE", "yes", "on", " true ")],
        *[(text, False) for text in ("0", "False", "no", "off", "")],
    ],
)
def test_booleans_are_written_in_the_usual_ways(text, value):
    assert BY_NAME["ALLOW_CUSTOM_MODEL_PATH"].parse(text) is value


def test_what_is_neither_true_nor_false_is_refused():
    with pytest.raises(SettingError, match="ALLOW_CUSTOM_MODEL_PATH: found 'maybe', expected true"):
        BY_NAME["ALLOW_CUSTOM_MODEL_PATH"].parse("maybe")


def test_a_url_needs_its_scheme():
    with pytest.raises(SettingError, match="LABEL_STUDIO_URL: found 'label-studio:8080', expected"):
        BY_NAME["LABEL_STUDIO_URL"].parse("label-studio:8080")


def test_a_log_level_is_one_of_four_in_any_case():
    assert BY_NAME["LOG_LEVEL"].parse("debug") == "debug"
    with pytest.raises(SettingError, match="LOG_LEVEL: found 'loud', expected DEBUG, INFO, WARN"):
        BY_NAME["LOG_LEVEL"].parse("loud")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("DEVICE", ["auto", "cpu", "cuda", "cuda:1"], ["gpu", "cuda:x", "0"]),
        ("BACKEND_MEMORY", ["6g", "512m", "1073741824"], ["lots", "6 g", "-1g"]),
        ("BIND_ADDRESS", ["127.0.0.1", "0.0.0.0", "::1", "[::]"], ["localhost", "everywhere"]),
        ("COMPOSE_PROJECT_NAME", ["ls-yolo", "a_1"], ["LS", "-a", "a b"]),
        ("LABEL_STUDIO_USERNAME", ["a@b.c"], ["admin", "a b@c", "a@"]),
    ],
)
def test_a_text_is_of_the_form_that_its_readers_take(name, good, bad):
    for text in good:
        assert BY_NAME[name].parse(text) == text
    for text in bad:
        with pytest.raises(SettingError, match=f"{name}: found .*, expected "):
            BY_NAME[name].parse(text)


def test_a_number_is_written_in_plain_digits():
    with pytest.raises(SettingError, match="expected a whole number"):
        BY_NAME["BACKEND_PORT"].parse("\uff19\uff10")


def test_every_default_can_be_used():
    assert settings.faults({}) == []


def test_check_says_a_line_for_each_value_that_cannot_be_used(monkeypatch, capsys):
    monkeypatch.setenv("BACKEND_MEMORY", "lots")
    monkeypatch.setenv("LABEL_STUDIO_PORT", "70000")
    assert settings.main(["--check"]) == 78
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["LABEL_STUDIO_PORT", "BACKEND_MEMORY"]
    monkeypatch.setenv("BACKEND_MEMORY", "2g")
    monkeypatch.setenv("LABEL_STUDIO_PORT", "8081")
    assert settings.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_a_reader_gets_its_own_settings_and_no_secret_of_others():
    assert "LABEL_STUDIO_PASSWORD" not in settings.read("backend", {})
    assert settings.read("backend", {})["THREADS"] == 16
    assert settings.read("backend", {"THREADS": " 4 "})["THREADS"] == 4


def test_a_setting_that_is_set_to_nothing_has_its_default():
    assert settings.read("backend", {"THREADS": ""})["THREADS"] == 16


@pytest.mark.parametrize("environ", [{}, {"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": " "}])
def test_user_and_password_have_no_default_outside_of_env(environ):
    values = settings.read("backend", environ)
    assert (values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]) == ("", "")


@pytest.mark.parametrize("folder", ["", "a", "a/b/", ".", ".h/..b", "..."])
def test_a_folder_of_the_datasets_is_taken(folder):
    assert settings.read("backend", {"CALIBRATION_IMAGES": folder})["CALIBRATION_IMAGES"] == folder


@pytest.mark.parametrize("folder", ["/a", "..", "../a", "a/..", "a/../b", "a/..b/.."])
def test_a_folder_outside_of_the_datasets_is_refused(folder):
    with pytest.raises(settings.SettingError, match="expected a folder inside DATASETS_DIR"):
        settings.read("backend", {"CALIBRATION_IMAGES": folder})


def test_the_list_is_printed_as_json_and_as_a_table(capsys):
    assert settings.main(["--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listed] == [setting.name for setting in SETTINGS]
    assert settings.main(["--markdown"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == len(SETTINGS) + 2
    assert all(row.count("|") == 5 for row in table)
