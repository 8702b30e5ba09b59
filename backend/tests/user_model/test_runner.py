"""A model.py of the user's own behind the backend's HTTP: written as its users write it."""

from __future__ import annotations

import base64
import importlib
import itertools
import json
import os
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo import settings
from ls_yolo.images.web import Web
from ls_yolo.labelstudio.client import Studio
from ls_yolo.labelstudio.connections import ConnectionCache
from ls_yolo.server import user_model
from ls_yolo.server.base import RequestLimiter
from ls_yolo.serving.predictor import ClientGone
from ls_yolo.user_model import files, loader, runner
from ls_yolo.user_model.loader import ModelClassError
from ls_yolo.user_model.runner import ModelRunner

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="person"/></RectangleLabels></View>"""
AUTH = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}

HEAD = """
from typing import Dict, List, Optional
from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import get_local_path
"""

# As people write it who followed the template: several models by name, extra_params choose, and one
# answer for all tasks.
MANY_MODELS = (
    HEAD
    + """
MODELS = {"wheelhouse-person": ["person"], "wheelhouse-head": ["head", "head"]}

class NewModel(LabelStudioMLBase):
    made = 0

    def __init__(self, project_id=None, label_config=None):
        super().__init__(project_id, label_config)
        NewModel.made += 1
        self.models = dict(MODELS)

    def setup(self):
        self.set("model_version", "0.0.1")

    def predict(self, tasks: List[Dict], context: Optional[Dict] = None, **kwargs) -> ModelResponse:
        result, scores = [], []
        for name, found in self.models.items():
            if name not in self.extra_params.values():
                continue
            for task in tasks:
                with open(get_local_path(task["data"]["image"], task_id=task.get("id"))) as file:
                    x = float(file.read())
                for label in found:
                    scores.append(0.5)
                    result.append({
                        "from_name": "label", "to_name": "image", "type": "rectanglelabels",
                        "value": {"rectanglelabels": [label], "x": x, "y": 0, "width": 1,
                                  "height": 1, "rotation": 0},
                    })
        return ModelResponse(predictions=[{
            "result": result, "score": sum(scores) / max(len(scores), 1),
            "model_version": self.get("model_version"),
        }])

    def fit(self, event, data, **kwargs):
        self.set("my_data", event)
        self.set("model_version", "fitted")
"""
)

numbers = itertools.count()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """What a process has once: its folder, its path of modules, its environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "label_studio_ml"]:
        monkeypatch.delitem(sys.modules, name)  # what @predict_fn has said stays in it
    (tmp_path / "datasets").mkdir()


@pytest.fixture
def own(tmp_path):
    """Makes an `Own` of the text of a model.py: ``own(text, name="NewModel")``."""

    def make(text, name="NewModel", studio=None, wait=30.0, module=None, web=None):
        module = module or f"model_{next(numbers)}"
        folder = tmp_path / "models"
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(text)
        return ModelRunner(
            f"{module}:{name}", folder, tmp_path / "datasets", studio, web or Web(), wait
        )

    return make


@pytest.fixture
def serve(own):
    """A client of the application that serves the text of a model.py, and its `Own`."""

    def make(text, password="", connections=None, **more):
        mine = own(text, **more)
        said = ConnectionCache(connections, user_model.parameters)
        return user_model.build(
            mine, said, "user", password, RequestLimiter(16)
        ).test_client(), mine

    return make


def predictor(body: str, head: str = "") -> str:
    """A model.py whose ``predict`` has this body."""
    lines = "\n        ".join(body.splitlines())
    return (
        HEAD
        + head
        + f"""
class NewModel(LabelStudioMLBase):
    def predict(self, tasks, context=None, **kwargs):
        {lines}
"""
    )


@pytest.fixture
def tasks(tmp_path):
    """Makes tasks whose file has the task's number in it."""

    def make(*numbers):
        for number in numbers:
            (tmp_path / "datasets" / f"{number}.txt").write_text(str(number))
        return [{"id": n, "data": {"image": f"/data/local-files/?d={n}.txt"}} for n in numbers]

    return make


def ask(client, tasks, project="7.1", path="", **more):
    body = {"tasks": tasks, "project": project, "label_config": CONFIG, **more}
    answer = client.post(f"{path}/predict", json=body)
    return (
        answer.json["results"] if answer.status_code == 200 else (answer.status_code, answer.json)
    )


