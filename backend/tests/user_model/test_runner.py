"""A model.py as its users write it: one instance, one call at a time, for every project."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ls_yolo.labelstudio.connections import ConnectionCache
from ls_yolo.server import user_model
from ls_yolo.server.base import RequestLimiter
from ls_yolo.serving.predictor import ClientGone
from ls_yolo.user_model.request import RequestContext
from tests.user_model.classes import (
    AUTH,
    CONFIG,
    HEAD,
    MANY_MODELS,
    ask,
    predictor,
    set_up,
    xs,
)


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


@pytest.fixture
def counting(own):
    """A `ModelRunner` that counts calls of predict, each of which waits for ``go``."""
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
    call, gone = RequestContext(config=CONFIG), threading.Event()
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
        mine.predict(tasks(*range(count)), RequestContext(config=CONFIG), {}, lambda: True)
    assert module.calls == []
    assert not mine._lock.locked()


def test_who_goes_between_two_tasks_has_no_more_of_them_predicted(counting, tasks):
    mine, module = counting
    module.go.set()
    mine._one_by_one = True
    with pytest.raises(ClientGone):
        mine.predict(
            tasks(1, 2, 3), RequestContext(config=CONFIG), {}, lambda: len(module.calls) == 2
        )
    assert module.calls == [1, 1]


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
