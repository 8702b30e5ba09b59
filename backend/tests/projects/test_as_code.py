"""What a project's file can say beside images and labels, and how it is sent and shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from ls_yolo import config as files
from ls_yolo.config import ConfigError
from ls_yolo.labelstudio.label_config import parse
from ls_yolo.projects import (
    config,
    document,
    export,
    fields,
    labels,
    state,
    storages,
    task_files,
    views,
    webhooks,
)
from ls_yolo.projects.backend import ApplyError
from ls_yolo.projects.labels import FromModel
from ls_yolo.projects.plan import Item, State, plan
from ls_yolo.projects.reconcile import Reconciler
from ls_yolo.projects.secrets import HIDDEN, Secrets, reference
from ls_yolo.projects.secrets import read as read_secrets

HEAD = "title: Demo\nlabel_config: <View/>\n"
ROOT = Path("/datasets")
COCO = {"name": "coco", "task": "detect", "classes": ["person", "bus"]}


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "demo.yaml").write_text(HEAD + text)
        (project,) = config.read(tmp_path / "demo.yaml")
        return project

    return read


def refused(read, text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


# Files


def test_a_file_may_hold_several_projects(tmp_path):
    (tmp_path / "two.yaml").write_text(f"{HEAD}---\n{HEAD.replace('Demo', 'Other')}")
    assert [one.title for one in config.read(tmp_path)] == ["Demo", "Other"]
    (tmp_path / "two.yaml").write_text(f"{HEAD}---\ntitle: ab\nlabel_config: <View/>\n")
    with pytest.raises(ConfigError, match=r"two\.yaml:4: title: found 'ab'"):
        config.read(tmp_path)


def test_a_title_is_seen_twice_across_all_that_is_named(tmp_path):
    (tmp_path / "more").mkdir()
    one, other = tmp_path / "one.yaml", tmp_path / "more" / "other.yaml"
    one.write_text(HEAD)
    other.write_text(HEAD)
    with pytest.raises(ConfigError, match=r"other\.yaml: title 'Demo' is taken by .*one\.yaml"):
        config.read(one, tmp_path / "more")
    other.write_text(HEAD.replace("Demo", "Other"))
    both = [project.title for project in config.read(tmp_path / "more", one)]
    assert both == ["Other", "Demo"]
    assert len(config.read(tmp_path, one)) == 1  # the same file


def test_only_what_a_file_names_is_compared(read):
    named = read("storage: {path: cams/}\nsampling: uniform\n").named
    assert named.fields == {"label_config": "<View/>", "sampling": "uniform", "models": []}
    assert [item.fields for item in named.items["source_storages"]] == [
        {"type": "local", "path": "cams"}
    ]


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("{type: s3}", "'bucket' is missing"),
        ("{type: ftp}", "found 'ftp', expected the kind of storage: local, s3, gcs or azure"),
        ("{type: gcs, bucket: x, endpoint: 'http://x'}",
         "found 'endpoint', expected a field of gcs: type, title, bucket"),
        ("{type: local, path: ../x}", "found '../x', expected local: a folder inside"),
        ("{type: s3, bucket: x, regex: '['}", "found '[', expected a regular expression"),
    ],
)  # fmt: skip
def test_a_storage_that_cannot_be_is_refused(read, storage, message):
    assert message in refused(read, f"source_storages: [{storage}]\n")


@pytest.mark.parametrize(
    "text",
    [
        "source_storages: [{type: s3, bucket: x, secret_access_key: hunter2}]",
        "source_storages: {type: s3, bucket: x, secret_access_key: hunter2}",
        "source_storages: [{type: s3, secret_access_key: hunter2}]",
        "webhooks: [{url: 'hunter2'}]",
        "webhooks: {url: 'http://x/hunter2'}",
        "webhooks: [{url: 'http://x', headers: [hunter2]}]",
    ],
)
def test_a_secret_that_stands_in_a_file_is_not_shown_by_the_error(read, text):
    assert "hunter2" not in refused(read, text + "\n")


def test_every_field_of_the_schema_has_a_description_that_editors_show():
    def look(rule, where):
        if "properties" in rule and "if" not in where[-1:]:
            for name, inner in rule["properties"].items():
                assert inner.get("description"), (*where, name)
                look(inner, (*where, name))
        if isinstance(rule.get("items"), dict):
            look(rule["items"], (*where, "items"))

    schema = files.schema("projects")
    jsonschema.Draft202012Validator.check_schema(schema)
    look(schema, ())


# Storages


def test_a_storage_of_label_studio_is_read_and_exported_and_read_again_alike(read):
    row = {
        "id": 3, "title": "ship", "bucket": "ship", "prefix": "cams/", "regex_filter": None,
        "use_blob_urls": True, "recursive_scan": True, "presign": True, "presign_ttl": 5,
        "region_name": "eu", "s3_endpoint": None,
    }  # fmt: skip
    item = storages.item(row, storages.SOURCE, "s3", ROOT)
    made = storages.exported(item, storages.SOURCE)
    assert made["secret_access_key"] == "${S3_SHIP_CAMS_SECRET_ACCESS_KEY}"
    named = read(yaml.safe_dump({"source_storages": [made]})).named
    (again,) = named.items["source_storages"]
    hidden = storages.KINDS[storages.SOURCE].hidden
    assert all(
        item.fields[key] == value for key, value in again.fields.items() if key not in hidden
    )


def test_a_path_is_relative_to_the_datasets_and_absolute_outside(read):
    inside = storages.item({"id": 1, "path": "/datasets/a/b"}, storages.TARGET, "local", ROOT)
    outside = storages.item({"id": 1, "path": "/etc"}, storages.TARGET, "local", ROOT)
    assert (inside.fields["path"], outside.fields["path"]) == ("a/b", "/etc")


# Webhooks and secrets


def test_a_header_is_compared_by_what_its_reference_stands_for():
    row = {"id": 1, "url": "http://u:p@x/?k=1", "headers": {"A": "s3cret", "B": "other"},
           "send_for_all_actions": True, "send_payload": True, "is_active": True}  # fmt: skip
    wanted = {"url": "${URL}", "headers": {"A": "${A}", "B": "${B}"}}
    secrets = Secrets({"URL": row["url"], "A": "s3cret", "B": "new"})
    found = webhooks.item(row, [wanted], secrets).fields
    assert (found["url"], found["headers"]) == ("${URL}", {"A": "${A}", "B": HIDDEN})
    exported = webhooks.exported(row, 1)
    assert exported["headers"] == {"A": "${WEBHOOK_1_A}", "B": "${WEBHOOK_1_B}"}
    assert exported["url"] == "${WEBHOOK_1_URL}"
    assert "s3cret" not in str(exported) + str(found)


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("https://x.io", "https://x.io"),
        ("https://x.io:8080/", "https://x.io:8080/"),
        ("https://x.io/services/T0/hush", "https://x.io/(hidden)#"),
        ("https://hush:hush@x.io", "https://x.io/(hidden)#"),
        ("https://x.io?key=hush", "https://x.io/(hidden)#"),
    ],
)
def test_an_address_of_a_webhook_that_may_hold_a_secret_is_hidden_but_for_its_host(url, visible):
    found = webhooks.item({"id": 1, "url": url}, [], Secrets({})).fields["url"]
    assert found.startswith(visible)
    assert "hush" not in found
    named = webhooks.item({"id": 1, "url": url}, [{"url": url}], Secrets({})).fields["url"]
    assert named == url  # as the file has it
    exported = webhooks.exported({"id": 1, "url": url}, 1)["url"]
    assert exported == ("${WEBHOOK_1_URL}" if "(hidden)" in visible else url)


@pytest.mark.parametrize(
    ("webhook", "of_connection"),
    [
        ("http://backend:9090/m/coco/webhook", True),
        ("http://backend:9090/m/older/webhook", True),
        ("http://backend:9090/webhook", True),
        ("http://backend:9090/other", False),
        ("http://elsewhere:9090/m/coco/webhook", False),
    ],
)
def test_webhooks_of_connections_to_the_backend_are_nobodys(webhook, of_connection):
    assert state.of_connection(webhook, "http://backend:9090/m/coco") == of_connection


def test_the_view_of_numbers_is_nobodys():
    def made(**data):
        return views.is_made(views.item({"id": 1, "data": data}))

    assert made(title="Most objects", ordering=["-tasks:data.count"])
    assert made(title="Default")
    assert not made(title="Default", ordering=["-tasks:data.count"])
    assert not made(title="Mine")


def test_two_hidden_addresses_are_told_apart():
    assert webhooks.shown("https://x.io/a") != webhooks.shown("https://x.io/b")


def test_a_reference_may_stand_within_a_text():
    secrets = Secrets({"TOKEN": "s3cret", "SPACE": "ship"})
    assert secrets.get("Bearer ${TOKEN} of ${SPACE}") == "Bearer s3cret of ship"
    assert secrets.get("Bearer ${OTHER}") is None
    assert secrets.unset(["Bearer ${OTHER}", "Bearer ${TOKEN}"]) == ["OTHER"]
    row = {"id": 1, "url": "http://x", "headers": {"A": "Bearer s3cret"}}
    wanted = {"url": "http://x", "headers": {"A": "Bearer ${TOKEN}"}}
    assert webhooks.item(row, [wanted], secrets).fields["headers"] == wanted["headers"]
    assert secrets.scrub("401: Bearer s3cret") == f"401: Bearer {HIDDEN}"


def test_headers_are_not_changed_while_one_of_them_is_not_at_hand(read):
    text = "webhooks: [{url: 'http://x.io', headers: {A: '${A}', B: new}}]\n"
    project = read(text)
    row = {"id": 1, "url": "http://x.io", "headers": {"A": "kept", "B": "old"},
           "send_for_all_actions": True, "send_payload": True, "is_active": True}  # fmt: skip

    def check(**environment):
        secrets = Secrets(environment)
        hooks = [one.fields for one in project.named.items["webhooks"]]
        found = State(project.named.fields, {"webhooks": [webhooks.item(row, hooks, secrets)]})
        said: list[str] = []
        checked = Reconciler(None, None, ROOT, said.append, secrets)
        checked._check_secrets(project, plan(project.named, found, state.KINDS))
        return said

    with pytest.raises(ApplyError, match="found no A in the environment"):
        check()
    assert check(A="kept") == []
    row["headers"]["B"] = "new"  # nothing changes
    assert check() == ["Demo: A is not in the environment: what Label Studio has stays"]


def test_values_of_the_file_of_secrets_are_exactly_as_written():
    text = "# of the store\n\nS3_KEY=a$b$$c${HOME}#'d\" =\nEMPTY=\n"
    assert read_secrets(text) == {"S3_KEY": "a$b$$c${HOME}#'d\" =", "EMPTY": ""}


def test_a_line_of_the_file_of_secrets_that_cannot_be_used_is_named_without_its_value():
    text = "A=1\nhunter2\nB C=hunter2\nBASIC_AUTH_PASS=hunter2\n"
    with pytest.raises(ConfigError) as caught:
        read_secrets(text, {"BASIC_AUTH_PASS"})
    first, second, third = str(caught.value).splitlines()
    assert first == "secrets.env:2: expected NAME=value, with letters, digits and _"
    assert second.startswith("secrets.env:3: expected NAME=value")
    assert third.startswith("secrets.env:4: BASIC_AUTH_PASS is a setting of ls-yolo")
    assert "hunter2" not in str(caught.value)


def test_what_was_given_away_is_taken_out_of_messages():
    secrets = Secrets({"A": "long-secret", "B": "", "C": "never asked"})
    assert (secrets.get("${A}"), secrets.get("${B}"), secrets.get("plain")) == (
        "long-secret", None, "plain",
    )  # fmt: skip
    assert secrets.scrub("bad long-secret, never asked") == f"bad {HIDDEN}, never asked"
    assert secrets.unset(["${A}", "${B}", "${D}", "x"]) == ["B", "D"]
    assert reference("s3", "my-bucket/cam", "key") == "${S3_MY_BUCKET_CAM_KEY}"


# Labels of models


def test_labels_are_the_classes_of_the_models_in_their_order():
    other = {"name": "ship", "task": "detect", "classes": ["bus", "helmet & <hat>"]}
    text = labels.label_config(FromModel(), ["coco", "ship"], [other, COCO])
    (control,) = parse(text)
    assert control.tag == "RectangleLabels"
    assert [label.value for label in control.labels] == ["person", "bus", "helmet & <hat>"]


def test_labels_of_a_file_without_models_are_those_of_the_default_model():
    ship = {"name": "ship", "task": "segment", "classes": ["tug"], "default": True}
    for rows in ([COCO, ship], [ship, COCO], [{**ship, "default": False}]):
        (control,) = parse(labels.label_config(FromModel(), [], rows))
        assert [label.value for label in control.labels] == ["tug"]
        assert control.tag == "PolygonLabels"


@pytest.mark.parametrize(
    ("task", "control", "tag"),
    [
        ("segment", "", "PolygonLabels"),
        ("classify", "", "Choices"),
        ("detect", "brush", "BrushLabels"),
    ],
)
def test_the_control_fits_the_task_unless_the_file_names_one(task, control, tag):
    text = labels.label_config(FromModel(control), ["coco"], [{**COCO, "task": task}])
    assert parse(text)[0].tag == tag


def test_colours_are_the_same_each_time_and_differ_within_a_project():
    names = [f"class {number}" for number in range(20)]
    found = labels.colors(names)
    assert len(set(found)) == 20
    assert labels.colors(names) == found
    assert labels.colors(["person"]) == labels.colors(["person", "bus"])[:1]
    assert len(labels.colors([str(number) for number in range(365)])) == 365


@pytest.mark.parametrize(
    ("made", "models", "known", "message"),
    [
        (FromModel(), ["cocoo"], [COCO], "no model 'cocoo'; did you mean 'coco'?"),
        (FromModel(classes=("tug",)), ["coco"], [COCO], "no class is called 'tug'"),
        (FromModel(), ["sam"], [{"name": "sam", "task": "sam"}], "found no classes"),
        (FromModel(), ["x"], [{"name": "x", "error": "x.pt: missing"}], "model x: x.pt: missing"),
    ],
)
def test_labels_that_no_model_gives_are_an_error(made, models, known, message):
    with pytest.raises(ApplyError, match=re.escape(message)):
        labels.label_config(made, models, known)


# Files of tasks


def test_tasks_are_read_of_json_and_csv(tmp_path):
    (tmp_path / "a.json").write_text(
        '[{"image": "x", "n": 1.5}, {"data": {"image": "y"}, "annotations": []}]'
    )
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfimage,deck\nx,3\n")
    assert list(task_files.read(tmp_path / "a.json")) == [
        {"data": {"image": "x", "n": 1.5}}, {"data": {"image": "y"}, "annotations": []},
    ]  # fmt: skip
    assert list(task_files.read(tmp_path / "a.csv")) == [{"data": {"image": "x", "deck": "3"}}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"image": "x"}', "found '{', expected a list"),
        ("a.json", '[{"image": "x"}', "expected a JSON list"),
        ("a.json", "[3]", "task 1: found int, expected a JSON object"),
        ("a.csv", "image,deck\nx\n", "another number of columns"),
        ("b.json", None, "cannot be read: No such file"),
    ],
)
def test_a_file_of_tasks_that_cannot_be_used_is_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ApplyError, match=re.escape(message)):
        list(task_files.read(tmp_path / name))


def test_a_task_is_known_again_after_numbers_were_counted_into_it():
    shape = frozenset({"image"})
    known = task_files.Known({shape, frozenset({"image", "deck"})})
    known.add({"image": "x", "persons": 3})
    known.add({"image": "y", "deck": "3"})
    assert known.take({"image": "x"})
    assert not known.take({"image": "x"})  # the second of two alike is missing
    assert known.take({"image": "y", "deck": "3"})
    assert not known.take({"image": "z"})


# YAML


def test_the_yaml_of_a_project_is_that_of_its_file_and_needs_no_more():
    found = State(
        {**fields.DEFAULTS, "label_config": "<View>\n  <Text/>\n</View>", "models": ["coco"],
         "sampling": "uniform"},
        {"views": [Item(1, {"title": "on", "ordering": []})]},
    )  # fmt: skip
    text = document.dump(document.of("Demo", found))
    assert "label_config: |-\n  <View>\n    <Text/>" in text
    assert yaml.safe_load(text)["models"] == ["coco"]
    assert "show_skip_button" not in text


def test_an_exported_file_names_its_schema_for_editors():
    assert (Path(__file__).parents[3] / "projects" / export.SCHEMA).resolve().is_file()


def test_a_sampling_is_sent_as_label_studio_calls_it():
    assert fields.sent({"sampling": "uncertainty", "instruction": "x"}) == {
        "sampling": "Uncertainty sampling", "expert_instruction": "x",
    }  # fmt: skip
    assert json.dumps(fields.found({"sampling": None, "color": "#FFFFFF"})["color"]) == '"#ffffff"'