def set_up(client, project="7.1", extra_params=None, path=""):
    body = {"project": project, "schema": CONFIG, "extra_params": extra_params}
    return client.post(f"{path}/setup", json=body).json["model_version"]


def xs(prediction):
    return [region["value"]["x"] for region in prediction["result"]]


# What such files rely on


def test_one_answer_for_all_tasks_becomes_one_for_each_in_order(serve, tasks):
    client, _ = serve(MANY_MODELS)
    assert set_up(client, extra_params='{"0": "wheelhouse-person"}') == "0.0.1"
    found = ask(client, tasks(1, 2, 3))
    assert [xs(prediction) for prediction in found] == [[1], [2], [3]]
    assert {prediction["model_version"] for prediction in found} == {"0.0.1"}
    assert [prediction["score"] for prediction in found] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("extra", "labels"),
    [
        ({"0": "wheelhouse-head"}, ["head", "head"]),
        ('{"0": "wheelhouse-person", "1": "wheelhouse-head"}', ["person", "head", "head"]),
        (["wheelhouse-person"], ["person"]),
        ("wheelhouse-person", ["person"]),
        (None, []),
    ],
)
def test_extra_params_choose_among_the_models_of_the_file(serve, tasks, extra, labels):
    client, _ = serve(MANY_MODELS)
    set_up(client, extra_params=extra)
    (found,) = ask(client, tasks(1))
    assert [r["value"]["rectanglelabels"][0] for r in found["result"]] == labels


def test_names_in_the_url_count_as_extra_params(serve, tasks):
    client, _ = serve(MANY_MODELS)
    path = "/m/wheelhouse-person+wheelhouse-head"
    set_up(client, path=path)
    (found,) = ask(client, tasks(4), path=path)
    assert xs(found) == [4, 4, 4]


def test_the_instance_is_made_once_for_all_projects_and_requests(serve, tasks):
    client, mine = serve(MANY_MODELS)
    for project in ("1.0", "2.0"):
        set_up(client, project, {"0": "wheelhouse-person"})
        ask(client, tasks(1), project)
    assert mine._class.made == 1


def test_extra_params_that_were_forgotten_are_read_back_from_label_studio(serve, tasks):
    class Connections:
        def connections(self, project):
            assert project == 7
            return [{"url": "http://localhost", "extra_params": {"0": "wheelhouse-person"}}]

    client, _ = serve(MANY_MODELS, connections=Connections())
    assert xs(ask(client, tasks(5))[0]) == [5]


def test_the_request_has_its_project_configuration_and_context(serve, tasks):
    client, _ = serve(
        predictor(
            "tag = self.label_interface.get_first_tag_occurence('RectangleLabels', 'Image')\n"
            "name, _, key = tag\n"
            "about = [self.project_id, name, key, sorted(self.parsed_label_config),\n"
            "         self.label_config, context, sorted(kwargs)]\n"
            "return [{'result': [], 'about': about} for task in tasks]"
        )
    )
    params = {"login": None, "password": None, "context": {"result": []}}
    (found,) = ask(client, tasks(1), "12.34", params=params)
    assert found["about"] == [
        "12", "label", "image", ["label"], CONFIG, {"result": []}, ["login", "password"]
    ]  # fmt: skip


def test_a_thread_that_predict_starts_sees_the_same_request(serve, tasks):
    client, _ = serve(
        predictor(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor() as pool:\n"
            "    ids = list(pool.map(lambda task: self.project_id, tasks))\n"
            "return [{'result': [], 'project': number} for number in ids]"
        )
    )
    assert [found["project"] for found in ask(client, tasks(1, 2), "3.0")] == ["3", "3"]


