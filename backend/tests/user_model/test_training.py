"""fit() of a user's class: in the background, in order, for who may."""

from __future__ import annotations

import sys
import time

from tests.user_model.classes import (
    AUTH,
    HEAD,
    MANY_MODELS,
    ask,
    predictor,
    set_up,
)


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
