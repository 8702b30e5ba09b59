"""What a class returns, versions too, as Label Studio takes it."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.user_model.request import RequestContext
from ls_yolo.user_model.runner import ModelRunner
from tests.user_model.classes import (
    CONFIG,
    MANY_MODELS,
    ask,
    predictor,
    set_up,
)

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
    found = Many().predict(tasks, RequestContext(), {})
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