def test_calls_never_overlap_and_each_sees_its_own_project(serve, tasks):
    client, _ = serve(
        predictor(
            "global inside\n"
            "inside += 1\n"
            "assert inside == 1\n"
            "before = self.project_id\n"
            "time.sleep(0.01)\n"
            "assert self.project_id == before\n"
            "inside -= 1\n"
            "return [{'result': [], 'project': before} for task in tasks]",
            head="import time\ninside = 0\n",
        )
    )
    wanted = tasks(1)
    found: dict[int, Any] = {}

    def go(number):
        found[number] = ask(client.application.test_client(), wanted, f"{number}.0")

    threads = [threading.Thread(target=go, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: answer[0]["project"] for n, answer in found.items()} == {
        n: str(n) for n in range(1, 9)
    }


def test_weights_are_found_beside_model_py(own, tmp_path):
    (tmp_path / "models" / "weights").mkdir(parents=True)
    (tmp_path / "models" / "weights" / "best.pt").write_text("weights")
    mine = own(
        HEAD + "class NewModel(LabelStudioMLBase):\n"
        "    def setup(self):\n"
        "        self.text = open('weights/best.pt').read()\n"
    )
    assert mine._instance.text == "weights"


# The stand-in for label-studio-ml


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
    with runner._during(runner.RequestContext("7")):
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


# Versions


def test_the_version_of_setup_is_in_versions_and_in_every_prediction(serve, tasks):
    client, _ = serve(
        predictor("return [{'result': []} for task in tasks]")
        + "    def setup(self):\n        self.set('model_version', 'v7')\n"
    )
    assert set_up(client) == "v7"
    assert [p["model_version"] for p in ask(client, tasks(1, 2))] == ["v7", "v7"]
    assert client.get("/versions").json == {"versions": ["v7"]}


def test_a_class_that_sets_no_version_has_one_all_the_same(serve, tasks):
    client, _ = serve(predictor("return [{'result': []} for task in tasks]"))
    assert set_up(client) == "0.0.1"


def test_the_version_of_a_whole_response_is_that_of_its_predictions(serve, tasks, caplog):
    client, _ = serve(
        predictor("return ModelResponse(model_version='x', predictions=[{'result': []}])")
    )
    assert ask(client, tasks(1))[0]["model_version"] == "x"
    assert "found model_version 'x', but setup has said '0.0.1'" in caplog.text


def test_what_fit_sets_holds_for_its_project_and_after_a_restart(serve, tasks):
    client, mine = serve(MANY_MODELS, module="again")
    set_up(client, "1.0")
    body = {"action": "START_TRAINING", "project": {"id": 1, "label_config": CONFIG}}
    assert client.post("/webhook", json=body).status_code == 201
    mine.finish()
    assert (set_up(client, "1.0"), set_up(client, "2.0")) == ("fitted", "0.0.1")
    assert client.get("/versions").json == {"versions": ["0.0.1", "fitted"]}
    sys.modules.pop("again")
    client, _ = serve(MANY_MODELS, module="again")
    assert set_up(client, "1.0") == "fitted"
    # A class that begins with another version has other weights.
    sys.modules.pop("again")
    client, _ = serve(MANY_MODELS.replace("0.0.1", "0.0.2"), module="again")
    assert (set_up(client, "1.0"), set_up(client, "2.0")) == ("0.0.2", "0.0.2")


def test_without_a_folder_to_write_to_a_class_works_until_the_backend_stops(
    serve, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "file" / "folder"))
    client, mine = serve(MANY_MODELS)
    client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 1}})
    mine.finish()
    assert set_up(client, "1.0") == "fitted"
    assert "what set() stores is lost when the backend stops" in caplog.text


# Answers of every kind


ANSWERS = {
    "a ModelResponse": "ModelResponse(predictions=[{'result': [], 'score': 0.25} for t in tasks])",
    "dicts in a list": "[{'result': [], 'score': 0.25} for t in tasks]",
    "a dict of predictions": "{'predictions': [{'result': [], 'score': 0.25} for t in tasks]}",
    "numbers of numpy": "[{'result': [], 'score': np.float32(0.25)} for t in tasks]",
    "a generator's list": "tuple({'result': [], 'score': 0.25} for t in tasks)",
}


@pytest.mark.parametrize("text", ANSWERS.values(), ids=ANSWERS)
def test_predictions_may_come_as(serve, tasks, text):
    client, _ = serve(predictor(f"return {text}", head="import numpy as np\n"))
    assert ask(client, tasks(1, 2)) == [
        {"result": [], "score": 0.25, "model_version": "0.0.1"},
        {"result": [], "score": 0.25, "model_version": "0.0.1"},
    ]


@pytest.mark.parametrize("text", ["None", "[]", "ModelResponse(predictions=[])"])
def test_no_prediction_at_all_is_an_empty_one_for_each_task(serve, tasks, text):
    client, _ = serve(predictor(f"return {text}"))
    empty = {"result": [], "score": 0.0, "model_version": "0.0.1"}
    assert ask(client, tasks(1, 2)) == [empty, empty]


