"""The stand-in for label-studio-ml has what a model.py may import of it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from ls_yolo.user_model import loader
from ls_yolo.user_model.loader import ModelClassError
from ls_yolo.user_model.request import RequestContext, during
from tests.user_model.classes import (
    HEAD,
    ask,
    predictor,
    set_up,
)

PUBLIC = {
    "model": "CACHE LabelStudioMLBase ModelResponse predict_fn update_fn",
    "model.LabelStudioMLBase": "INITIAL_MODEL_VERSION TRAIN_EVENTS build_label_map "
    "bump_model_version extra_params fit get get_first_tag_occurence get_label_studio_access_token "
    "get_local_path has label_config model_version parsed_label_config predict preload_task_data "
    "process_event set set_extra_params setup use_label_config",
    "response": "ModelResponse SingleTaskPredictions",
    "response.ModelResponse": "has_model_version set_version update_predictions_version",
    "utils": "DATA_UNDEFINED_NAME InMemoryLRUDictCache get_choice get_first_tag_keys "
    "get_image_size get_single_tag_keys is_preload_needed is_skipped is_valid_url match_labels",
    "utils.InMemoryLRUDictCache": "get put __contains__",
    "cache": "BaseCache SqliteCache create_cache",
    "cache.BaseCache": "__contains__ __delitem__ __getitem__ __setitem__",
}
"""What a model.py may import of version 2; its server and its tools for tests are left out."""


@pytest.mark.parametrize("where", PUBLIC)
def test_the_stand_in_has_the_names_of_version_2(own, where):
    own(predictor("return []"))
    module, _, name = where.partition(".")
    found = importlib.import_module(f"label_studio_ml.{module}")
    assert Path(found.__file__).is_relative_to(loader.COMPAT)
    found = getattr(found, name) if name else found
    assert [name for name in PUBLIC[where].split() if not hasattr(found, name)] == []


def test_the_data_of_a_task_is_loaded_from_the_files_it_names(serve, tasks):
    client, _ = serve(
        predictor(
            "task = tasks[0]\n"
            "one = self.preload_task_data(task, value=task['data']['image'])\n"
            "path = self.preload_task_data(task, task['data']['image'], read_file=False)\n"
            "nested = {'a': [task['data']['image'], 'text', 7, None]}\n"
            "self.preload_task_data(task, nested)\n"
            "about = [one, path, nested, self.preload_task_data(task)]\n"
            "return [{'result': [], 'about': about}]"
        )
    )
    (task,) = tasks(1)
    task["data"]["text"] = "/etc/passwd"  # text that names a file of ours is text
    one, path, nested, data = ask(client, [task])[0]["about"]
    assert (one, Path(path).name, nested) == ("1", "1.txt", {"a": ["1", "text", 7, None]})
    assert data == {"image": "1", "text": "/etc/passwd"}


@pytest.mark.parametrize(
    ("value", "needed"),
    [
        ("/data/local-files/?d=a.txt", True),
        ("/data/upload/1/a.txt", True),
        ("upload/1/a.txt", True),
        ("s3://bucket/a.txt", True),
        ("https://example.org/a.txt", True),
        ("http://[", False),
        ("upload it: please", False),
        ("/etc/passwd", False),
        (".", False),
        ("", False),
    ],
)
def test_what_stands_for_a_file_is_an_address_and_no_text(own, value, needed):
    own(predictor("return []"))
    utils = importlib.import_module("label_studio_ml.utils")
    assert utils.is_preload_needed(value) is needed


def test_decorated_functions_predict_and_learn_without_a_class(serve, tasks):
    client, mine = serve(
        """
from label_studio_ml.model import LabelStudioMLBase, predict_fn, update_fn

@predict_fn
def detect(tasks, context, helper, **kwargs):
    return [{"result": [], "project": helper.project_id} for task in tasks]

@update_fn
def learn(event, data, helper, **kwargs):
    helper.set("model_version", event)
""",
        name="LabelStudioMLBase",
    )
    assert [p["project"] for p in ask(client, tasks(1, 2), "7.1")] == ["7", "7"]
    body = {"action": "START_TRAINING", "project": {"id": 7}}
    assert client.post("/webhook", json=body).status_code == 201
    mine.finish()
    assert set_up(client) == "START_TRAINING"


def test_the_base_class_alone_is_not_served(own):
    with pytest.raises(ModelClassError, match="is not derived from LabelStudioMLBase"):
        own(HEAD, name="LabelStudioMLBase")


def test_what_a_class_stores_is_in_the_cache_of_the_package(own):
    mine = own(predictor("return []"))
    with during(RequestContext("7")):
        mine._instance.set("key", "text")
    kept = importlib.import_module("label_studio_ml.model").CACHE
    assert ("7", "key") in kept and kept["7", "key"] == "text"
    del kept["7", "key"]
    assert ("7", "key") not in kept and kept["7", "key"] is None


@pytest.mark.parametrize("kind", ["SqliteCache", "MemoryCache"])
def test_a_cache_keeps_texts_by_project_and_key(own, tmp_path, kind):
    own(predictor("return []"))
    cache = importlib.import_module("label_studio_ml.cache")
    kept = getattr(cache, kind)(tmp_path / "folder")
    kept["1", "a"], kept["2", "a"] = "one", "two"
    kept["1", "a"] = "three"
    assert (kept["1", "a"], kept["2", "a"], kept["1", "b"]) == ("three", "two", None)
    with pytest.raises(ValueError, match=r"set\('a'\): found int, expected str"):
        kept["1", "a"] = 1
    del kept["1", "a"], kept["1", "never"]
    assert ("1", "a") not in kept and ("2", "a") in kept
    with pytest.raises(ValueError, match="found 'redis', expected 'sqlite'"):
        cache.create_cache("redis", tmp_path)


def test_the_cache_in_memory_forgets_what_was_not_used_for_longest(own):
    own(predictor("return []"))
    kept = importlib.import_module("label_studio_ml.utils").InMemoryLRUDictCache(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert ("a" in kept, "b" in kept, "c" in kept) == (True, False, True)
    assert kept.get("b") is None


def test_a_line_of_a_language_model_is_the_label_most_like_it(own):
    own(predictor("return []"))
    match = importlib.import_module("label_studio_ml.utils").match_labels
    assert match("persons\nCar.\n", ["car", "person"]) == ["person", "car"]