def test_several_predictions_of_one_task_stay_together(serve, tasks):
    client, _ = serve(predictor("return [[{'result': []}, {'result': []}] for t in tasks]"))
    assert [len(entry) for entry in ask(client, tasks(1, 2))] == [2, 2]


def test_fewer_predictions_than_tasks_are_asked_for_one_at_a_time(serve, tasks, caplog):
    client, _ = serve(
        predictor("return [{'result': [], 'id': t['id']} for t in tasks if t['id'] != 2]")
    )
    found = ask(client, tasks(1, 2, 3))
    assert [prediction.get("id") for prediction in found] == [1, None, 3]
    assert "gave 2 predictions for 3 tasks, expected one for each, in order" in caplog.text


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_every_task_has_one_entry_in_order_however_many_answers_the_class_gives(given_for):
    class Many(ModelRunner):
        def __init__(self):
            self.name, self._one_by_one, self._told, self._projects = "Many", False, set(), set()
            self._instance = None

        def version(self, call, gone):
            return "v"

        def _ask(self, tasks, call, params, gone):
            return [
                {"result": [], "task": task["id"]} for task in tasks for _ in range(task["count"])
            ]

    tasks = [{"id": i, "count": count} for i, count in enumerate(given_for)]
    found = Many().predict(tasks, runner.RequestContext(), {})
    if len(tasks) > 1 and sum(given_for) == len(tasks):
        return  # as many as tasks: taken as one for each
    assert len(found) == len(tasks)
    for number, (entry, count) in enumerate(zip(found, given_for, strict=True)):
        entries = entry if isinstance(entry, list) else [entry]
        assert len(entries) == max(count, 1)
        assert {e.get("task", number) for e in entries} == {number}
        assert all(e["model_version"] == "v" for e in entries)


def test_what_label_studio_would_refuse_the_whole_answer_for_is_left_out(serve, tasks, caplog):
    client, _ = serve(
        predictor(
            "good = {'value': {'x': 1.0}}\n"
            "bad = {'value': {'x': float('nan')}}\n"
            "return [{'result': [good, bad], 'score': float('nan')}]"
        )
    )
    (found,) = ask(client, tasks(1))
    assert (found["result"], found["score"]) == ([{"value": {"x": 1.0}}], 0.0)
    assert "regions with NaN or infinity are left out" in caplog.text


def test_a_task_that_breaks_predict_does_not_take_the_others_with_it(serve, tasks):
    client, _ = serve(
        predictor("return [{'result': [], 'value': 1 // (t['id'] - 2)} for t in tasks]")
    )
    found = ask(client, tasks(1, 2, 3))
    assert [prediction.get("error") for prediction in found] == [
        None, "NewModel.predict failed: ZeroDivisionError", None,
    ]  # fmt: skip
    assert (found[1]["result"], found[1]["score"]) == ([], None)


def test_where_every_task_breaks_predict_nothing_is_stored(serve, tasks):
    client, _ = serve(predictor("raise RuntimeError('CUDA error')"))
    status, answer = ask(client, tasks(1, 2))
    assert status == 500
    assert "no task could be predicted: NewModel.predict failed: RuntimeError" in answer["error"]


def test_an_answer_that_is_none_is_named(serve, tasks, caplog):
    client, _ = serve(predictor("return 'person'"))
    assert ask(client, tasks(1))[0] == 500
    assert "predict returned str, expected a ModelResponse or a list" in caplog.text


# Files


@pytest.mark.parametrize("d", ["../secret.txt", "/etc/passwd", "link.txt", "missing.txt"])
def test_a_file_that_is_missing_or_outside_fails_its_task_alone(serve, tasks, tmp_path, d):
    (tmp_path / "secret.txt").write_text("1")
    (tmp_path / "datasets" / "link.txt").symlink_to(tmp_path / "secret.txt")
    client, _ = serve(MANY_MODELS)
    set_up(client, extra_params={"0": "wheelhouse-person"})
    bad = {"id": 9, "data": {"image": f"/data/local-files/?d={d}"}}
    good, failed = ask(client, [*tasks(1), bad])
    assert xs(good) == [1]
    assert failed["score"] is None and failed["error"].startswith("no file: ")


@pytest.fixture
def label_studio(loopback):
    """A Label Studio with one upload that takes the access token and no other."""

    def token(kind, left):
        claims = {"token_type": kind, "exp": int(time.time()) + left}
        return jwt.encode(claims, "of Label Studio, of 32 bytes or more")

    refresh, access = token("refresh", 9999), token("access", 300)

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            good = self.path == "/api/token/refresh/" and body["refresh"] == refresh
            self.answer(200 if good else 401, json.dumps({"access": access}).encode())

        def do_GET(self):
            good = self.headers["Authorization"] == f"Bearer {access}"
            elsewhere = re.search(r"/at-([0-9]+)\.txt$", self.path)
            if good and elsewhere:
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{elsewhere[1]}/")
                self.end_headers()
            else:
                self.answer(200 if good else 401, b"8")

    return f"http://127.0.0.1:{loopback(Handler).server_port}", refresh


def test_an_upload_is_fetched_with_a_personal_access_token(serve, monkeypatch, label_studio):
    url, key = label_studio
    # The SDK's own get_local_path would send this token as it is, and get 401.
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    client, _ = serve(MANY_MODELS, studio=Studio(url, key))
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [{"id": 1, "data": {"image": "/data/upload/1/a.txt"}}])
    assert xs(found) == [8]


class Pictures(BaseHTTPRequestHandler):
    """What is no Label Studio: it says whether it was given a token."""

    def do_GET(self):
        body = b"9" if "Authorization" in self.headers else b"8"
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(body)


def test_addresses_of_private_networks_are_not_fetched_for_a_class_either(serve, loopback):
    url = f"http://127.0.0.1:{loopback(Pictures).server_port}/a.txt"
    task = {"id": 1, "data": {"image": url}}
    client, _ = serve(MANY_MODELS)
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [task])
    assert found["result"] == []
    assert "no public address" in found["error"]
    client, _ = serve(MANY_MODELS, web=Web(hosts=["127.0.0.1"]))
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [task])
    assert xs(found) == [8]


def test_label_studio_may_send_a_class_elsewhere_without_the_token(
    serve, monkeypatch, loopback, label_studio
):
    url, key = label_studio
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    upload = f"/data/upload/1/at-{loopback(Pictures).server_port}.txt"
    client, _ = serve(MANY_MODELS, studio=Studio(url, key), web=Web(hosts=["localhost"]))
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [{"id": 1, "data": {"image": upload}}])
    assert xs(found) == [8]


@pytest.mark.parametrize(("allowed", "flag"), [("", "1"), ("true", "0")])
def test_weights_that_a_class_loads_are_untrusted_unless_that_is_allowed(
    tmp_path, monkeypatch, allowed, flag
):
    """What ultralytics looks at when it is imported, which a model.py does in its first lines."""
    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "")
    monkeypatch.setenv("ALLOW_UNSAFE_WEIGHTS", allowed)
    module = f"model_{next(numbers)}"
    seen = "import os\nseen = os.environ['ULTRALYTICS_SAFE_LOAD']\n"
    (tmp_path / f"{module}.py").write_text(seen + predictor("return []"))
    environ = {"MODEL_CLASS": f"{module}:NewModel", "MODEL_ROOT": str(tmp_path)}
    user_model.create(settings.read("backend", environ))
    assert sys.modules[module].seen == flag


def test_what_was_fetched_is_kept_within_bounds(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{number}", (number, number))
    files._prune(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"3", "4"}


# Training


def test_fit_runs_in_the_background_one_at_a_time_in_order(serve):
    client, mine = serve(
        HEAD + "import threading\nseen, go = [], threading.Event()\n"
        "class NewModel(LabelStudioMLBase):\n"
        "    def fit(self, event, data, **kwargs):\n"
        "        go.wait(10)\n"
        "        seen.append((event, data['number'], self.project_id))\n"
    )
    module = sys.modules[mine._class.__module__]
    for number in range(3):
        body = {"action": "START_TRAINING", "number": number, "project": {"id": 5}}
        assert client.post("/webhook", json=body).status_code == 201
    assert module.seen == []
    module.go.set()
    mine.finish()
    seen = module.seen
    assert seen == [("START_TRAINING", number, "5") for number in range(3)]


def test_a_fit_that_fails_is_logged_and_the_next_one_runs(serve, caplog):
    client, mine = serve(
        HEAD + "class NewModel(LabelStudioMLBase):\n"
        "    def fit(self, event, data, **kwargs):\n"
        "        assert data['good'], 'no data'\n"
        "        self.set('model_version', 'trained')\n"
    )
    for good in (False, True):
        body = {"action": "START_TRAINING", "good": good, "project": {"id": 5}}
        client.post("/webhook", json=body)
    mine.finish()
    assert "project 5: fit('START_TRAINING') failed" in caplog.text
    assert set_up(client, "5.0") == "trained"


def test_only_who_says_the_password_has_fit_called(serve):
    client, mine = serve(MANY_MODELS, password="secret")
    body = {"action": "START_TRAINING", "project": {"id": 1}}
    assert client.post("/webhook", json=body).status_code == 401
    # As Label Studio's own webhooks of annotations come.
    created = body | {"action": "ANNOTATION_CREATED"}
    assert client.post("/webhook", json=created).json == {"status": "ignored"}
    assert mine._events.empty() and mine._trainer is None
    assert client.post("/webhook", json=body, headers=AUTH).status_code == 201
    mine.finish()


def test_other_events_are_no_fault(serve):
    client, mine = serve(MANY_MODELS)
    body = {"action": "TASKS_CREATED", "project": {"id": 1}}
    assert client.post("/webhook", json=body).json == {"status": "ignored"}
    assert mine._trainer is None


def test_a_class_without_fit_says_so(serve):
    client, _ = serve(predictor("return []"))
    body = {"action": "START_TRAINING", "project": {"id": 1}}
    answer = client.post("/webhook", json=body)
    assert (answer.status_code, answer.json["error"]) == (
        501, "training is not offered: NewModel has no fit()",
    )  # fmt: skip


def test_predictions_wait_for_fit_only_so_long_and_setup_does_not(serve, tasks):
    client, mine = serve(
        predictor(
            "return [{'result': []} for t in tasks]",
            head="import threading\ngo = threading.Event()\n",
        )
        + "    def fit(self, event, data, **kwargs):\n        go.wait(10)\n",
        wait=0.05,
    )
    client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 1}})
    while mine._training_since is None:
        time.sleep(0.001)
    status, answer = ask(client, tasks(1))
    assert (status, answer["error"]) == (429, "NewModel trains for 0 s; try again later")
    assert set_up(client) == "0.0.1"
    sys.modules[mine._class.__module__].go.set()
    mine.finish()
    assert len(ask(client, tasks(1))) == 1


@pytest.fixture
def counting(own):
    """An `Own` that counts calls of predict, each of which waits for ``go``."""
    mine = own(
        predictor(
            "calls.append(len(tasks))\ngo.wait(10)\nreturn [{'result': []} for t in tasks]",
            head="import threading\ngo, calls = threading.Event(), []\n",
        )
    )
    module = sys.modules[mine._class.__module__]
    yield mine, module
    module.go.set()


@pytest.mark.parametrize("count", [1, 2])
def test_who_waits_for_a_turn_and_goes_is_dropped_at_once(counting, tasks, count):
    mine, module = counting
    call, gone = runner.RequestContext(config=CONFIG), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(mine.predict, tasks(1), call, {})
        while not module.calls:
            time.sleep(0.001)
        second = pool.submit(mine.predict, tasks(*range(count)), call, {}, gone.is_set)
        time.sleep(0.01)
        gone.set()
        try:
            with pytest.raises(ClientGone):
                second.result(5)
        finally:
            module.go.set()
        assert len(first.result()) == 1
    assert module.calls == [1]
    assert not mine._lock.locked()


@pytest.mark.parametrize("count", [1, 2])
def test_who_is_gone_when_the_turn_comes_is_not_worked_for(counting, tasks, count):
    mine, module = counting
    module.go.set()
    with pytest.raises(ClientGone):
        mine.predict(tasks(*range(count)), runner.RequestContext(config=CONFIG), {}, lambda: True)
    assert module.calls == []
    assert not mine._lock.locked()


def test_who_goes_between_two_tasks_has_no_more_of_them_predicted(counting, tasks):
    mine, module = counting
    module.go.set()
    mine._one_by_one = True
    with pytest.raises(ClientGone):
        mine.predict(
            tasks(1, 2, 3), runner.RequestContext(config=CONFIG), {}, lambda: len(module.calls) == 2
        )
    assert module.calls == [1, 1]


# HTTP


def test_all_but_health_is_behind_the_password(serve):
    client, _ = serve(MANY_MODELS, password="secret")
    for path in ("/setup", "/predict"):
        assert client.post(path, json={}).status_code == 401
    assert client.get("/versions").status_code == 401
    assert client.get("/health").json == {"status": "UP", "model_class": "NewModel"}
    assert client.get("/readyz").json["status"] == "ready"
    assert client.get("/versions", headers=AUTH).json == {"versions": ["0.0.1"]}


def test_requests_beyond_the_limit_are_turned_away_at_once(own, tasks):
    mine = own(
        predictor(
            "go.wait(10)\nreturn [{'result': []} for t in tasks]",
            head="import threading\ngo = threading.Event()\n",
        )
    )
    app = user_model.build(
        mine, ConnectionCache(None, user_model.parameters), "", "", RequestLimiter(3)
    )
    wanted = tasks(1)
    first = threading.Thread(target=lambda: ask(app.test_client(), wanted))
    first.start()
    while not mine._lock.locked():
        time.sleep(0.001)
    answer = app.test_client().post("/predict", json={"tasks": wanted})
    assert answer.status_code == 429 and "Retry-After" in answer.headers
    assert app.test_client().get("/health").status_code == 200
    sys.modules[mine._class.__module__].go.set()
    first.join()


@pytest.mark.parametrize(
    "body", [{}, {"tasks": 1}, {"tasks": [1]}, {"tasks": [], "params": 1}, [], None]
)
def test_a_body_that_is_no_request_is_400(serve, body):
    client, _ = serve(MANY_MODELS)
    assert client.post("/predict", json=body).status_code == 400


# Classes that cannot be served


@pytest.mark.parametrize(
    ("spec", "text", "message"),
    [
        ("absent:NewModel", "", r"no module is called 'MODULE'; expected the file .*/MODULE\.py"),
        ("a:Newmodel", MANY_MODELS, r"'Newmodel' is not there; did you mean 'NewModel'\?"),
        ("b:Other", "class Other: pass", "'Other' is not derived from LabelStudioMLBase"),
        (
            "c:NewModel",
            "import no_such_thing",
            "MODULE imports 'no_such_thing', which is not installed",
        ),
        ("d:NewModel", "1 / 0", "(?s)MODULE cannot be imported:.*ZeroDivisionError"),
        ("e:NewModel", "(", "(?s)MODULE cannot be imported:.*SyntaxError"),
        (
            "f:NewModel",
            HEAD
            + "class NewModel(LabelStudioMLBase):\n    def setup(self):\n        open('w.pt')\n",
            "(?s)NewModel cannot be made:.*No such file or directory: 'w.pt'",
        ),
    ],
)
def test_what_cannot_be_served_is_said_with_its_cure(tmp_path, spec, text, message):
    module = f"{spec.partition(':')[0]}_{next(numbers)}"
    message = message.replace("MODULE", module)
    if text:
        (tmp_path / f"{module}.py").write_text(text)
    with pytest.raises(ModelClassError, match=message):
        ModelRunner(f"{module}:{spec.partition(':')[2]}", tmp_path, tmp_path, None, Web())


def test_a_class_that_reads_the_labels_when_it_is_made_is_made_with_the_first_request(
    serve, tasks, caplog
):
    client, mine = serve(
        predictor("return [{'result': [], 'name': self.name} for t in tasks]")
        + "    def setup(self):\n"
        "        self.name, *_ = self.label_interface.get_first_tag_occurence(\n"
        "            'RectangleLabels', 'Image')\n"
    )
    assert mine._instance is None
    assert "asks for a labeling config when it is made" in caplog.text
    assert set_up(client) == "0.0.1"
    assert ask(client, tasks(1))[0]["name"] == "label"


def test_the_real_package_comes_before_ours(tmp_path, own):
    """Where label-studio-ml is installed, a model.py gets it."""
    own(MANY_MODELS)
    assert sys.path[-1] == str(loader.COMPAT)
    assert Path(sys.modules["label_studio_ml"].__file__).is_relative_to(loader.COMPAT)
